"""Pruning: the smallest weights go, what is left computes the same as with zeros."""

from __future__ import annotations

from typing import Any

import networkx as nx
import numpy as np
import pytest

import nncompiler as nnc
from tests.nncompiler.dags import ends, random_dag
from tests.nncompiler.test_dag_lifting import mlp

OPTIONS = nnc.Options(threads=1, cache=False)


def zeroed(g: Any, pruned: Any) -> Any:
    """The model of g, with zeros for the edges that pruning removed."""
    model = nnc.compile(g, dtype="float64", options=OPTIONS)
    for u, v in g.edges:
        if not pruned.has_edge(u, v) and f"{u}->{v}" in model.parameters:
            model.parameters[f"{u}->{v}"] = 0.0
    return model


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
@pytest.mark.parametrize(
    "build", [lambda: random_dag(3, 40, density=0.2), lambda: mlp(6, 20, 16, 3)]
)
def test_a_pruned_network_computes_what_zeros_would(build: Any, share: float) -> None:
    model = nnc.compile(build(), dtype="float64", options=OPTIONS)
    g = model.to_networkx()
    pruned = nnc.prune(model, share)
    assert pruned.number_of_edges() <= round((1 - share) * g.number_of_edges()) + 1
    small = nnc.compile(pruned, dtype="float64", options=OPTIONS)
    x = np.random.default_rng(0).normal(size=(7, len(ends(g)[0])))
    np.testing.assert_allclose(small(x), zeroed(g, pruned)(x), rtol=1e-10, atol=1e-12)


def test_the_smallest_weights_go() -> None:
    model = nnc.compile(mlp(6, 20, 16, 3), options=OPTIONS)
    limit = 0.2
    pruned = nnc.prune(model, threshold=limit)
    assert all(abs(data["weight"]) >= limit for _, _, data in pruned.edges(data=True))
    left = {(u, v) for u, v, d in model.to_networkx().edges(data=True) if abs(d["weight"]) >= limit}
    assert set(pruned.edges) == {(u, v) for u, v in left if u in pruned and v in pruned}


def test_a_pruned_network_keeps_its_form_in_training() -> None:
    model = nnc.compile(mlp(6, 20, 16, 3), options=OPTIONS)
    pruned = nnc.prune(model, 0.8)
    small = nnc.compile(pruned, loss="mse", optimizer=nnc.Adam(0.01), options=OPTIONS)
    rng = np.random.default_rng(0)
    small.fit(rng.normal(size=(32, 6)), rng.normal(size=(32, 3)), epochs=3, verbose=0)
    assert set(small.to_networkx().edges) == set(pruned.edges)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.75])
def test_whole_neurons_go_and_layers_stay_dense(share: float) -> None:
    sizes = (6, 20, 16, 3)
    model = nnc.compile(mlp(*sizes), dtype="float64", options=OPTIONS)
    g = model.to_networkx()
    pruned = nnc.prune(model, share, neurons=True)
    gone = {n for n in g if n not in pruned}
    assert len(gone) == round(share * 36)
    score = {
        n: np.linalg.norm([d["weight"] for *_, d in g.in_edges(n, data=True)])
        * np.linalg.norm([d["weight"] for *_, d in g.out_edges(n, data=True)])
        for n in g
        if g.in_degree(n) and g.out_degree(n)
    }
    for layer in ("l1", "l2"):  # relative to those beside it
        mean = np.mean([value for n, value in score.items() if n.startswith(layer)])
        score |= {n: value / mean for n, value in score.items() if n.startswith(layer)}
    left = score.keys() - gone
    assert not gone or max(score[n] for n in gone) <= min(score[n] for n in left)
    small = nnc.compile(pruned, dtype="float64", options=OPTIONS)
    assert all(layer.op == "neurons" for layer in small.blueprint.objective.inference.layers)
    x = np.random.default_rng(0).normal(size=(7, 6))
    np.testing.assert_allclose(small(x), zeroed(g, pruned)(x), rtol=1e-10, atol=1e-12)


def test_neurons_below_a_threshold_go() -> None:
    g: Any = nx.DiGraph()
    g.add_weighted_edges_from([("x", "a", 1.0), ("x", "b", 3.0), ("a", "y", 0.5), ("b", "y", 4.0)])
    pruned = nnc.prune(nnc.compile(g, options=OPTIONS), threshold=0.1, neurons=True)
    assert list(pruned.nodes) == ["x", "b", "y"]


def test_neurons_that_nothing_needs_are_removed() -> None:
    g: Any = nx.DiGraph()
    g.add_edge("x", "a", weight=1.0)
    g.add_edge("x", "b", weight=1.0)
    g.add_edge("a", "y", weight=1.0)
    g.add_edge("b", "y", weight=0.01)
    pruned = nnc.prune(nnc.compile(g, options=OPTIONS), threshold=0.1)
    assert list(pruned.nodes) == ["x", "a", "y"]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "either"),
        ({"share": 0.5, "threshold": 1.0}, "either"),
        ({"share": 1.5}, r"share has to be in \[0, 1\]"),
        ({"share": "half"}, r"share has to be in \[0, 1\], not 'half'"),
        ({"share": True}, r"share has to be in \[0, 1\], not True"),
        ({"threshold": "small"}, "threshold has to be a number, not 'small'"),
    ],
)
def test_wrong_arguments_are_told(options: Any, text: str) -> None:
    model = nnc.compile(mlp(2, 3, 1), options=OPTIONS)
    with pytest.raises(ValueError, match=text):
        nnc.prune(model, **options)
