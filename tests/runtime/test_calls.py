"""Takes hand-written artifacts, gives the laws of native callables: they are the general way, only
quicker; nothing leaks; any number of threads may call."""

from __future__ import annotations

import gc
import sys
import sysconfig
import threading
import weakref
from dataclasses import replace

import numpy as np
import pytest

from runtime import route
from runtime.direct import direct
from runtime.glue import Slot
from runtime.layout import array_type
from runtime.route import Route
from runtime.session import Session
from runtime.state import State


class Calls:
    """A native callable over a session; `general` counts the calls that went the general way."""

    def __init__(self, artifact, names, output=None, number=False, **state):
        self.state = State(state)
        self.session = Session(artifact, self.state)
        self.general = 0
        self.route = Route(self.session, names, output, number)
        self.names, self.output, self.number = names, output, number
        self.call = direct(self.run, lambda: self.route)

    def run(self, *args):
        self.general += 1
        if len(args) != len(self.names):
            raise TypeError(f"expected {len(self.names)} arguments")
        results = self.session(dict(zip(self.names, args, strict=True)))
        if self.output is None:
            return results
        return float(results[self.output]) if self.number else results[self.output]


def step(artifact, output=None, number=False):
    return Calls(
        artifact,
        ("x", "target"),
        output,
        number,
        w=np.array([1, 2, 3], np.float32),
        count=np.float32(0),
    )


def data(rows, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 3)).astype(np.float32)
    return x, rng.integers(0, 10, rows)


def expected(x, t):
    return x * np.array([1, 2, 3], np.float32) + t[:, None].astype(np.float32)


@pytest.fixture
def loss_artifact(step_artifact):
    """The step whose only output is the loss, so that nothing outside depends on the batch."""
    plan = step_artifact.plan
    buffers = list(plan.buffers)
    buffers[5] = replace(buffers[5], role="temporary", first=0, last=1)
    outputs = {"loss": 6, "update:count": 7}
    return replace(step_artifact, plan=replace(plan, buffers=buffers, outputs=outputs))


# --------------------------------------------------------------------------- values


@pytest.mark.parametrize("rows", [1, 3, 40, 100, 5000, 9000])
def test_arrays_that_fit_take_the_short_way(step_artifact, forward_artifact, rows):
    calls = step(step_artifact, "y")
    if rows > 1000:  # the loss would be another output that is handed out
        calls = Calls(forward_artifact, ("x",), "y")
        for seed in range(3):
            x = data(rows, seed)[0][:, :1].astype(np.float64)
            np.testing.assert_array_equal(calls.call(x), 3 * x)
    else:
        for seed in range(3):
            np.testing.assert_array_equal(
                calls.call(*data(rows, seed)), expected(*data(rows, seed))
            )
        assert calls.state["count"] == 3
    assert calls.general == 1


def test_a_number_comes_as_a_float(step_artifact):
    calls = step(step_artifact, "loss", number=True)
    x, t = data(4)
    losses = [calls.call(x, t) for _ in range(3)]
    assert calls.general == 1
    assert [type(loss) for loss in losses] == [float] * 3
    np.testing.assert_allclose(losses, expected(x, t).sum() / 4, rtol=1e-5)


def test_all_outputs_at_once(step_artifact):
    calls = step(step_artifact)
    x, t = data(4)
    for _ in range(3):
        results = calls.call(x, t)
        assert set(results) == {"y", "loss"}
        np.testing.assert_array_equal(results["y"], expected(x, t))
    assert calls.general == 1


def test_two_names_of_one_output(forward_artifact):
    calls = Calls(forward_artifact, ("x",), "same")
    for rows in (2, 5000):
        for _ in range(3):
            np.testing.assert_array_equal(calls.call(np.ones((rows, 1))), np.full((rows, 1), 3.0))


def test_smaller_batches_need_no_new_layout_where_only_a_number_comes_out(loss_artifact):
    calls = step(loss_artifact, "loss", number=True)
    for rows in (32, 31, 1, 32, 7):
        x, t = data(rows)
        np.testing.assert_allclose(calls.call(x, t), expected(x, t).sum() / rows, rtol=1e-4)
    assert calls.general == 1
    x, t = data(33)
    for _ in range(4):
        np.testing.assert_allclose(calls.call(x, t), expected(x, t).sum() / 33, rtol=1e-4)
    assert calls.general == 3


def test_a_batch_size_that_comes_now_and_then_does_not_take_over(step_artifact):
    calls = step(step_artifact, "y")
    for rows in (4, 4, 7, 4, 4, 7, 4, 4, 7, 7, 7, 7):
        np.testing.assert_array_equal(calls.call(*data(rows)), expected(*data(rows)))
    assert calls.general == 1 + 4


