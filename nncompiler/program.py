"""Takes one graph and the model's state, gives its artifact and session, made when first needed."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

from ir.graph import Graph
from nncompiler.compilation import Checks, compile_graph
from nncompiler.options import Options
from nncompiler.room import room
from runtime.artifact import Artifact
from runtime.session import Session
from runtime.state import State

if TYPE_CHECKING:
    from nncompiler.pipeline import Lowered


class Program:
    """A graph on its way to native code. Reading `artifact` compiles it, once."""

    def __init__(self, graph: Graph, state: State, checks: Checks, options: Options) -> None:
        self.graph = graph
        self.state = state
        self.checks = dict(checks)
        self.options = options

    @cached_property
    def artifact(self) -> Artifact:
        return compile_graph(
            self.graph, options=self.options, checks=self.checks, label=self.graph.name
        )

    @cached_property
    def session(self) -> Session:
        return Session(self.artifact, self.state, self.options.threads)

    @cached_property
    def timed(self) -> Session:
        """A session of the same program with the entry that times every kernel."""
        options = replace(self.options, timed=True)
        artifact = compile_graph(
            self.graph, options=options, checks=self.checks, label=self.graph.name
        )
        return Session(artifact, self.state, self.options.threads)

    @property
    def compiled(self) -> bool:
        return "artifact" in self.__dict__

    @cached_property
    def lowered(self) -> Lowered:
        """The stages between graph and object code, for reading."""
        from nncompiler.pipeline import lower_graph  # see compilation.py

        with room():
            return lower_graph(
                self.graph, options=self.options, checks=self.checks, label=self.graph.name
            )

    def stage(self, name: str) -> str:
        """The text of a stage from "simplified" to "assembly"."""
        from nncompiler.listing import stage_text

        return stage_text(self.lowered, name)
