"""Multi-head attention: heads, causal and given masks, other keys and values, derivatives."""

from __future__ import annotations

from typing import Any

import networkx as nx
import numpy as np
import pytest

import nncompiler as nnc
from tests.layer_laws import Case, check_layer, check_model

RNG = np.random.default_rng(13)
QUERIES, KEYS, WIDTH = 5, 4, 6

CASES = [
    Case("attention", (5, 6), {"heads": 2}),
    Case("attention", (5, 6), {"heads": 3, "causal": True}),
    Case("attention", (1, 3), {"heads": 1}),
    Case("attention", (1, 1), {"heads": 1}),
    Case("attention", (4, 4), {"heads": 1, "use_bias": False, "activation": "tanh"}),
]


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_compiled_is_the_reference_and_derivatives_are_differences(case: Case, dtype: str) -> None:
    check_layer(case, dtype)


def softmax(x: Any) -> Any:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def expected(p: Any, q: Any, k: Any, v: Any, heads: int, allowed: Any = True) -> Any:
    """One head after another, as the formula says."""
    q, k, v = (
        x @ p[f"n.{name}.weight"] + p[f"n.{name}.bias"]
        for x, name in ((q, "query"), (k, "key"), (v, "value"))
    )
    width = q.shape[-1] // heads
    parts = []
    for h in range(heads):
        own = slice(h * width, (h + 1) * width)
        scores = q[..., own] @ np.swapaxes(k[..., own], 1, 2) / np.sqrt(width)
        parts.append(softmax(np.where(allowed, scores, -1e30)) @ v[..., own])
    return np.concatenate(parts, -1) @ p["n.output.weight"] + p["n.output.bias"]


def two_sided(mask: tuple[Any, ...] | None = None, **attributes: Any) -> Any:
    """Queries from one input, keys and values from another, and a mask's own input."""
    g: Any = nx.MultiDiGraph()
    g.add_node("q", op="input", shape=("batch", QUERIES, WIDTH))
    g.add_node("m", op="input", shape=("batch", KEYS, 3))
    g.add_node("n", op="attention", heads=2, **attributes)
    g.add_edge("q", "n", slot="query")
    g.add_edge("m", "n", slot="key")
    g.add_edge("m", "n", slot="value")
    if mask is not None:
        g.add_node("mask", op="input", shape=mask, dtype="bool")
        g.add_edge("mask", "n", slot="mask")
    return g


def drawn(model: nnc.Model) -> Any:
    for array in model.parameters.values():
        array[...] = RNG.normal(size=array.shape)
    return model.parameters


def test_keys_and_values_from_elsewhere() -> None:
    model = nnc.compile(two_sided(), dtype="float64")
    p = drawn(model)
    assert p["n.query.weight"].shape == (WIDTH, WIDTH)
    assert p["n.key.weight"].shape == (3, WIDTH)
    assert list(p) == [
        f"n.{part}.{kind}"
        for part in ("query", "key", "value", "output")
        for kind in ("weight", "bias")
    ]
    q, m = RNG.normal(size=(3, QUERIES, WIDTH)), RNG.normal(size=(3, KEYS, 3))
    np.testing.assert_allclose(model.forward({"q": q, "m": m}), expected(p, q, m, m, 2))


@pytest.mark.parametrize(
    "shape",
    [
        ("batch", KEYS),
        (QUERIES, KEYS),
        ("batch", QUERIES, KEYS),
        ("batch", 1, QUERIES, KEYS),
        ("batch", 2, QUERIES, KEYS),
    ],
)
def test_masks(shape: tuple[Any, ...]) -> None:
    model = nnc.compile(two_sided(shape), dtype="float64")
    p = drawn(model)
    q, m = RNG.normal(size=(3, QUERIES, WIDTH)), RNG.normal(size=(3, KEYS, 3))
    mask = RNG.random([3 if d == "batch" else d for d in shape]) < 0.6
    mask[..., 0] = True
    found = model.forward({"q": q, "m": m, "mask": mask})
    if len(shape) == 4 and shape[1] == 2:
        halves = [expected(p, q, m, m, 2, mask[:, h]) - p["n.output.bias"] for h in (0, 1)]
        kept = [p["n.output.weight"][:3], p["n.output.weight"][3:]]
        inner = [np.linalg.lstsq(p["n.output.weight"].T, h.reshape(-1, WIDTH).T)[0] for h in halves]
        total = inner[0][:3].T @ kept[0] + inner[1][3:].T @ kept[1] + p["n.output.bias"]
        np.testing.assert_allclose(found, total.reshape(found.shape), rtol=1e-9)
        return
    if shape == ("batch", KEYS):
        mask = mask[:, None, :]
    if len(shape) == 4:
        mask = mask[:, 0]
    np.testing.assert_allclose(found, expected(p, q, m, m, 2, mask), rtol=1e-12)


