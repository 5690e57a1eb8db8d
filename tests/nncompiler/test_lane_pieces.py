"""What lies side by side along the lanes is written piece by piece, without guards."""

from __future__ import annotations

import numpy as np
import pytest

from ir import ops
from ir.graph import Graph, Node
from ir.interpret import run_graph
from ir.interpret_loops import run_function
from ir.loops import For, Store, statements
from ir.scalar import walk
from ir.verify_loops import verify_function
from nncompiler.codegen.llvm import assemble, host
from nncompiler.pipeline import lower_graph
from runtime.artifact import Artifact
from runtime.session import Session

WIDTH = 4 * host().lanes(ops.input("x", "f32", ()).dtype)


def side_by_side(x: Node, y: Node) -> Node:
    return ops.concatenate([x, ops.tanh(y), x * y], 1)


def sum_of_padded(x: Node, y: Node) -> Node:
    """The cotangent of columns that were cut apart."""
    right = ops.pad(y * 3, (0, WIDTH), (0, 0))
    return ops.pad(x, (0, 0), (0, WIDTH)) + right


def around(x: Node, y: Node) -> Node:
    """Nothing on both sides of a sum."""
    return ops.pad(x + y, (0, WIDTH), (0, 2 * WIDTH), 1.5)


CASES = {"side by side": (side_by_side, 3), "padded": (sum_of_padded, 2), "around": (around, 3)}


@pytest.mark.parametrize("name", CASES)
def test_every_piece_is_a_loop_without_guards(name: str) -> None:
    function, count = CASES[name]
    x, y = ops.input("x", "f32", ("batch", WIDTH)), ops.input("y", "f32", ("batch", WIDTH))
    graph = Graph("pieces", (x, y), {"z": function(x, y)})
    lowered = lower_graph(graph)
    code = lowered.scheduled[-1].function
    verify_function(code)
    loops = [s for s in statements(code.body) if isinstance(s, For) and s.kind == "vector"]
    assert len(loops) == count
    values = walk([s.value for s in statements(code.body) if isinstance(s, Store)])
    assert all(not s.guards and s.name not in ("lt", "le", "where") for s in values)
    random = np.random.default_rng(0)
    feed = {k: random.normal(size=(5, WIDTH)).astype("f4") for k in "xy"}
    expected = run_graph(graph, feed)["z"]
    found = Session(Artifact(lowered.plan, assemble(lowered.module, lowered.target)))(feed)["z"]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_pieces_that_fill_no_vector_stay_together() -> None:
    x = ops.input("x", "f32", ("batch", WIDTH))
    graph = Graph("edge", (x,), {"y": ops.pad(x, (0, 1), (0, 1))})
    (scheduled,) = lower_graph(graph).scheduled
    loops = [s for s in statements(scheduled.function.body) if isinstance(s, For)]
    assert len([s for s in loops if s.kind == "vector"]) == 1
    buffers = {"x": np.arange(2.0 * WIDTH, dtype="f4"), "out y": np.ones(2 * WIDTH + 4, "f4")}
    run_function(scheduled.function, buffers, {"batch": 2})
    padded = np.pad(buffers["x"].reshape(2, WIDTH), ((0, 0), (1, 1)))
    np.testing.assert_array_equal(buffers["out y"].reshape(2, WIDTH + 2), padded)


def test_cheap_parts_are_computed_where_they_stand_side_by_side() -> None:
    """... but not what another reader wants as well, nor what is dear to compute."""
    width = 64
    x, y = (ops.input(n, "f32", ("batch", width)) for n in "xy")
    shared = x + y
    z = ops.concatenate([x * y - y, shared * y, ops.tanh(x)], 1)
    graph = Graph("beside", (x, y), {"z": z, "s": shared * 2 * shared})
    lowered = lower_graph(graph)
    nodes = [n for g in lowered.fusion.groups for n in g.nodes]
    stored = [n.op.name for n in nodes if n.shape[-1] == width]
    assert sorted(stored) == ["add", "mul", "tanh"], stored  # x + y, s
    random = np.random.default_rng(0)
    feed = {k: random.normal(size=(5, width)).astype("f4") for k in "xy"}
    expected = run_graph(graph, feed)
    found = Session(Artifact(lowered.plan, assemble(lowered.module, lowered.target)))(feed)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-6)
