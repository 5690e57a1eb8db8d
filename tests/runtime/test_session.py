"""Takes hand-written artifacts, gives the laws of sessions: values, errors, threads, training."""

from __future__ import annotations

import _thread
import signal
import threading

import numpy as np
import pytest

from runtime.artifact import Artifact
from runtime.cache import Cache
from runtime.session import Session
from runtime.state import State


def make(artifact):
    state = State({"w": np.array([1, 2, 3], np.float32), "count": np.float32(0)})
    return Session(artifact, state), state


def data(rows, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 3)).astype(np.float32)
    return {"x": x, "target": rng.integers(0, 10, rows)}


def expected(inputs, w=(1, 2, 3)):
    y = inputs["x"] * np.asarray(w, np.float32) + inputs["target"][:, None].astype(np.float32)
    return y, y.sum() / len(y)


def check(results, inputs):
    y, loss = expected(inputs)
    np.testing.assert_array_equal(results["y"], y)
    np.testing.assert_allclose(results["loss"], loss, rtol=1e-4)


@pytest.mark.parametrize("rows", [1, 3, 32, 5000, 2])
def test_any_batch_size_gives_the_values(step_artifact, rows):
    session, state = make(step_artifact)
    for n in (rows, 7, rows):
        results = session(data(n))
        check(results, data(n))
        assert set(results) == {"y", "loss"}
    assert state["count"] == 3


def test_results_are_new_arrays(step_artifact):
    session, _ = make(step_artifact)
    for rows in (3, 5000):
        first = session(data(rows))
        second = session(data(rows, seed=1))
        check(first, data(rows))
        check(second, data(rows, seed=1))


def test_parameters_are_live(step_artifact):
    session, state = make(step_artifact)
    inputs = data(4)
    session(inputs)
    state["w"] = [0, 0, 1]
    np.testing.assert_array_equal(session(inputs)["y"], expected(inputs, (0, 0, 1))[0])
    state["w"][:] = 2
    np.testing.assert_array_equal(session(inputs)["y"], expected(inputs, (2, 2, 2))[0])


ODD = {
    "float64": lambda x: x.astype(np.float64),
    "float16": lambda x: x.astype(np.float16),
    "big endian": lambda x: x.astype(">f4"),
    "reversed": lambda x: np.ascontiguousarray(x[::-1])[::-1],
    "strided": lambda x: np.repeat(x, 2, axis=0)[::2],
    "fortran": lambda x: np.asfortranarray(x),
    "list": lambda x: x.tolist(),
    "misaligned": lambda x: (
        np.frombuffer(b"." + x.tobytes(), np.uint8)[1:].view("f4").reshape(x.shape)
    ),
}


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("rows", [4, 3000])
def test_odd_arrays_give_the_same(step_artifact, kind, rows):
    session, _ = make(step_artifact)
    inputs = data(rows)
    inputs["x"] = inputs["x"].astype(np.float16).astype(np.float32)
    check(session(inputs | {"x": ODD[kind](inputs["x"])}), inputs)
    means = session.train(inputs | {"x": ODD[kind](inputs["x"])}, 7)
    np.testing.assert_allclose(means["loss"], expected(inputs)[1], rtol=1e-4)


@pytest.mark.parametrize("rows", [4, 3000])
def test_read_only_inputs_work_and_stay(step_artifact, rows):
    session, _ = make(step_artifact)
    inputs = data(rows)
    before = {name: array.copy() for name, array in inputs.items()}
    for array in inputs.values():
        array.flags.writeable = False
    check(session(inputs), inputs)
    session.train(inputs, 3)
    for name, array in inputs.items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u4", "i8", "u8", "?"])
def test_labels_of_any_integer_dtype(step_artifact, dtype):
    session, _ = make(step_artifact)
    inputs = data(4)
    inputs["target"] = np.array([0, 1, 1, 0])
    check(session(inputs | {"target": inputs["target"].astype(dtype)}), inputs)


