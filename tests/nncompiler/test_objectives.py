"""Weights of losses; several objectives over parts of one graph, each with its own optimizer."""

from __future__ import annotations

from typing import Any

import networkx as nx
import numpy as np
import pytest

import nncompiler as nnc
from tests.layer_laws import assert_same_state, close

RNG = np.random.default_rng(18)


def gan(norm: bool = False) -> Any:
    """x real, z noise -> fake; one discriminator looks at both."""
    g: Any = nx.DiGraph()
    g.add_node("z", op="input", shape=("batch", 3))
    g.add_node("x", op="input", shape=("batch", 2))
    g.add_node("g1", op="dense", units=8, activation="tanh")
    g.add_node("fake", op="dense", units=2)
    nx.add_path(g, ["z", "g1", "fake"])
    for name, source in (("real", "x"), ("false", "fake")):
        g.add_node(f"{name}1", op="dense", units=8, activation="tanh", share="d1")
        g.add_node(f"{name}_score", op="dense", units=1, share="d2")
        nx.add_path(g, [source, f"{name}1", f"{name}_score"])
    if norm:
        g.nodes["g1"].clear()
        g.nodes["g1"].update(op="batch_norm")
    return g


def objectives(**changes: Any) -> Any:
    return {
        "discriminator": nnc.Objective(
            loss={"real_score": "binary_cross_entropy", "false_score": "binary_cross_entropy"},
            optimizer=nnc.Adam(0.01),
            parameters="d?.*",
            **changes,
        ),
        "generator": nnc.Objective(
            loss={"false_score": "binary_cross_entropy"},
            optimizer=nnc.SGD(0.1, momentum=0.9),
            parameters=["g1.*", "fake.*"],
        ),
    }


def model_of(dtype: str = "float64", norm: bool = False) -> nnc.Model:
    return nnc.compile(gan(norm), outputs=["fake"], objectives=objectives(), dtype=dtype)


def batch(rows: int) -> tuple[Any, Any]:
    """Data and targets of the discriminator and of the generator."""
    z, x = RNG.normal(size=(rows, 3)), RNG.normal(size=(rows, 2))
    one, zero = np.ones((rows, 1)), np.zeros((rows, 1))
    return (
        ({"x": x, "z": z}, {"real_score": one, "false_score": zero}),
        ({"z": z}, {"false_score": one}),
    )


def copied(model: Any) -> dict[str, Any]:
    return {name: np.array(p) for name, p in model.parameters.items()}


def test_each_objective_changes_its_own_parameters_alone() -> None:
    model = model_of()
    assert sorted(model.parameters) == sorted(
        f"{n}.{k}" for n in ("d1", "d2", "fake", "g1") for k in ("weight", "bias")
    )
    first, second = batch(5)
    for name, data, own in (("discriminator", first, "d"), ("generator", second, "fg")):
        before = copied(model)
        loss, gradients = model.objectives[name].backward(*data)
        assert model.objectives[name].step(*data) == pytest.approx(loss)
        assert {n[0] for n in gradients} == set(own)
        for n, array in model.parameters.items():
            assert np.array_equal(array, before[n]) == (n[0] not in own), n


def test_parts_are_trained_as_one_model_of_each_part_would_be() -> None:
    model = model_of()
    first, second = batch(6)
    alone = nnc.compile(
        gan(),
        outputs=["real_score", "false_score"],
        loss={"real_score": "binary_cross_entropy", "false_score": "binary_cross_entropy"},
        optimizer=nnc.Adam(0.01),
        dtype="float64",
    )
    start = copied(model)
    for name in start:
        np.testing.assert_array_equal(alone.parameters[name], start[name])
    discriminator = model.objectives["discriminator"]
    for _ in range(3):
        assert discriminator.step(*first) == pytest.approx(alone.step(*first))
        for name, array in start.items():  # the other part stays as it was
            if name[0] in "fg":
                alone.parameters[name] = array
    for name, array in alone.parameters.items():
        np.testing.assert_allclose(model.parameters[name], array, rtol=1e-12)
    loss, gradients = model.objectives["generator"].backward(*second)
    assert np.isfinite(loss)
    assert model.objectives["generator"].check_gradients(*second).worst < 1e-6
    assert set(gradients) == {"g1.weight", "g1.bias", "fake.weight", "fake.bias"}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("norm", [False, True])
def test_compiled_is_the_reference(dtype: str, norm: bool) -> None:
    model = model_of(dtype, norm)
    twin = model.reference
    bound = 1e-5 if dtype == "float32" else 1e-11
    for rows in (5, 1, 3):
        first, second = batch(rows)
        for name, data in (("discriminator", first), ("generator", second)):
            assert model.objectives[name].compare(*data).worst < bound
            loss = model.objectives[name].step(*data)
            assert close(loss, twin.objectives[name].step(*data), bound)
    assert_same_state(model, twin, bound)
    z = RNG.normal(size=(4, 3))
    assert close(model.predict(z), twin.predict(z), bound)


def test_rates_are_separate_and_can_be_set() -> None:
    model = model_of()
    discriminator, generator = model.objectives.values()
    assert (discriminator.learning_rate, generator.learning_rate) == (0.01, 0.1)
    generator.learning_rate = 0.0
    before, (first, second) = copied(model), batch(4)
    generator.step(*second)
    for name, array in model.parameters.items():
        np.testing.assert_array_equal(array, before[name])
    discriminator.step(*first)
    assert not np.array_equal(model.parameters["d1.weight"], before["d1.weight"])
    generator.learning_rate = nnc.InverseTime(0.2, 1.0)
    generator.step(*second)
    assert not np.array_equal(model.parameters["g1.weight"], before["g1.weight"])