def test_masked_attention_is_trained_as_the_reference() -> None:
    for dtype in ("float32", "float64"):
        model = nnc.compile(
            two_sided(("batch", KEYS), causal=True),
            loss="mse",
            optimizer=nnc.SGD(0.1, momentum=0.9),
            dtype=dtype,
        )
        check_model(
            model,
            lambda rows: {
                "q": RNG.normal(size=(rows, QUERIES, WIDTH)),
                "m": RNG.normal(size=(rows, KEYS, 3)),
                "mask": RNG.random((rows, KEYS)) < 0.7,
            },
        )


def test_causal_attention_does_not_see_the_future() -> None:
    g: Any = nx.DiGraph()
    g.add_node("x", op="input", shape=("batch", 7, 4))
    g.add_node("n", op="attention", heads=2, causal=True)
    g.add_edge("x", "n")
    model = nnc.compile(g, dtype="float64")
    x = RNG.normal(size=(2, 7, 4))
    y = model.forward(x)
    changed = x.copy()
    changed[:, 4:] = RNG.normal(size=(2, 3, 4))
    np.testing.assert_array_equal(model.forward(changed)[:, :4], y[:, :4])
    assert (model.forward(changed)[:, 4:] != y[:, 4:]).any()
    lower = np.tril(np.ones((7, 7), bool))
    np.testing.assert_allclose(y, expected(model.parameters, x, x, x, 2, lower))


def test_a_query_that_may_attend_to_nothing_gets_zero() -> None:
    model = nnc.compile(two_sided(("batch", KEYS)), loss="mse", dtype="float64")
    q, m = RNG.normal(size=(2, QUERIES, WIDTH)), RNG.normal(size=(2, KEYS, 3))
    data = {"q": q, "m": m, "mask": np.zeros((2, KEYS), bool)}
    y = model.forward(data)
    np.testing.assert_array_equal(y, np.broadcast_to(model.parameters["n.output.bias"], y.shape))
    loss, gradients = model.backward(data, np.ones_like(y))
    assert np.isfinite(loss)
    assert all(np.isfinite(g).all() for g in gradients.values())


def test_a_transformer_block_is_trained() -> None:
    g: Any = nx.DiGraph()
    g.add_node("x", op="input", shape=("batch", 5), dtype="int32")
    g.add_node("words", op="embedding", num_embeddings=9, embedding_dim=8)
    g.add_node("placed", op="positional_encoding")
    g.add_node("norm1", op="layer_norm")
    g.add_node("attend", op="attention", heads=2, causal=True)
    g.add_node("sum1", op="add")
    g.add_node("norm2", op="layer_norm")
    g.add_node("wide", op="dense", units=16, activation="gelu")
    g.add_node("narrow", op="dense", units=8)
    g.add_node("sum2", op="add")
    nx.add_path(g, ["x", "words", "placed", "norm1", "attend", "sum1"])
    nx.add_path(g, ["sum1", "norm2", "wide", "narrow", "sum2"])
    g.add_edges_from([("placed", "sum1"), ("sum1", "sum2")])
    for dtype in ("float32", "float64"):
        optimizer = nnc.SGD(0.05, momentum=0.9)
        model = nnc.compile(g, loss="mse", optimizer=optimizer, dtype=dtype)
        check_model(model, lambda rows: RNG.integers(0, 9, (rows, 5)))


@pytest.mark.parametrize(
    ("shape", "attributes", "message"),
    [
        ((5, 6), {"heads": 4}, "6 features cannot be split into 4"),
        ((5,), {"heads": 1}, "time, features"),
        ((5, 6), {}, "needs the attribute 'heads'"),
    ],
)
def test_mistakes_name_the_layer(shape: Any, attributes: Any, message: str) -> None:
    g: Any = nx.DiGraph()
    g.add_node("x", op="input", shape=("batch", *shape))
    g.add_node("n", op="attention", **attributes)
    g.add_edge("x", "n")
    with pytest.raises(nnc.CompileError, match=message) as caught:
        nnc.compile(g)
    assert caught.value.node == "n"


def test_mistakes_of_slots() -> None:
    g = two_sided((3, 3))
    with pytest.raises(nnc.CompileError, match="the mask has shape"):
        nnc.compile(g)
    g = two_sided()
    g.remove_node("q")
    with pytest.raises(nnc.CompileError, match="nothing feeds its slot 'query'"):
        nnc.compile(g)
    g.add_edge("m", "n", slot="mist")
    with pytest.raises(nnc.CompileError, match="no slot 'mist'"):
        nnc.compile(g)
