"""Explanations: the formulas of the texts, in the user's names, equal to the compiled gradients."""

from __future__ import annotations

import itertools
from typing import Any

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nncompiler as nnc
from nncompiler.frontend.activations import ACTIVATIONS, ROW_WISE
from nncompiler.frontend.losses import LOSSES
from tests.formula_reader import compute
from tests.nncompiler.dags import ends, random_dag

OPTIONS = nnc.Options(threads=1)
ALL = ("sum", "product", "min", "max", "mean", "median", "maxabs")


def laboratory(activation: str = "sigmoid", **settings: Any) -> Any:
    """The graph of sources E: inputs 1, 2, hidden 3, 4, 5, output 6; 1/2 (y - z)^2."""
    g = nx.DiGraph()
    g.add_nodes_from([1, 2])
    g.add_nodes_from([3, 4, 5, 6], activation=activation)
    g.add_edges_from((i, j) for j in (3, 4, 5) for i in (1, 2))
    g.add_edges_from((j, 6) for j in (3, 4, 5))
    rng = np.random.default_rng(0)
    for _, _, data in g.edges(data=True):
        data["weight"] = rng.normal()
    for j in (3, 4, 5, 6):
        g.nodes[j]["bias"] = rng.normal()
    settings = {"loss": "sse", "dtype": "float64", "options": OPTIONS, **settings}
    return nnc.compile(g, **settings)


def data(rows: int = 5, outputs: int = 1, inputs: int = 2) -> tuple[Any, Any]:
    rng = np.random.default_rng(1)
    return rng.normal(size=(rows, inputs)), rng.uniform(size=(rows, outputs))


def check(
    model: Any, x: Any, t: Any, targets: str | None = None, text: bool = True, most: int = 20
) -> None:
    """The formulas, and their text read again, give what backward gives."""
    _, gradients = model.backward(x, t)
    assert gradients
    for name, gradient in itertools.islice(gradients.items(), most):
        found = model.explain(name, targets=targets)
        scale = 1 + np.abs(gradient).max()
        assert found.evaluate(x, t).shape == gradient.shape
        np.testing.assert_allclose(
            found.evaluate(x, t), gradient, rtol=0, atol=1e-10 * scale, err_msg=f"{name}\n{found}"
        )
        if text:
            read = compute(found, x, t)
            np.testing.assert_allclose(
                read, gradient, rtol=0, atol=1e-10 * scale, err_msg=f"{name}\n{found}"
            )


# --------------------------------------------------------------------------- sources E


def test_the_formulas_of_the_text_are_printed() -> None:
    model = laboratory()
    out = model.explain("w36").formulas
    assert out["dL/dw36"] == "1/N sum_n z_3 delta_6"
    assert out["delta_6"] == "(z_6 - t_6) z_6 (1 - z_6)"
    assert out["L_n"] == "1/2 (z_6 - t_6)^2"
    assert out["z_6"] == "sigmoid(a_6)"
    assert out["a_6"] == "b_6 + w36 z_3 + w46 z_4 + w56 z_5"
    for i in (1, 2):
        for j in (3, 4, 5):
            hidden = model.explain(f"w{i}{j}").formulas
            assert hidden[f"dL/dw{i}{j}"] == f"1/N sum_n z_{i} delta_{j}"
            assert hidden[f"delta_{j}"] == f"w{j}6 delta_6 z_{j} (1 - z_{j})"
            assert hidden["delta_6"] == out["delta_6"]
    assert model.explain("4.bias").formulas["dL/db_4"] == "1/N sum_n delta_4"


def test_the_formulas_of_the_text_are_equal() -> None:
    """Every derivative written out by the chain rule, as the text has it, for one example."""
    model = laboratory()
    x, y = data(1)
    w = {name: float(value) for name, value in model.parameters.items()}

    def sigmoid(a: Any) -> Any:
        return 1 / (1 + np.exp(-a))

    z = {1: x[0, 0], 2: x[0, 1]}
    for j in (3, 4, 5):
        z[j] = sigmoid(w[f"{j}.bias"] + w[f"1->{j}"] * z[1] + w[f"2->{j}"] * z[2])
    z[6] = sigmoid(w["6.bias"] + sum(w[f"{j}->6"] * z[j] for j in (3, 4, 5)))
    error = -(y[0, 0] - z[6]) * z[6] * (1 - z[6])
    expected = {"6.bias": error} | {f"{j}->6": error * z[j] for j in (3, 4, 5)}
    for j in (3, 4, 5):
        inner = error * w[f"{j}->6"] * z[j] * (1 - z[j])
        expected |= {f"{j}.bias": inner, f"1->{j}": inner * z[1], f"2->{j}": inner * z[2]}
    assert len(expected) == 13
    for name, value in expected.items():
        assert model.explain(name).evaluate(x, y) == pytest.approx(value, rel=1e-12)
    np.testing.assert_allclose(model.explain(6).evaluate(x, y), [error], rtol=1e-12)
    check(model, *data())


