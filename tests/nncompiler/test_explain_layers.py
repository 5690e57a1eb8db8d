"""Explanations of layer graphs: the matrix form of the texts, equal to the compiled gradients."""

from __future__ import annotations

from typing import Any

import networkx as nx
import numpy as np
import pytest

import nncompiler as nnc
from tests.networks import two_inputs

OPTIONS = nnc.Options(threads=1)
RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 2, 3)
IMAGE = {"op": "input", "shape": ("batch", 1, 6, 6)}
ROW = {"op": "input", "shape": ("batch", 4)}
SERIES = {"op": "input", "shape": ("batch", 4, 4)}


def chain(**nodes: Any) -> nx.DiGraph:
    g = nx.DiGraph()
    g.add_nodes_from(nodes.items())
    nx.add_path(g, nodes)
    return g


def compiled(g: Any, **settings: Any) -> Any:
    return nnc.compile(
        g, **{"loss": "cross_entropy", "dtype": "float64", "options": OPTIONS, **settings}
    )


def check(model: Any, x: Any, t: Any, targets: str | None = None) -> None:
    _, gradients = model.backward(x, t)
    assert gradients
    for name, gradient in gradients.items():
        found = model.explain(name, targets=targets)
        value = found.evaluate(x, t)
        assert value.shape == gradient.shape
        scale = 1 + np.abs(gradient).max()
        np.testing.assert_allclose(
            value, gradient, rtol=0, atol=1e-10 * scale, err_msg=f"{name}\n{found}"
        )
        braces = found.latex.replace(r"\{", "").replace(r"\}", "")
        assert braces.count("{") == braces.count("}")


def perceptron(last: str | None = None) -> nx.DiGraph:
    return chain(
        x=ROW,
        hidden={"op": "dense", "units": 3, "activation": "tanh"},
        scores={"op": "dense", "units": 2, "activation": last},
    )


def test_dense_layers_have_the_matrix_form_of_the_texts() -> None:
    model = compiled(perceptron(), loss="sse")
    found = model.explain("hidden.weight").formulas
    assert found["dL/dW_hidden"] == "1/N sum_n z_x delta_hidden^T"
    assert found["delta_hidden"] == "(W_scores delta_scores) * (1 - z_hidden^2)"
    assert found["delta_scores"] == "z_scores - t"
    assert found["a_hidden"] == "W_hidden^T z_x + b_hidden"
    assert found["z_hidden"] == "tanh(a_hidden)"
    assert model.explain("hidden.bias").formulas["dL/db_hidden"] == "1/N sum_n delta_hidden"
    assert model.explain("x").formulas["dL_n/dz_x"] == "W_hidden delta_hidden"
    rows = model.explain("hidden").latex
    assert r"\left(W_{\mathrm{scores}}\,\delta_{\mathrm{scores}}\right) \odot \left(1" in rows
    assert r"W_{\mathrm{hidden}}^{\mathsf{T}}\,z_{x}" in model.explain("W_hidden").latex
    check(model, RNG.normal(size=(3, 4)), RNG.normal(size=(3, 2)))


@pytest.mark.parametrize("last", [None, "softmax"])
def test_cross_entropy_gives_the_difference_of_the_texts(last: str | None) -> None:
    model = compiled(perceptron(last), regularizer=nnc.L2(0.25))
    found = model.explain("scores.weight").formulas
    p = "z_scores" if last else "softmax(z_scores)"
    assert found["delta_scores"] == f"{p} - e(t)"
    assert found["dL/dW_scores"] == "1/N sum_n z_hidden delta_scores^T + 1/2 W_scores"
    x = RNG.normal(size=(3, 4))
    check(model, x, LABELS)
    check(model, x, RNG.uniform(size=(3, 2)), targets="dense")