def test_column_input_takes_one_axis(forward_artifact):
    session = Session(forward_artifact)
    results = session({"x": np.arange(5.0)})
    np.testing.assert_array_equal(results["y"], 3 * np.arange(5.0)[:, None])
    results["y"][:] = 0
    np.testing.assert_array_equal(results["same"], 3 * np.arange(5.0)[:, None])


def test_empty_batch_of_a_forward_function(forward_artifact):
    assert Session(forward_artifact)({"x": np.zeros((0, 1))})["y"].shape == (0, 1)


WRONG = {
    "missing": (lambda d: {"x": d["x"]}, ValueError, "input 'target' is missing"),
    "unknown": (lambda d: d | {"z": 1}, ValueError, "unknown input 'z'; expected x, target"),
    "width": (lambda d: d | {"x": d["x"][:, :2]}, ValueError, r"'x'.*\(batch, 3\), got \(4, 2\)"),
    "rank": (lambda d: d | {"x": d["x"][0]}, ValueError, r"'x'.*\(batch, 3\), got \(3,\)"),
    "column": (lambda d: d | {"target": d["target"][:, None]}, ValueError, r"'target'.*\(4, 1\)"),
    "batch": (
        lambda d: d | {"target": d["target"][:3]},
        ValueError,
        "inputs 'x' and 'target' disagree on 'batch': 4 and 3",
    ),
    "empty": (lambda d: {n: a[:0] for n, a in d.items()}, ValueError, "empty batch"),
    "complex": (lambda d: d | {"x": d["x"] + 0j}, TypeError, "'x'.*float32.*complex"),
    "text": (lambda d: d | {"x": np.array([["a"] * 3] * 4)}, TypeError, "'x'.*float32"),
    "object": (lambda d: d | {"x": None}, TypeError, "'x'.*object"),
    "float labels": (lambda d: d | {"target": d["target"] * 1.0}, TypeError, "'target'.*integers"),
    "label": (
        lambda d: d | {"target": np.array([0, 1, 10, 2])},
        ValueError,
        r"'target' at \[2\] is 10, outside the range 0\.\.9",
    ),
    "huge label": (
        lambda d: d | {"target": np.full(4, 2**63, np.uint64)},
        ValueError,
        "'target': value 9223372036854775808 does not fit int64",
    ),
    "nan": (lambda d: d | {"x": d["x"] * [1, 1, np.nan]}, ValueError, r"'x' at \[0, 2\] is NaN"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_inputs_give_one_clear_error(step_artifact, kind):
    session, state = make(step_artifact)
    change, error, message = WRONG[kind]
    for use in (session, session.bind, lambda d: session.train(d, 2), lambda d: session(d)):
        if use == session.bind and kind in ("label", "nan"):
            continue
        state["count"] = 0
        with pytest.raises(error, match=message):
            use(change(data(4)))
        if use is session:
            assert state["count"] == 0
        check(session(data(4)), data(4))


def test_bound_runs_on_its_own_buffers(step_artifact):
    session, state = make(step_artifact)
    inputs = data(6)
    bound = session.bind(inputs)
    check(bound(), inputs)
    bound.inputs["x"][...] = 0
    np.testing.assert_array_equal(bound()["y"], np.repeat(inputs["target"], 3).reshape(6, 3))
    bound.run(100_000)
    bound.run(0)
    assert state["count"] == 100_002
    bound.inputs["target"][5] = -1
    with pytest.raises(ValueError, match=r"'target' at \[5\] is -1"):
        bound.run(3)
    assert state["count"] == 100_002


@pytest.mark.parametrize("seconds", [0.05, 1e-6])
@pytest.mark.parametrize("batch", [1, 7, 32, 1000])
def test_train_gives_means_weighted_by_rows(step_artifact, batch, seconds):
    session, state = make(step_artifact)
    inputs = data(100)
    for order in (None, np.random.default_rng(0).permutation(100), np.arange(0, 100, 3)):
        state["count"] = 0
        means = session.train(inputs, batch, order, seconds)
        part = inputs if order is None else {n: a[order] for n, a in inputs.items()}
        np.testing.assert_allclose(means["loss"], expected(part)[1], rtol=1e-4)
        assert state["count"] == -(-len(part["x"]) // batch)


def test_train_names_the_users_row(step_artifact):
    session, state = make(step_artifact)
    inputs = data(50)
    inputs["target"][17] = 12
    with pytest.raises(ValueError, match=r"'target' at \[17\] is 12"):
        session.train(inputs, 4, np.arange(50)[::-1])
    assert state["count"] == 8  # the batches before the one with row 17
    with pytest.raises(ValueError, match=r"'target' at \[17\] is 12"):
        session.prepare(inputs)
    check(session(data(4)), data(4))


@pytest.mark.parametrize("order", [[0, 4], [-1], [[0]], [0.5]])
def test_train_refuses_rows_that_do_not_exist(step_artifact, order):
    session, _ = make(step_artifact)
    with pytest.raises((ValueError, TypeError), match="order"):
        session.train(data(4), 2, order)


def test_large_data_are_cast_in_pieces(step_artifact, monkeypatch):
    monkeypatch.setattr("runtime.session.WHOLE", 100)
    monkeypatch.setattr("runtime.session.PIECE", 200)
    session, state = make(step_artifact)
    inputs = data(100)
    wide = inputs | {"x": inputs["x"].astype(np.float64)}
    for order in (None, np.arange(100)[::-1]):
        state["count"] = 0
        means = session.train(wide, 7, order)
        np.testing.assert_allclose(means["loss"], expected(inputs)[1], rtol=1e-4)
        assert state["count"] == 15
    assert session.prepare(wide)["x"].dtype == np.float64


def test_python_loop_equals_native_loop(step_artifact):
    session, _ = make(step_artifact)
    order = np.random.default_rng(1).permutation(50)
    native = session.train(data(50), 8, order)
    session._feeder = None
    assert session.train(data(50), 8, order) == native


def test_threads_may_call_at_once(step_artifact):
    session, state = make(step_artifact)
    failures = []

    def work(seed):
        for rows in (3, 700, 5000) * 20:
            inputs = data(rows, seed)
            try:
                check(session(inputs), inputs)
            except AssertionError as error:
                failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert state["count"] == 240


def test_updates_of_passed_inputs_are_results(step_artifact):
    session = Session(step_artifact, State({"w": np.ones(3, np.float32)}))
    count = np.float32(5)
    assert session(data(3) | {"count": count})["update:count"] == 6
    assert count == 5


def test_profile_leaves_parameters_alone(step_artifact):
    session, state = make(step_artifact)
    (row,) = session.profile(data(1000), repeats=3)
    assert state["count"] == 0
    assert (row.label, row.calls, row.share) == ("k00_scale", 3, 1.0)
    assert row.seconds > 0
    assert row.gbps > row.gflops > 0


def test_persistent_arrays_must_fit(step_artifact):
    with pytest.raises(ValueError, match=r"'w'.*compiled as"):
        Session(step_artifact, {"w": np.zeros(4, np.float32), "count": np.zeros((), np.float32)})


def test_an_artifact_survives_the_disk(step_artifact, tmp_path):
    cache = Cache(tmp_path / "cache")
    cache.put("0" * 64, step_artifact)
    stored = cache.get("0" * 64)
    assert stored == step_artifact
    session, _ = make(stored)
    check(session(data(3)), data(3))


def test_broken_code_is_one_clear_error(step_artifact):
    with pytest.raises(ValueError, match="cannot be loaded"):
        make(Artifact(step_artifact.plan, b"not an object file"))


@pytest.fixture
def heeds_interrupts():
    """A job that a shell starts in the background ignores SIGINT, and what it starts does too."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeds_interrupts")
def test_an_interrupt_between_native_calls_leaves_the_session_usable(step_artifact):
    session, state = make(step_artifact)
    bound = session.bind(data(4))
    timer = threading.Timer(0.3, _thread.interrupt_main)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        bound.run(10**12)
    timer.join()
    state["count"] = 0
    check(session(data(4)), data(4))
    assert state["count"] == 1
