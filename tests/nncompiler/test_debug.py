"""Options(debug=True) finds the pass that breaks a program, and finds nothing in what is right."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import networkx as nx
import numpy as np
import pytest

import nncompiler as nnc
from ir import ops, scalar
from ir.graph import Graph, Node
from ir.loops import Kernel
from nncompiler import debug, pipeline, simplify
from nncompiler.codegen.assemble import Scheduled
from nncompiler.options import Options
from nncompiler.pipeline import build

DEBUG = Options(threads=1, debug=True)


def classifier() -> nx.DiGraph[str]:
    g: nx.DiGraph[str] = nx.DiGraph()
    g.add_node("x", op="input", shape=("batch", 5))
    g.add_node("hidden", op="dense", units=9, activation="tanh")
    g.add_node("kept", op="dropout", rate=0.5)
    g.add_node("y", op="dense", units=3)
    nx.add_path(g, ["x", "hidden", "kept", "y"])
    return g


def compile_classifier(options: Options = DEBUG) -> nnc.Model:
    return nnc.compile(
        classifier(), loss="cross_entropy", optimizer="adam", metrics="accuracy", options=options
    )


def small_graph() -> Graph:
    x, w = ops.input("x", "f32", ("batch", 4)), ops.input("w", "f32", (4, 4))
    y = ops.tanh(x @ w) - 1
    outputs = {"y": y, "update:w": w - ops.einsum("bi,bj->ij", x, y)}
    return Graph("small", (x, w), outputs, {y: "y"})


def fails(stage: str, *words: str) -> None:
    with pytest.raises(nnc.CompileError) as caught:
        build(small_graph(), options=DEBUG)
    assert caught.value.stage == stage
    assert f"pass '{stage}'" in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_a_right_compiler_has_nothing_to_say() -> None:
    x, t = np.ones((4, 5), "f4"), np.zeros(4, "i8")
    plain, watched = compile_classifier(Options(threads=1)), compile_classifier()
    assert plain.step(x, t) == watched.step(x, t)


def test_a_wrong_rule_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def tanh_is_linear(node: Node) -> Node | None:
        return node.inputs[0] if node.op.name == "tanh" else None

    monkeypatch.setattr(simplify, "RULES", (tanh_is_linear, *simplify.RULES))
    build(small_graph(), options=Options())  # nobody looks
    fails("simplify", "output 'y'")
    with pytest.raises(nnc.CompileError, match="simplify"):
        compile_classifier()


def test_a_rule_that_changes_the_type_of_a_value_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def simplified(graph: Graph) -> Graph:
        y = ops.cast(graph.outputs["y"], "f64")
        return replace(graph, outputs={**graph.outputs, "y": y})

    monkeypatch.setattr(pipeline, "simplify", simplified)
    fails("simplify", "float64", "output 'y'")


def test_a_graph_that_is_not_well_formed_is_named() -> None:
    x, w = ops.input("x", "f32", ("batch", 4)), ops.input("w", "f32", (4,))
    with pytest.raises(nnc.CompileError, match="not among its inputs") as caught:
        build(Graph("small", (x,), {"y": x + w}), options=DEBUG)
    assert caught.value.stage == "graph"


def test_an_update_before_its_last_reader_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    place = pipeline.place

    def hasty(fusion: Any) -> Any:
        storage = place(fusion)
        return replace(storage, kernels=storage.kernels[::-1])

    monkeypatch.setattr(pipeline, "place", hasty)
    fails("place", "kernel k")


def test_a_wrong_schedule_is_named_with_its_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    schedule = pipeline.schedule

    def negative(kernel: Kernel, *rest: Any) -> Any:
        writes = tuple(
            replace(w, value=scalar.apply("neg", [w.value], w.value.dtype)) for w in kernel.writes
        )
        return schedule(replace(kernel, writes=writes), *rest)

    monkeypatch.setattr(pipeline, "schedule", negative)
    fails("schedule", "'out y' of kernel k00")


def test_loops_that_leave_their_buffer_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    schedule = pipeline.schedule

    def shrunk(kernel: Any, *rest: Any) -> Any:
        kernel, function = schedule(kernel, *rest)
        buffers = tuple(replace(b, size=1) for b in function.buffers)
        return kernel, replace(function, buffers=buffers)

    monkeypatch.setattr(pipeline, "schedule", shrunk)
    fails("schedule", "not well formed", "leaves")


def test_wrong_native_code_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    emit = pipeline.emit

    def swapped(*args: Any, **kwargs: Any) -> Any:
        plan, module = emit(*args, **kwargs)
        return plan, module.replace("fsub", "fadd")

    monkeypatch.setattr(pipeline, "emit", swapped)
    fails("emit", "output")


def test_every_pass_is_shown_once_in_order() -> None:
    seen: list[tuple[str, object]] = []
    build(small_graph(), observers=[lambda stage, value: seen.append((stage, value))])
    stages = [
        "graph",
        "simplify",
        "narrow",
        "layout",
        "fuse",
        "place",
        "schedule",
        "emit",
        "assemble",
    ]
    assert [stage for stage, _ in seen] == stages
    scheduled = dict(seen)["schedule"]
    assert isinstance(scheduled, tuple) and all(isinstance(s, Scheduled) for s in scheduled)


def test_infinities_and_nan_must_be_the_same() -> None:
    a = np.array([np.nan, np.inf, -np.inf, 1.0])
    debug.compare("stage", "a", a, a.copy())
    for position, wrong in ((0, 1.0), (1, -np.inf), (2, np.nan), (3, 1.1), (3, np.inf)):
        b = a.copy()
        b[position] = wrong
        with pytest.raises(nnc.CompileError, match="stage"):
            debug.compare("stage", "a", b, a)