@pytest.mark.parametrize("output", ["y", None])
def test_batch_sizes_and_ways_may_alternate(step_artifact, output):
    calls = step(step_artifact, output)
    for rows in (4, 4, 600, 600, 4, 5000, 5000, 3):
        for x, t in (data(rows), (data(rows)[0].tolist(), data(rows)[1])):
            result = calls.call(x, t)
            y = result["y"] if output is None else result
            np.testing.assert_array_equal(y, expected(*data(rows)))
        x, t = data(rows)
        np.testing.assert_array_equal(calls.session({"x": x, "target": t})["y"], expected(x, t))


@pytest.mark.parametrize("rows", [4, 300, 5000])
def test_results_are_new_arrays(step_artifact, forward_artifact, rows):
    calls = Calls(forward_artifact, ("x",), "y")
    x = np.arange(rows, dtype=np.float64)[:, None]
    results = [calls.call(x + i) for i in range(4)] + [calls.call((x + 4).tolist())]
    results += [calls.call(x + i) for i in range(5, 8)]
    for i, result in enumerate(results):
        np.testing.assert_array_equal(result, 3 * (x + i))
        assert result.flags.writeable


def test_parameters_are_live(step_artifact):
    calls = step(step_artifact, "y")
    x, t = data(4)
    calls.call(x, t)
    calls.state["w"] = [0, 0, 0]
    np.testing.assert_array_equal(calls.call(x, t), np.repeat(t[:, None], 3, axis=1))
    assert calls.general == 1


# --------------------------------------------------------------------------- what does not fit

