"""Laws of the graph text: parse undoes print, down to the identity of nodes; errors name lines."""

from __future__ import annotations

import numpy as np
import pytest

from ir import ops
from ir.graph import Graph, Node
from ir.text import parse_graph, print_graph
from ir.types import Extent, f32, f64, i32
from nncompiler.autodiff import differentiate

X = ops.input("x", f32, ("batch", 4))
W = ops.input("layer.weight", f32, (4, 3))


def round_trip(graph: Graph) -> str:
    text = print_graph(graph)
    again = parse_graph(text)
    assert again.name == graph.name
    assert again.inputs == graph.inputs
    assert list(again.outputs) == list(graph.outputs)
    assert all(again.outputs[k] is n for k, n in graph.outputs.items())
    assert again.names == {n: v for n, v in graph.names.items() if n in graph.nodes}
    assert print_graph(again) == text
    return text


def test_a_gradient_reads_with_the_users_names() -> None:
    hidden = ops.tanh(X @ W)
    loss = ops.mean(hidden * hidden)
    names: dict[Node, str] = {hidden: "hidden", W: "layer.weight", loss: "loss", X: "x"}
    (gradient,) = differentiate(loss, [W], names=names)
    text = round_trip(Graph("net", (X, W), {"loss": loss, "grad:w": gradient}, names))
    assert "%hidden = tanh(" in text
    assert '%d_layer.weight = contract(%x, %8, spec="ab,ac->bc") : f32[4,3]' in text


@pytest.mark.parametrize(
    "name",
    [
        "a",
        "grad:w",
        "u->v",
        "1",
        "two words",
        'quo"te',
        "back\\slash",
        "é",
        "a#2",
        "%",
        "t:",
        "",
    ],
)
def test_any_name_survives(name: str) -> None:
    y = X + 1
    round_trip(Graph(name, (X,), {name: y}, {y: name, X: "x"}))


def test_values_of_the_same_name_are_told_apart() -> None:
    a, b, c = X + 1, X + 2, X + 3
    y = a * b * c
    text = round_trip(Graph("g", (X,), {"y": y}, {a: "v", b: "v", c: "v"}))
    assert "%v#2" in text
    assert "%v#3" in text


@pytest.mark.parametrize("symbol", ["batch", "f32", "two words", "nan", "dense", "x"])
def test_any_symbol_survives(symbol: str) -> None:
    x = ops.input("x", f32, (Extent(4, symbol), 3))
    round_trip(Graph("g", (x,), {"y": ops.sum(x.reshape(-1)) + ops.extent(Extent(2, symbol))}))


@pytest.mark.parametrize(
    "value",
    [0.0, -0.0, 0.1, 1e-45, 3.4e38, np.inf, -np.inf, np.nan, 1e22, -5e-324],
)
def test_numbers_survive_with_all_bits(value: float) -> None:
    for dtype in (f32, f64):
        with np.errstate(all="ignore"):
            graph = Graph("g", (), {"y": ops.full((2, 3), value, dtype)})
        round_trip(graph)
    x = ops.input("x", f64, (2,))
    round_trip(Graph("g", (x,), {"y": ops.pad(x, (1,), (0,), value)}))


def test_the_bits_of_a_nan_survive() -> None:
    strange = np.frombuffer(np.asarray([0x7FF8DEADBEEF0001], np.uint64).tobytes(), np.float64)
    round_trip(Graph("g", (), {"y": ops.constant(strange), "z": ops.constant(strange[0])}))


@pytest.mark.parametrize(
    "array",
    [
        np.arange(3),
        np.arange(1000.0),
        np.zeros((0, 3)),
        np.asarray([[True, False]]),
        np.asarray(2**64 - 1, np.uint64),
        np.asarray([-(2**63)], np.int64),
    ],
)
def test_constants_survive(array: np.ndarray) -> None:
    round_trip(Graph("g", (), {"y": ops.constant(array)}))


def test_the_same_number_is_written_where_it_is_used() -> None:
    text = round_trip(Graph("g", (X,), {"y": X * 0.5}, {X: "x"}))
    assert "mul(%x, 0.5:f32[batch,4])" in text


def test_a_named_constant_keeps_its_line() -> None:
    half = ops.constant(0.5)
    text = round_trip(Graph("g", (X,), {"y": X * half}, {half: "half"}))
    assert "%half = constant(value=dense(f32[], 0.5)) : f32[]" in text


def test_text_without_names_depends_on_the_computation_alone() -> None:
    graphs = [Graph("g", (X,), {"y": X + 1}, names) for names in ({}, {X: "x"}, {X + 1: "sum"})]
    assert len({print_graph(g, names=False) for g in graphs}) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: expected 'graph'"),
        ('graph "g"() {\n  %a = nothing() : f32[]\n', "line 2: unknown op 'nothing'"),
        ('graph "g"() {\n  return "y"=%a\n}', "line 2: %a is not defined"),
        ('graph "g"() {\n  %a = exp(1.0:f32[2]) : f32[3]\n', "line 2: %a is f32"),
        ('graph "g"() {\n  %a = exp(1:i32[2]) : i32[2]\n', "exp does not take i32"),
        ('graph "g"() {\n  %a = exp(1.0:f32[2], 2.0:f32[2]) : f32[2]\n', "takes 1 operand"),
        ('graph "g"() {\n  ?', "line 2: unexpected"),
        ('graph "g"() {\n  return\n} more', "line 3: 'more' after the end"),
    ],
)
def test_malformed_text_names_the_line(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("[", r"\[")):
        parse_graph(text)


def test_integers_and_bools_are_told_apart() -> None:
    n = ops.input("n", i32, (3,))
    text = round_trip(
        Graph("g", (n,), {"y": ops.where(ops.lt(n, 2), n, -1), "z": ops.full((), True)})
    )
    assert "-1:i32[3]" in text
    assert "true:bool[]" in text