def test_latex_is_that_of_the_texts() -> None:
    found = laboratory().explain("w13")
    rows = found.latex.splitlines()
    assert rows[1] == (
        r"\frac{\partial L}{\partial w_{13}} &= \frac{1}{N} \sum_{n} z_{1}\,\delta_{3} \\"
    )
    assert rows[2] == (
        r"\delta_{3} &= \frac{\partial L_n}{\partial a_{3}} = "
        r"w_{36}\,\delta_{6}\,z_{3}\,\left(1 - z_{3}\right) \\"
    )
    assert found._repr_latex_().startswith("$$\n\\begin{aligned}")
    assert str(found) == found.text == repr(found)


# --------------------------------------------------------------------------- activations, losses


@pytest.mark.parametrize(
    ("activation", "slope"),
    [
        ("linear", ""),
        ("sigmoid", " z_3 (1 - z_3)"),
        ("tanh", " (1 - z_3^2)"),
        ("relu", " [a_3 > 0]"),
        ("leaky_relu", " (1 if a_3 > 0 else 0.01)"),
        ("elu", " (1 if a_3 > 0 else exp(a_3))"),
        ("softplus", " sigmoid(a_3)"),
        ("sin", " cos(a_3)"),
        ("exp", " z_3"),
        ("abs", " sign(a_3)"),
        ("gelu", " (1/sqrt(2 pi) a_3 exp(-1/2 a_3^2) + 1/2 (erf(sqrt(1/2) a_3) + 1))"),
    ],
)
def test_the_slope_of_an_activation_has_its_own_form(activation: str, slope: str) -> None:
    found = laboratory(activation).explain(3).formulas
    assert found["delta_3"] == f"w36 delta_6{slope}"


@pytest.mark.parametrize("activation", sorted(set(ACTIVATIONS) - ROW_WISE))
def test_formulas_of_every_activation_are_exact(activation: str) -> None:
    model = laboratory(activation)
    x, t = data()
    if activation in ("log", "log1p", "sqrt", "rsqrt"):
        for name in model.parameters:
            model.parameters[name][...] = 0.5 + abs(model.parameters[name])
        x = abs(x)
    check(model, x, t, text=False)


@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "relu", "softplus", "sin", "erf", "abs"])
def test_the_text_alone_gives_the_gradient(activation: str) -> None:
    check(laboratory(activation, loss="huber", regularizer=nnc.L2(0.01)), *data())


def test_an_activation_of_the_user_is_written_out() -> None:
    model = laboratory("tanh")
    g = model.source
    g.nodes[3]["activation"] = lambda x: x / (1 + abs(x))
    g.nodes[4]["activation"] = ("leaky_relu", {"slope": 0.25})
    model = nnc.compile(g, loss="sse", dtype="float64", options=OPTIONS)
    assert model.explain(3).formulas["z_3"] == "a_3 / (1 + |a_3|)"
    found = model.explain(4).formulas
    assert found["z_4"] == "leaky_relu(a_4, slope=0.25)"
    assert found["delta_4"] == "w46 delta_6 (1 if a_4 > 0 else 1/4)"
    check(model, *data(), text=False)


def two_outputs(last: str = "linear") -> Any:
    g = nx.DiGraph()
    g.add_nodes_from([1, 2])
    g.add_nodes_from([3, 4], activation="tanh")
    g.add_nodes_from([5, 6], activation=last)
    g.add_edges_from([(1, 3), (2, 3), (1, 4), (2, 4), (3, 5), (4, 5), (3, 6), (4, 6), (1, 6)])
    return g


@pytest.mark.parametrize("loss", sorted(LOSSES))
@pytest.mark.parametrize("kind", ["dense", "labels"])
def test_formulas_of_every_loss_are_exact(loss: str, kind: str) -> None:
    if kind == "labels" and not LOSSES[loss].takes_labels:
        return
    last = "sigmoid" if loss == "binary_cross_entropy" else "linear"
    model = nnc.compile(two_outputs(last), loss=loss, dtype="float64", options=OPTIONS)
    x, t = data(outputs=2)
    labels = np.random.default_rng(0).integers(0, 2, len(x))
    check(model, x, labels if kind == "labels" else t, targets=kind)


