"""The model that users hold: what its methods take and give."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest

import nncompiler as nnc
from tests.networks import CLASSES, WIDTH, classifier, compiled, data, neurons, two_inputs

ROOT = Path(__file__).parent.parent.parent
X, T = data()


def run_python(text: str, *path: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", text], cwd=ROOT, capture_output=True, text=True, check=False
    )


# --------------------------------------------------------------------------- import


@pytest.mark.parametrize("name", ["ir", "runtime"])
def test_foreign_package_of_the_same_name_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / f"{name}.py").write_text("")
    text = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]; import nncompiler"
    done = run_python(text)
    assert "ImportError" in done.stderr
    assert str(tmp_path) in done.stderr


def test_public_names_are_listed_and_unknown_ones_refused() -> None:
    assert {"compile", "SGD", "jit", "exp", "CompileError"} <= set(dir(nnc))
    for name in dir(nnc):
        assert getattr(nnc, name) is not None or name == "newaxis"
    with pytest.raises(AttributeError, match="nothing_like_that"):
        nnc.nothing_like_that  # noqa: B018


# --------------------------------------------------------------------------- forward


def test_call_forward_and_predict_agree() -> None:
    model = compiled()
    y = model(X)
    assert y.shape == (32, CLASSES)
    assert y.dtype == np.float32
    np.testing.assert_array_equal(model.forward(X), y)
    np.testing.assert_allclose(model.predict(X, batch_size=5), y, rtol=1e-5, atol=1e-6)


def test_forward_in_training_drops_values_and_changes_nothing() -> None:
    g = classifier()
    g.add_node("dropped", op="dropout", rate=0.5)
    g.remove_edge("hidden", "scores")
    nx.add_path(g, ["hidden", "dropped", "scores"])
    model = compiled(g)
    before = model.state.copy()
    np.testing.assert_array_equal(model.forward(X), model(X))
    first = model.forward(X, training=True)
    assert not np.array_equal(first, model(X))
    np.testing.assert_array_equal(first, model.forward(X, training=True))
    assert all(np.array_equal(model.state[k], before[k]) for k in before)


def test_outputs_are_a_dict_where_there_are_several() -> None:
    model = nnc.compile(two_inputs())
    a, b = X[:, :2], X[:, 1:]
    y = model({"a": a, "b": b})
    assert {k: v.shape for k, v in y.items()} == {"y": (32, 1), "z": (32, 2)}
    np.testing.assert_array_equal(model((a, b))["z"], y["z"])
    assert nnc.compile(two_inputs(), outputs="y")((a, b)).shape == (32, 1)


def test_losses_by_output_are_added() -> None:
    model = nnc.compile(two_inputs(), loss={"y": "mse", "z": "mae"}, metrics=("mse",))
    a, b = X[:, :2], X[:, 1:]
    t = {"y": X[:, :1], "z": X[:, 2:]}
    y = model((a, b))
    expected = np.mean((y["y"] - t["y"]) ** 2) + np.mean(np.abs(y["z"] - t["z"]))
    result = model.evaluate((a, b), t)
    np.testing.assert_allclose(result["loss"], expected, rtol=1e-5)
    assert set(result) == {"loss", "y_mse", "z_mse"}


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.astype(np.float64),
        lambda x: np.asfortranarray(x),
        lambda x: np.repeat(x, 2, axis=0)[::2],
        lambda x: x[::-1][::-1],
        lambda x: x.tolist(),
    ],
)
def test_any_layout_and_real_dtype_is_taken_and_never_changed(change: Any) -> None:
    model = compiled()
    given = change(X)
    before = np.array(given)
    if isinstance(given, np.ndarray):
        given.flags.writeable = False
    np.testing.assert_array_equal(model(given), model(X))
    model.step(given, T)
    np.testing.assert_array_equal(np.array(given), before)


def test_no_rows_give_no_rows() -> None:
    model = compiled()
    assert model(X[:0]).shape == (0, CLASSES)
    assert model.predict(X[:0], batch_size=4).shape == (0, CLASSES)


# --------------------------------------------------------------------------- training


def test_step_is_backward_and_update() -> None:
    stepped, pieces = compiled(), compiled()
    loss, gradients = pieces.backward(X, T)
    pieces.update(gradients)
    assert stepped.step(X, T) == pytest.approx(loss, rel=1e-6)
    for name, value in stepped.parameters.items():
        np.testing.assert_allclose(value, pieces.parameters[name], rtol=1e-5, atol=1e-6)


def test_backward_alone_needs_no_optimizer_and_update_no_loss() -> None:
    loss_only = compiled(optimizer=None)
    loss, gradients = loss_only.backward(X, T)
    assert loss > 0
    assert list(gradients) == list(loss_only.parameters)
    optimizer_only = compiled(loss=None, metrics=())
    before = optimizer_only.parameters["hidden.weight"].copy()
    optimizer_only.update(gradients)
    change = before - optimizer_only.parameters["hidden.weight"]
    np.testing.assert_allclose(change, 0.1 * gradients["hidden.weight"], rtol=1e-5, atol=1e-7)


def test_labels_and_one_hot_rows_train_alike_and_compile_once_each() -> None:
    labels, rows = compiled(), compiled()
    one_hot = np.eye(CLASSES, dtype=np.float32)[T]
    for _ in range(3):
        assert labels.step(X, T) == pytest.approx(rows.step(X, one_hot), rel=1e-5)
    assert (labels.compilations, rows.compilations) == (1, 2)
    labels.step(X[:5], T[:5].astype(np.int8))
    assert labels.compilations == 1


def test_column_targets_may_be_flat() -> None:
    g = nx.DiGraph([("x", "y")])
    g.add_node("x", op="input", shape=("batch", WIDTH))
    g.add_node("y", op="dense", units=1)
    model = nnc.compile(g, loss="mse", optimizer="sgd")
    assert model.evaluate(X, X[:, 0])["loss"] == model.evaluate(X, X[:, :1])["loss"]
    assert model.evaluate(X, T)["loss"] == pytest.approx(np.mean((model(X)[:, 0] - T) ** 2))


def test_zero_weights_take_rows_out() -> None:
    weights = np.r_[np.full(16, 2.0), np.zeros(16)]
    weighted = compiled().step(X, T, sample_weight=weights)
    assert weighted == pytest.approx(compiled().step(X[:16], T[:16]), rel=1e-5)
    model = compiled()
    assert model.evaluate(X, T, sample_weight=weights)["loss"] == pytest.approx(weighted, rel=1e-5)


def test_fit_returns_history_and_learns() -> None:
    x, t = data(300)
    model = compiled()
    seen: list[int] = []
    history = model.fit(
        x,
        t,
        epochs=20,
        batch_size=32,
        validation_split=0.2,
        callbacks=[lambda epoch, logs: seen.append(epoch)],
        class_weight={0: 2.0},
        verbose=0,
    ).history
    assert set(history) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    assert all(len(values) == 20 for values in history.values())
    assert history["val_accuracy"][-1] > 0.9
    assert seen == list(range(20))
    assert model.history.history == history


def test_fit_takes_batches_and_memory_maps(tmp_path: Path) -> None:
    x, t = data(40)
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    arrays, maps, batches = compiled(), compiled(), compiled()
    expected = arrays.fit(x, t, batch_size=16, shuffle=False, verbose=0).history
    assert maps.fit(mapped, t, batch_size=16, shuffle=False, verbose=0).history == expected
    pieces = [(x[i : i + 16], t[i : i + 16]) for i in (0, 16, 32)]
    found = batches.fit(pieces, verbose=0).history
    assert found["loss"] == pytest.approx(expected["loss"])
    assert found["accuracy"] == pytest.approx(expected["accuracy"])


def test_early_stopping_ends_the_run() -> None:
    stop = nnc.EarlyStopping("val_loss", patience=1)
    model = compiled(optimizer=nnc.SGD(0.0))
    history = model.fit(X, T, epochs=50, validation_data=(X, T), callbacks=[stop], verbose=0)
    assert len(history.epoch) == 2


def test_ctrl_c_leaves_the_model_usable() -> None:
    model = compiled()

    def interrupt(epoch: int, logs: Any) -> None:
        if epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.fit(X, T, epochs=9, callbacks=[interrupt], verbose=0)
    assert len(model.history.epoch) == 3
    assert np.isfinite(model.step(X, T))


def test_training_equals_the_reference() -> None:
    x, t = data(70)
    model = compiled(dtype="float64", optimizer=nnc.Adam(0.01), regularizer=nnc.L2(1e-3))
    reference = model.reference
    ours = model.fit(x, t, epochs=3, batch_size=16, verbose=0).history
    theirs = reference.fit(x, t, epochs=3, batch_size=16, verbose=0).history
    for name, values in ours.items():
        np.testing.assert_allclose(values, theirs[name], rtol=1e-10)
    for name, value in model.parameters.items():
        np.testing.assert_allclose(value, reference.parameters[name], rtol=0, atol=1e-10)


def test_reference_keeps_its_own_parameters() -> None:
    model = compiled()
    before = model.reference.forward(X)
    model.step(X, T)
    np.testing.assert_array_equal(model.reference.forward(X), before)
    assert model.reference.step(X, T) > 0
    _, gradients = model.reference.backward(X, T)
    assert set(gradients) == set(model.parameters)


# --------------------------------------------------------------------------- state


def test_parameters_are_live() -> None:
    model = compiled()
    model.parameters["scores.weight"][...] = 0
    model.parameters["scores.bias"] = [1, 2, 3]
    np.testing.assert_array_equal(model(X), np.tile(np.float32([1, 2, 3]), (32, 1)))
    array = model.parameters["hidden.weight"]
    before = array.copy()
    model.step(X, T)
    model.step(X, T)
    assert not np.array_equal(array, before)
    with pytest.raises(KeyError, match=r"hidden\.bias"):
        model.parameters["hidden.biases"]


def test_neuron_parameters_and_gradients_go_by_edges() -> None:
    model = nnc.compile(neurons(), loss="sse", optimizer=nnc.SGD(0.1))
    assert set(model.parameters) >= {"x1->h1", "h2->y", "h1.bias", "y.bias"}
    assert float(model.parameters["h2->y"]) == -2.0
    model.parameters["h1->y"] = 3.0
    x, t = X[:, :2], X[:, :1]
    hidden = np.tanh(x @ np.full((2, 2), 0.5) + [0.0, -1.0])
    np.testing.assert_allclose(model(x)[:, 0], hidden @ [3.0, -2.0], rtol=1e-5, atol=1e-6)
    before = {n: float(v) for n, v in model.parameters.items()}
    _, gradients = model.backward(x, t)
    assert set(gradients) == set(model.parameters)
    model.update(gradients)
    for name, gradient in gradients.items():
        expected = before[name] - 0.1 * float(gradient)
        assert float(model.parameters[name]) == pytest.approx(expected, abs=1e-6)
    assert model.check_gradients(x, t).worst < 1e-3


def test_reset_draws_the_first_parameters_again() -> None:
    model = compiled()
    first = model.state.copy()
    model.fit(X, T, epochs=2, verbose=0)
    model.reset()
    assert all(np.array_equal(model.state[k], first[k]) for k in first)
    model.reset(7)
    again = compiled(seed=7)
    assert all(np.array_equal(model.state[k], again.state[k]) for k in first)


def test_learning_rate_is_live_and_takes_schedules() -> None:
    model = compiled(optimizer=nnc.SGD(0.5))
    assert model.learning_rate == 0.5
    model.learning_rate = 0.0
    before = model.parameters["hidden.weight"].copy()
    model.step(X, T)
    np.testing.assert_array_equal(model.parameters["hidden.weight"], before)
    model.learning_rate = nnc.InverseTime(0.25, delta=1.0)
    assert model.learning_rate == 0.25
    model.step(X, T)
    assert int(model.state["optimizer.t"]) == 1
    model.fit(X, T, callbacks=[lambda epoch, logs: setattr(model, "learning_rate", 0.1)], verbose=0)
    assert model.learning_rate == pytest.approx(0.1)


def test_a_deep_copy_trains_on_by_itself() -> None:
    model = compiled(optimizer=nnc.Adam(0.01))
    model.fit(X, T, epochs=2, batch_size=8, verbose=0)
    model.learning_rate = nnc.Cosine(0.02, steps=40)
    twin = copy.deepcopy(model)
    before = model.state.copy()
    again = twin.fit(X, T, epochs=2, batch_size=8, verbose=0).history
    assert all(np.array_equal(model.state[k], before[k]) for k in before)
    assert model.fit(X, T, epochs=2, batch_size=8, verbose=0).history == again
    np.testing.assert_array_equal(twin(X), model(X))


def test_models_are_saved_rather_than_pickled() -> None:
    with pytest.raises(TypeError, match="save"):
        pickle.dumps(compiled())


def test_models_do_not_share_state() -> None:
    one, two = compiled(), compiled()
    before = two(X)
    one.step(X, T)
    np.testing.assert_array_equal(two(X), before)


def test_the_users_graph_may_change_afterwards() -> None:
    g = classifier()
    model = compiled(g)
    g.remove_node("hidden")
    assert "hidden" in model.source


# --------------------------------------------------------------------------- bind, compare


def test_bound_steps_equal_plain_ones() -> None:
    bound_model, plain = compiled(), compiled()
    bound = bound_model.bind(X, T)
    losses = [plain.step(X, T) for _ in range(5)]
    assert bound() == losses[0]
    assert bound.run(4) == losses[-1]
    bound.inputs["x"][...] = 0
    assert bound() == plain.step(np.zeros_like(X), T)


def test_bind_without_optimizer_or_targets() -> None:
    model = compiled(optimizer=None)
    np.testing.assert_array_equal(model.bind(X)(), model(X))
    loss, gradients = model.bind(X, T)()
    assert loss == model.backward(X, T)[0]
    assert set(gradients) == set(model.parameters)


def test_compare_and_gradient_check_are_small() -> None:
    model = compiled(dtype="float64")
    result = model.compare(X, T)
    assert set(result) == {"outputs", "loss", "gradients"}
    assert result.worst < 1e-12
    checked = model.check_gradients(X, T)
    assert set(checked) == set(model.parameters)
    assert checked.worst < 1e-6


def test_one_program_serves_every_batch() -> None:
    model = compiled()
    for rows in (1, 3, 32, 1000, 7):
        x, t = data(rows)
        model(x)
        model.step(x, t)
    model.fit(*data(75), batch_size=32, verbose=0)
    assert model.compilations == 2


def test_softmax_at_the_end_is_undone_by_cross_entropy() -> None:
    g = classifier()
    g.add_node("p", op="softmax")
    g.add_edge("scores", "p")
    with_softmax, without = compiled(g), compiled()
    np.testing.assert_allclose(with_softmax(X).sum(axis=1), 1, rtol=1e-5)
    assert with_softmax.step(1e4 * X, T) == pytest.approx(without.step(1e4 * X, T), rel=1e-5)


def test_a_diverging_run_warns() -> None:
    model = compiled(classifier("relu"), optimizer=nnc.SGD(1e20))
    with pytest.warns(RuntimeWarning, match="loss"):
        model.fit(X, T, epochs=4, verbose=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.reset()
        model.learning_rate = 0.01
        model.fit(X, T, verbose=0)
