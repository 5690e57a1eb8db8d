"""Takes one graph and the model's state, gives its artifact and session, made when first needed."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

from ir.graph import Graph
from ir.text import print_graph
from ir.text_loops import print_function, print_kernel
from nncompiler.codegen.assemble import assembly
from nncompiler.options import Options
from nncompiler.pipeline import Lowered, compile_graph, lower_graph
from runtime.artifact import Artifact
from runtime.session import Session
from runtime.state import State

Checks = Mapping[str, tuple[int, int] | None]


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

    @property
    def compiled(self) -> bool:
        return "artifact" in self.__dict__

    @cached_property
    def lowered(self) -> Lowered:
        """The stages between graph and object code, for reading."""
        return lower_graph(
            self.graph, options=self.options, checks=self.checks, label=self.graph.name
        )

    def stage(self, name: str) -> str:
        """The text of a stage from "simplified" to "assembly"."""
        lowered = self.lowered
        if name == "simplified":
            return print_graph(lowered.simplified)
        if name == "kernels":
            return "\n\n".join(print_kernel(kernel) for kernel in lowered.kernels)
        if name == "loops":
            return "\n\n".join(print_function(s.function) for s in lowered.scheduled)
        if name == "llvm":
            return lowered.module
        return assembly(lowered.module, lowered.target)