def test_the_loss_and_the_last_activation_meet_in_a_difference() -> None:
    model = nnc.compile(two_outputs(), loss="cross_entropy", options=OPTIONS)
    assert model.explain(5).formulas["delta_5"] == "p_5 - [t = 0]"
    assert model.explain(5).formulas["p_5"] == "exp(z_5) / S"
    model = laboratory("sigmoid", loss="binary_cross_entropy")
    assert model.explain(6).formulas["delta_6"] == "z_6 - t_6"


def test_targets_of_another_kind_are_refused() -> None:
    model = nnc.compile(two_outputs(), loss="cross_entropy", dtype="float64", options=OPTIONS)
    x, t = data(outputs=2)
    with pytest.raises(ValueError, match="targets='dense'"):
        model.explain(5).evaluate(x, t)


def test_a_loss_of_the_whole_batch_is_summed_not_averaged() -> None:
    model = laboratory(loss=lambda y, t: nnc.sqrt(nnc.mean((y - t) ** 2)))
    found = model.explain("w36")
    assert found.formulas["dL/dw36"] == "sum_n z_3 delta_6"
    check(model, *data(), text=False)


# --------------------------------------------------------------------------- what edges can have


def test_the_regularizer_is_a_term_of_its_own() -> None:
    model = laboratory(regularizer=nnc.L2(0.01))
    assert model.explain("w36").formulas["dL/dw36"] == "1/N sum_n z_3 delta_6 + 0.02 w36"
    model = laboratory(regularizer=nnc.L1(0.5))
    assert model.explain("w36").formulas["dL/dw36"] == "1/N sum_n z_3 delta_6 + 1/2 sign(w36)"
    assert model.explain("6.bias").formulas["dL/db_6"] == "1/N sum_n delta_6"
    check(model, *data())
    check(laboratory(regularizer=lambda w: nnc.sqrt(nnc.sum(w * w))), *data(), text=False)


def test_a_shared_weight_sums_over_its_edges() -> None:
    g = two_outputs()
    for edge in [(1, 3), (2, 4), (3, 6)]:
        g.edges[edge]["weight_name"] = "shared"
    g.edges[1, 4].update(trainable=False, weight=0.5)
    g.edges[2, 3]["regularizer"] = "l2"
    model = nnc.compile(g, loss="mse", dtype="float64", options=OPTIONS)
    found = model.explain("shared")
    sum_of_three = "1/N sum_n (z_1 delta_3 + z_2 delta_4 + z_3 delta_6)"
    assert found.formulas["dL/dshared"] == sum_of_three
    assert "the weight of 3 edges: 1->3, 2->4, 3->6" in found.text
    assert model.explain((1, 3)).text == found.text
    frozen = model.explain((1, 4))
    assert "w14 is frozen" in frozen.text
    check(model, *data(outputs=2))
    # the derivative by a frozen weight is there all the same
    x, t = data(outputs=2)
    step = 1e-6
    losses = []
    for sign in (1, -1):
        g.edges[1, 4]["weight"] = 0.5 + sign * step
        other = nnc.compile(g, loss="mse", dtype="float64", options=OPTIONS)
        for name in model.parameters:
            if name != "1->4":
                other.parameters[name][...] = model.parameters[name]
        losses.append(other.evaluate(x, t)["loss"])
    by_difference = (losses[0] - losses[1]) / (2 * step)
    assert frozen.evaluate(x, t) == pytest.approx(by_difference, rel=1e-6)


@pytest.mark.parametrize("aggregation", ALL)
@pytest.mark.parametrize("fan", [1, 2, 3, 5])
def test_formulas_of_every_aggregation_are_exact(aggregation: str, fan: int) -> None:
    """Rows with equal terms among them: ties are shared as the network shares them."""
    g = nx.DiGraph()
    sources = [f"x{i}" for i in range(fan)]
    g.add_nodes_from(sources)
    g.add_node("h", activation="tanh", aggregation=aggregation, bias=0.25)
    g.add_node("y", activation="linear")
    g.add_weighted_edges_from((s, "h", 1.0) for s in sources)
    g.add_edge("h", "y", weight=0.75)
    model = nnc.compile(g, loss="sse", dtype="float64", options=OPTIONS)
    rng = np.random.default_rng(0)
    x = rng.integers(-1, 2, (12, fan)).astype(float)
    check(model, x, rng.normal(size=(12, 1)))