def test_values_with_several_successors_sum_what_these_pass_back() -> None:
    g = chain(
        x=ROW, a={"op": "dense", "units": 3, "activation": "gelu"}, b={"op": "dense", "units": 3}
    )
    g.add_node("both", op="add")
    g.add_node("y", op="dense", units=2)
    g.add_edges_from([("a", "both"), ("b", "both"), ("both", "y")])
    model = compiled(g)
    found = model.explain("a").formulas
    assert found["delta_a"].startswith("(W_b delta_b + delta_both) * (")
    assert found["delta_both"] == "W_y delta_y"
    assert found["z_a"] == "gelu(a_a)"
    check(model, RNG.normal(size=(3, 4)), LABELS)


def test_layers_of_shared_weights_sum_over_their_uses() -> None:
    g = chain(
        x=ROW,
        a={"op": "dense", "units": 4, "activation": "tanh", "share": "twice"},
        b={"op": "dense", "units": 4, "share": "twice"},
        y={"op": "dense", "units": 2, "trainable": False},
    )
    model = compiled(g)
    found = model.explain("twice.weight")
    assert found.formulas["dL/dW_twice"] == "1/N (sum_n z_x delta_a^T + sum_n z_a delta_b^T)"
    assert found.formulas["a_a"] == "W_twice^T z_x + b_twice"
    assert "W_y is frozen" in model.explain("y.weight").text
    check(model, RNG.normal(size=(3, 4)), LABELS)


DENSE = {"op": "dense", "units": 2}
FLAT = {"op": "flatten"}
KINDS: dict[str, tuple[Any, Any]] = {
    "conv": (
        chain(
            x=IMAGE,
            conv={"op": "conv", "filters": 2, "kernel_size": 3, "activation": "relu"},
            pool={"op": "max_pool", "pool_size": 2},
            flat=FLAT,
            y=DENSE,
        ),
        (3, 1, 6, 6),
    ),
    "norms": (
        chain(
            x=IMAGE,
            bn={"op": "batch_norm"},
            flat=FLAT,
            ln={"op": "layer_norm"},
            drop={"op": "dropout", "rate": 0.3},
            y=DENSE,
        ),
        (3, 1, 6, 6),
    ),
    "lstm": (chain(x=SERIES, r={"op": "lstm", "units": 3}, y=DENSE), (3, 4, 4)),
    "attention": (
        chain(x=SERIES, at={"op": "attention", "heads": 2}, flat=FLAT, y=DENSE),
        (3, 4, 4),
    ),
    "weight_norm": (chain(x=ROW, w={**DENSE, "weight_norm": True, "activation": "silu"}), (3, 4)),
}


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_formulas_of_other_layers_are_exact(kind: str) -> None:
    graph, shape = KINDS[kind]
    check(compiled(graph), RNG.normal(size=shape), LABELS)


def test_embeddings_are_explained_by_the_rows_they_pick() -> None:
    g = chain(
        i={"op": "input", "shape": ("batch", 4), "dtype": "int64"},
        e={"op": "embedding", "num_embeddings": 5, "embedding_dim": 3},
        flat=FLAT,
        y=DENSE,
    )
    check(compiled(g), RNG.integers(0, 5, (3, 4)), LABELS)


def test_several_outputs_and_losses_add_up() -> None:
    losses = {"y": "mse", "z": "binary_cross_entropy"}
    x = (RNG.normal(size=(3, 2)), RNG.normal(size=(3, 3)))
    t = (RNG.normal(size=(3, 1)), RNG.uniform(size=(3, 2)))
    model = compiled(two_inputs(), loss=losses, loss_weights={"y": 0.25}, regularizer="l1")
    found = model.explain("both")
    assert found.formulas["delta_both"] == "W_y delta_y + W_z delta_z"
    assert found.formulas["delta_y"] == "1/2 (z_y - t_y)"
    assert found.formulas["delta_z"] == "1/2 (z_z - t_z)"
    assert "L = 1/N sum_n (L_n_y + L_n_z)" in found.text
    check(model, x, t)
    whole = {"y": lambda y, t: nnc.mean((y - t) ** 4), "z": "binary_cross_entropy"}
    check(compiled(two_inputs(), loss=whole), x, t)


def test_what_is_not_there_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="did you mean 'hidden"):
        compiled(perceptron()).explain("hiden")