def test_objectives_fit_evaluate_and_bind() -> None:
    model = model_of()
    first, second = batch(12)
    part = model.objectives["discriminator"]
    history = part.fit(*first, epochs=5, batch_size=5, verbose=0)
    assert history.history["loss"][-1] < history.history["loss"][0]
    assert part.evaluate(*first)["loss"] < history.history["loss"][0]
    bound = model.objectives["generator"].bind(*second)
    before = bound()
    assert bound.run(20) < before


def test_a_saved_model_goes_on_with_both(tmp_path: Any) -> None:
    model = model_of(norm=True)
    first, second = batch(8)
    model.objectives["discriminator"].fit(*first, epochs=2, batch_size=3, verbose=0)
    model.objectives["generator"].learning_rate = nnc.InverseTime(0.2, 1.0)
    model.objectives["generator"].step(*second)
    model.save(tmp_path / "m.nnc")
    twin = nnc.load(tmp_path / "m.nnc")
    for machine in (model, twin):
        machine.objectives["generator"].step(*second)
        machine.objectives["discriminator"].fit(*first, epochs=1, batch_size=3, verbose=0)
    assert_same_state(model, twin, 0.0)
    model.save_weights(tmp_path / "m.npz")
    other = model_of(norm=True)
    other.load_weights(tmp_path / "m.npz")
    z = RNG.normal(size=(4, 3))
    np.testing.assert_array_equal(other.predict(z), model.predict(z))


def test_reset_starts_all_over() -> None:
    model, new = model_of(), model_of()
    for data, part in zip(batch(5), model.objectives.values(), strict=True):
        part.step(*data)
    model.reset()
    assert_same_state(model, new, 0.0)


def test_losses_have_weights() -> None:
    g = gan()
    names = ("real_score", "false_score")
    data, t = batch(5)[0]
    losses = dict.fromkeys(names, "binary_cross_entropy")
    alone = [
        nnc.compile(g, outputs=names, loss={n: losses[n]}, dtype="float64").backward(data, t[n])
        for n in names
    ]
    both = nnc.compile(
        g, outputs=names, loss=losses, loss_weights={"false_score": 0.25}, dtype="float64"
    )
    loss, gradients = both.backward(data, t)
    assert loss == pytest.approx(alone[0][0] + 0.25 * alone[1][0])
    for name, gradient in gradients.items():
        parts = [a[1][name] for a in alone]
        np.testing.assert_allclose(gradient, parts[0] + 0.25 * parts[1], rtol=1e-10, atol=1e-14)
    assert both.evaluate(data, t)["loss"] == pytest.approx(loss)


def test_mistakes() -> None:
    with pytest.raises(nnc.CompileError, match="belong into the objectives"):
        nnc.compile(gan(), objectives=objectives(), optimizer="sgd")
    with pytest.raises(nnc.CompileError, match="write nnc.Objective"):
        nnc.compile(gan(), objectives={"d": "mse"})
    wrong = nnc.Objective(loss={"false_score": "mse"}, optimizer="sgd", parameters="q*")
    with pytest.raises(nnc.CompileError, match="no parameter .* fits 'q\\*'"):
        nnc.compile(gan(), objectives={"d": wrong})
    with pytest.raises(nnc.CompileError, match="loss_weights of 'fake'"):
        nnc.compile(gan(), objectives=objectives(loss_weights={"fake": 1.0}))
    for name in ("fit", "step", "backward", "evaluate"):
        with pytest.raises(ValueError, match=r"model\.objectives.*'discriminator', 'generator'"):
            getattr(model_of(), name)(*batch(3)[0])
    with pytest.raises(nnc.CompileError, match="loss_weights"):
        nnc.compile(gan(), outputs=["fake"], loss="mse", loss_weights={"fake": -1.0})


@pytest.mark.parametrize("target", [np.zeros((6, 1)), np.zeros(6, np.int64)])
def test_a_loss_may_leave_its_target_out(target: Any) -> None:
    """The score of what is generated (Wasserstein's distance) needs no label; data are as usual."""
    g: Any = nx.DiGraph()
    g.add_node("z", op="input", shape=("batch", 3))
    g.add_node("score", op="dense", units=1)
    g.add_edge("z", "score")
    model = nnc.compile(
        g,
        loss=lambda y, _: -nnc.mean(y),
        optimizer=nnc.SGD(0.1),
        metrics=lambda y, _: nnc.mean(y),
        dtype="float64",
    )
    z, twin = RNG.normal(size=(6, 3)), model.reference
    before = model(z).mean()
    assert model.evaluate(z, target)["loss"] == pytest.approx(-before)
    _, gradients = model.backward(z, target)
    np.testing.assert_allclose(gradients["score.weight"][:, 0], -z.mean(0))
    for machine in (model, twin):
        assert machine.step(z, target) == pytest.approx(-before)
        machine.fit(z, target, batch_size=4, verbose=0)
    assert_same_state(model, twin, 1e-12)
    after = model(z).mean()
    assert model.bind(z, target)() == pytest.approx(-after)
    with pytest.raises(ValueError, match="disagree on 'batch': 6 and 5"):
        model.step(z, target[:5])