ODD = {
    "float64": lambda x: x.astype(np.float64),
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
def test_odd_arrays_give_the_same(step_artifact, kind):
    calls = step(step_artifact, "y")
    x, t = data(4)
    calls.call(x, t)
    for _ in range(3):
        np.testing.assert_allclose(calls.call(ODD[kind](x), t), expected(x, t), rtol=1e-6)
        np.testing.assert_array_equal(calls.call(x, t), expected(x, t))
    assert calls.general == 4


class Marked(np.ndarray):
    """A subclass, whose objects have more than an array's fields."""


@pytest.mark.parametrize("direct", [True, False])
def test_arrays_are_read_directly_or_asked(step_artifact, monkeypatch, direct):
    """Subclasses, other objects of the same dtype and single rows fit either way."""
    if not direct:
        monkeypatch.setattr(route, "array_type", lambda: 0)
    calls = step(step_artifact, "y")
    x, t = data(4)
    titled = np.dtype("f4", metadata={"unit": "m"})
    for array in (x, x.view(Marked), x.view(titled), memoryview(x), x):
        np.testing.assert_array_equal(calls.call(array, t), expected(x, t))
    calls.call(x[:1], t[:1])
    for part in (x[2:3], x[::4], np.asfortranarray(x[:1])):
        np.testing.assert_array_equal(calls.call(part, t[:1]), expected(np.array(part), t[:1]))
    assert calls.general <= 3


def test_an_ndarray_is_laid_out_as_documented():
    has_lock = not sysconfig.get_config_var("Py_GIL_DISABLED")
    assert array_type() == (id(np.ndarray) if has_lock else 0)


CASTS = {
    "f8": (lambda x, t: (x.astype("f8") * (1 + 1e-9), t), 0),
    "i4": (lambda x, t: (x, t.astype("i4")), 0),
    "u1": (lambda x, t: (x, t.astype("u1")), 0),
    "u2": (lambda x, t: (x, t.astype("u2")), 1),
    "strided f8": (lambda x, t: (np.repeat(x.astype("f8"), 2, axis=1)[:, ::2], t), 1),
    "swapped f8": (lambda x, t: (x.astype(">f8"), t), 1),
    "overflow": (lambda x, t: (np.where(x > 0, 1e300, x.astype("f8")), t), 1),
    "infinite": (lambda x, t: (np.where(x > 0, np.inf, x.astype("f8")), t), 0),
    "NaN": (lambda x, t: (np.where(x == x[0, 0], np.nan, x.astype("f8")), t), 1),
    "negative label": (lambda x, t: (x, -1 - t.astype("i4")), 1),
}


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize("kind", CASTS)
def test_casts_are_those_of_the_general_way(step_artifact, kind):
    change, general = CASTS[kind]
    calls = step(step_artifact, "y")
    calls.route = replace(calls.route, casts=True)
    for rows in (40, 40, 3, 3, 3):
        calls.call(*data(rows))
    x, t = change(*data(3))
    before = calls.general
    results = []
    for call in (calls.call, lambda *a: calls.session(dict(zip(calls.names, a, strict=True)))["y"]):
        try:
            results.append(call(x, t).tobytes())
        except ValueError as error:
            results.append(str(error))
    assert results[0] == results[1]
    assert calls.general == before + general
    np.testing.assert_array_equal(calls.call(*data(3)), expected(*data(3)))


def test_large_arrays_are_cast_the_general_way(forward_artifact):
    calls = Calls(forward_artifact, ("x",), "y")
    calls.route = replace(calls.route, casts=True)
    x = np.ones((5000, 1), np.float32)
    for _ in range(3):
        np.testing.assert_array_equal(calls.call(x), 3 * x)
    assert calls.general == 3


def test_read_only_arrays_and_foreign_buffers_fit(step_artifact):
    calls = step(step_artifact, "y")
    x, t = data(4)
    x.flags.writeable = False
    for given in (x, x, memoryview(x), x.view(np.recarray), np.ma.masked_array(x)):
        np.testing.assert_array_equal(calls.call(given, t), expected(x, t))
    assert calls.general == 1


WRONG = {
    "width": lambda x, t: (x[:, :2].copy(), t),
    "rank": lambda x, t: (x[0], t),
    "batch": lambda x, t: (x, t[:3].copy()),
    "no rows of x": lambda x, t: (x[:0], t),
    "empty": lambda x, t: (x[:0], t[:0]),
    "complex": lambda x, t: (x + 0j, t),
    "none": lambda x, t: (None, t),
    "text": lambda x, t: ("x", t),
    "float labels": lambda x, t: (x, t * 1.0),
    "label": lambda x, t: (x, np.array([0, 1, 10, 2])),
    "NaN": lambda x, t: (np.where(x == x[1, 1], np.float32("nan"), x), t),
    "few": lambda x, t: (x,),
    "many": lambda x, t: (x, t, t),
}


@pytest.mark.parametrize("kind", WRONG)
def test_errors_are_those_of_the_general_way(step_artifact, kind):
    calls = step(step_artifact, "y")
    x, t = data(4)
    calls.call(x, t)
    wrong = WRONG[kind](x, t)
    with pytest.raises((ValueError, TypeError)) as usual:
        calls.run(*wrong)
    for _ in range(2):
        with pytest.raises(type(usual.value)) as error:
            calls.call(*wrong)
        assert str(error.value) == str(usual.value)
    assert calls.state["count"] == 1
    np.testing.assert_array_equal(calls.call(x, t), expected(x, t))
    np.testing.assert_array_equal(calls.call(x, t), expected(x, t))
    assert calls.state["count"] == 3


def test_keywords_go_the_general_way(forward_artifact):
    session = Session(forward_artifact)
    call = direct(lambda x: session({"x": x})["y"], lambda: Route(session, ("x",), "y"))
    for _ in range(3):
        assert call(x=np.ones((1, 1))) == 3
        assert call(np.ones((1, 1))) == 3
    with pytest.raises(TypeError, match="unexpected keyword argument 'z'"):
        call(np.ones((1, 1)), z=1)


def test_a_call_within_a_call(forward_artifact):
    session = Session(forward_artifact)

    def general(x):
        return session({"x": x})["y"] if isinstance(x, np.ndarray) else call(np.array([[x]])) + 0

    call = direct(general, lambda: Route(session, ("x",), "y"))
    assert [call(1.0)[0, 0], call(np.ones((1, 1)))[0, 0], call(2.0)[0, 0]] == [3, 3, 6]


# --------------------------------------------------------------------------- memory


def test_no_reference_is_lost_or_kept(step_artifact):
    for output, number in (("y", False), ("loss", True), (None, False)):
        for rows in (4, 500):
            calls = step(step_artifact, output, number)
            x, t = data(rows)
            bad = np.full(rows, 11)
            calls.call(x, t)
            watched = (x, t, bad, calls.call, calls.route, calls.session, None, True, np.empty)
            gc.collect()
            before = [sys.getrefcount(value) for value in watched]
            for _ in range(100):
                result = calls.call(x, t)
                with pytest.raises(ValueError):
                    calls.call(x, bad)
                result = calls.call(x, t)
            assert sys.getrefcount(result) <= 2
            del result
            gc.collect()
            after = [sys.getrefcount(value) for value in watched]
            changes = [a - b for a, b in zip(after, before, strict=True)]
            assert max(map(abs, changes)) < 20, changes


def test_memory_does_not_grow(step_artifact, forward_artifact):
    loss, x, t = step(step_artifact, "loss", number=True), *data(4)
    y, big = Calls(forward_artifact, ("x",), "y"), np.ones((500, 1))

    def work(n):
        for _ in range(n):
            loss.call(x, t)
            y.call(big)
            y.call(big[:3])
            y.call([1.0])

    work(200)
    gc.collect()
    before = sys.getallocatedblocks()
    work(2000)
    gc.collect()
    assert sys.getallocatedblocks() - before < 200


def test_a_callable_keeps_what_it_needs_and_goes_with_it(forward_artifact):
    def make():
        session = Session(forward_artifact)
        gone = weakref.ref(session)
        return direct(lambda x: session({"x": x})["y"], lambda: Route(session, ("x",), "y")), gone

    call, gone = make()
    gc.collect()
    for _ in range(3):
        assert call(np.ones((1, 1))) == 3
    gc.collect()
    assert gone() is not None
    assert call(np.ones((1, 1))) == 3
    del call
    gc.collect()
    assert gone() is None


def test_arguments_are_free_after_the_call(forward_artifact):
    calls = Calls(forward_artifact, ("x",), "y")
    x = np.ones((4, 1))
    for _ in range(3):
        calls.call(x)
    x.resize((400, 1), refcheck=False)  # a buffer still held would forbid it
    buffer = bytearray(32)
    view = np.frombuffer(buffer).reshape(4, 1)
    calls.call(view)
    del view
    buffer.extend(b"1")


# --------------------------------------------------------------------------- threads


@pytest.mark.parametrize("rows", [4, 300, 5000])
def test_threads_may_share_a_callable(step_artifact, rows):
    calls = step(step_artifact, "y")
    x, t = data(rows)
    calls.call(x, t)
    wrong = []

    def work(seed):
        mine, labels = data(rows, seed)
        for i in range(60):
            given = (mine.tolist() if i % 20 == 7 else mine), labels
            if not np.array_equal(calls.call(*given), expected(mine, labels)):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert calls.state["count"] == 4 * 60 + 1


def test_a_writer_is_waited_for(step_artifact):
    calls = step(step_artifact, "loss", number=True)
    x, t = data(4)
    calls.call(x, t)
    done = threading.Event()

    def work():
        calls.call(x, t)
        done.set()

    with calls.state.lock:
        thread = threading.Thread(target=work)
        thread.start()
        assert not done.wait(0.05)
        assert calls.state["count"] == 1
    thread.join()
    assert calls.state["count"] == 2
    assert calls.general == 1


def test_long_calls_let_other_threads_run(step_artifact):
    flags = []
    for rows in (4, 5000):
        calls = step(step_artifact, "y")
        calls.call(*data(rows))
        flags.append(int(calls.call.__module__.context.slots[Slot.DETACH]))
    assert flags == [0, 1]


# --------------------------------------------------------------------------- fixed buffers


def test_bound_calls_give_what_is_asked_for(step_artifact):
    calls = step(step_artifact)
    x, t = data(4)
    bound = calls.session.bind({"x": x, "target": t})
    loss = bound.callable(lambda results: float(results["loss"]), number="loss")
    live = bound.callable(lambda results: results["y"], live=True)
    each = bound.callable(lambda results: (float(results["loss"]), results["y"].copy()))
    want = expected(x, t)
    for _ in range(3):
        assert type(loss()) is float
        np.testing.assert_allclose(loss(), want.sum() / 4, rtol=1e-5)
        assert live() is bound.outputs["y"]
        np.testing.assert_array_equal(each()[1], want)
    assert calls.state["count"] == 12
    bound.inputs["x"][...] = 0
    np.testing.assert_array_equal(live(), expected(0 * x, t))
    bound.inputs["target"][2] = 11
    for call in (loss, live, each):
        with pytest.raises(ValueError, match=r"'target' at \[2\] is 11"):
            call()
    with pytest.raises(TypeError):
        loss(1)
    assert calls.state["count"] == 13


def test_bound_calls_lose_no_references(step_artifact):
    calls = step(step_artifact)
    x, t = data(4)
    bound = calls.session.bind({"x": x, "target": t})
    live = bound.callable(lambda results: results["y"], live=True)
    before = sys.getrefcount(bound.outputs["y"]), sys.getrefcount(live)
    for _ in range(500):
        live()
    assert (sys.getrefcount(bound.outputs["y"]), sys.getrefcount(live)) == before