def test_an_aggregation_names_what_it_gives() -> None:
    g = two_outputs()
    g.nodes[3]["aggregation"] = "max"
    g.nodes[4]["aggregation"] = "product"
    found = nnc.compile(g, loss="sse", options=OPTIONS).explain("w13").formulas
    assert found["m_3"] == "max(w13 z_1, w23 z_2)"
    assert found["a_3"] == "b_3 + m_3"
    assert found["dL/dw13"].startswith("1/N sum_n delta_3 [w13 z_1 = m_3] z_1 / (")
    assert found["m_4"] == "w14 z_1 w24 z_2"


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 10**6), neurons=st.integers(2, 14), batch=st.sampled_from([1, 4]))
def test_formulas_of_random_graphs_are_exact(seed: int, neurons: int, batch: int) -> None:
    g = random_dag(
        seed, neurons, aggregations=ALL, activations=("tanh", "sigmoid", "linear", "sin")
    )
    inputs, outputs = ends(g)
    model = nnc.compile(g, loss="sse", dtype="float64", options=OPTIONS)
    x, t = data(batch, len(outputs), len(inputs))
    check(model, x, t)


def test_a_neuron_without_predecessors_and_an_input() -> None:
    g = nx.DiGraph()
    g.add_node("one", bias=0.5, activation="tanh")
    g.add_edges_from([("x", "y", {"weight": 3.0}), ("one", "y", {"weight": 1.5})])
    g.graph["inputs"] = ["x"]
    model = nnc.compile(g, loss="sse", dtype="float64", options=OPTIONS)
    x, t = data(4, 1, 1)
    check(model, x, t)
    found = model.explain("x")
    assert found.formulas["dL_n/dz_x"] == "w_x_y delta_y"
    y = model(x)
    np.testing.assert_allclose(found.evaluate(x, t), (3.0 * (y - t))[:, 0], rtol=1e-12)


# --------------------------------------------------------------------------- names and errors


def test_names_are_the_users_and_never_break_latex() -> None:
    g = nx.DiGraph()
    g.add_edge("a b", "50%_{x}", weight=1.0)
    g.add_edge("50%_{x}", "out", weight=1.0)
    model = nnc.compile(g, loss="sse", dtype="float64", options=OPTIONS)
    found = model.explain(("a b", "50%_{x}"))
    assert "dL/dw[a b->50%_{x}]" in found.text
    assert r"\mathrm{50\%\_\{x\}}" in found.latex
    plain = found.latex.replace(r"\{", "").replace(r"\}", "")
    assert plain.count("{") == plain.count("}")
    assert plain.count(r"\left(") == plain.count(r"\right)")
    x, t = data(3, 1, 1)
    assert found.evaluate(x, t) == pytest.approx(model.backward(x, t)[1]["a b->50%_{x}"])


def test_every_name_of_an_edge_is_understood() -> None:
    model = laboratory()
    texts = {model.explain(what).text for what in ("w36", "3->6", (3, 6), ("3", "6"))}
    assert len(texts) == 1
    assert model.explain("b_6").text == model.explain("6.bias").text
    assert model.explain(3).text == model.explain("3").text


def test_what_is_not_there_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="did you mean 'w36'"):
        laboratory().explain("w37")
    with pytest.raises(ValueError, match="no edge '3' -> '1'"):
        laboratory().explain((3, 1))
    with pytest.raises(ValueError, match="no loss"):
        laboratory(loss=None).explain("w36")
    with pytest.raises(ValueError, match="targets is"):
        laboratory().explain("w36", targets="numbers")


def test_networks_with_memory_are_refused() -> None:
    g = nx.DiGraph([("x", "h"), ("h", "y"), ("y", "h")])
    model = nnc.compile(g, loss="mse", recurrent=True, options=OPTIONS)
    with pytest.raises(ValueError, match="through time"):
        model.explain("h->y")


def test_long_sums_are_shortened_on_paper_alone() -> None:
    g = nx.DiGraph()
    g.add_edges_from((f"x{i}", "y") for i in range(40))
    g.nodes["y"]["activation"] = "tanh"
    model = nnc.compile(g, loss="sse", dtype="float64", options=OPTIONS)
    found = model.explain("x7->y")
    assert "w_x1_y z_x1 + ... + w_x9_y z_x9" in found.formulas["a_y"]
    check(model, *data(4, 1, 40), text=False)
