"""Takes a linear model in NumPy, gives the laws of fit: order, weights, validation, callbacks."""

from __future__ import annotations

import numpy as np
import pytest

from runtime.callbacks import Callback, LambdaCallback
from runtime.monitors import EarlyStopping
from runtime.progress import progress, verbosity
from runtime.state import State
from runtime.trainer import count_rows, fit


class Linear:
    """y = x w by gradient descent on the weighted squared error; keeps the rows of every batch."""

    goes_on = False

    def __init__(self, seed=0, rate=0.1):
        self.seed, self.epoch, self.stop_training, self.history = seed, 0, False, None
        self.parameters = State({"w": np.zeros(1)})
        self.rate = rate
        self.seen = []
        self.weights = []

    def pack(self, x, t, sample_weight=None):
        data = {"x": x, "target": np.asarray(t)}
        if sample_weight is not None:
            data["sample_weight"] = np.asarray(sample_weight)
        return data

    def train_batch(self, data):
        x, t = np.asarray(data["x"], float), data["target"]
        weight = data.get("sample_weight", np.ones(len(x)))
        self.seen.append(x.copy())
        self.weights.append(weight)
        error = x * self.parameters["w"] - t
        self.parameters["w"] -= self.rate * np.mean(weight * error * x)
        return {"loss": float(np.mean(weight * error**2)), "metric:mean": float(x.mean())}, len(x)

    def train_epoch(self, data, batch_size, order):
        order = np.arange(count_rows(data)) if order is None else order
        sums = np.zeros(2)
        for first in range(0, len(order), batch_size):
            rows = order[first : first + batch_size]
            scalars, count = self.train_batch({n: a[rows] for n, a in data.items()})
            sums += np.array(list(scalars.values())) * count
        return dict(zip(["loss", "metric:mean"], sums / len(order), strict=True))

    def evaluate_data(self, data, batch_size):
        error = data["x"] * self.parameters["w"] - data["target"]
        weight = data.get("sample_weight", 1.0)
        return {"loss": float(np.mean(weight * error**2))}


X = np.linspace(-1, 1, 10)
T = 2 * X


def test_fit_learns_and_records():
    model = Linear()
    history = fit(model, X, T, epochs=200, batch_size=4)
    assert model.parameters["w"][0] == pytest.approx(2, abs=1e-3)
    assert list(history.history) == ["loss", "mean"]
    assert history.history["mean"][0] == pytest.approx(X.mean())  # weighted by rows: 4, 4, 2
    assert history.epoch == list(range(200))
    assert history is model.history
    assert "200 epochs" in repr(history)


def test_shuffles_depend_on_seed_and_epoch_alone():
    runs = []
    for splits in ((3,), (1, 2)):
        model = Linear(seed=5)
        for epochs in splits:
            fit(model, X, T, epochs=epochs, batch_size=4)
        runs.append(np.concatenate(model.seen))
    np.testing.assert_array_equal(runs[0], runs[1])
    assert len({tuple(e) for e in runs[0].reshape(3, 10)}) == 3
    np.testing.assert_array_equal(runs[0][:10], X[np.random.default_rng((5, 0)).permutation(10)])
    plain = Linear()
    fit(plain, X, T, epochs=1, shuffle=False)
    np.testing.assert_array_equal(plain.seen[0], X)


def test_validation_split_takes_the_last_rows():
    model = Linear()
    history = fit(model, X, T, epochs=2, validation_split=0.25, batch_size=100)
    np.testing.assert_array_equal(np.sort(model.seen[0]), X[:7])
    assert list(history.history) == ["loss", "mean", "val_loss"]


def test_validation_data_with_weights():
    history = fit(Linear(rate=0.0), X, T, validation_data=(X, T, np.arange(10) == 9))
    assert history.history["val_loss"] == [pytest.approx(0.4)]


def test_class_weights_multiply_sample_weights():
    model = Linear()
    labels = np.arange(10) % 2
    fit(model, X, labels, shuffle=False, class_weight={1: 3.0}, sample_weight=np.arange(10))
    np.testing.assert_array_equal(model.weights[0], np.arange(10) * np.where(labels, 3, 1))
    one_hot = np.eye(2)[labels]
    packed = []
    model.pack = lambda x, t, w: packed.append(w) or {"x": x, "target": labels}
    fit(model, X, one_hot, class_weight={1: 3.0})
    np.testing.assert_array_equal(packed[0], np.where(labels, 3, 1))
    with pytest.raises(ValueError, match="class labels or their probabilities"):
        fit(model, X, 2.0 * one_hot, class_weight={1: 3.0})


def test_iterables_of_batches():
    batches = [(X[:4], T[:4]), (X[4:], T[4:], np.ones(6))]
    model = Linear()
    history = fit(model, batches, epochs=2)
    assert len(model.seen) == 4
    assert history.history["mean"][0] == pytest.approx(X.mean())
    fit(Linear(), iter(batches))
    with pytest.raises(ValueError, match="used up after one epoch"):
        fit(Linear(), iter(batches), epochs=2)
    with pytest.raises(ValueError, match="empty data set"):
        fit(Linear(), iter([]))
    with pytest.raises(ValueError, match="must be"):
        fit(Linear(), iter([X]))
    with pytest.raises(ValueError, match="validation_split"):
        fit(Linear(), iter(batches), validation_split=0.5)


def test_memory_mapped_arrays(tmp_path):
    np.save(tmp_path / "x.npy", X)
    model = Linear()
    fit(model, np.load(tmp_path / "x.npy", mmap_mode="r"), T, epochs=3, validation_split=0.2)
    assert len(np.concatenate(model.seen)) == 24


@pytest.mark.parametrize(
    "arguments",
    [
        {"epochs": -1},
        {"epochs": 1.5},
        {"batch_size": 0},
        {"validation_split": 1.0},
        {"validation_split": 0.99},
        {"validation_data": X},
        {"validation_data": (X[:0], T[:0])},
        {"verbose": "loud"},
    ],
)
def test_wrong_arguments(arguments):
    with pytest.raises(ValueError):
        fit(Linear(), X, T, **arguments)
    with pytest.raises(ValueError, match="empty data set"):
        fit(Linear(), X[:0], T[:0])


def test_callbacks_see_the_model_and_may_stop():
    events = []

    class Watch(Callback):
        def on_train_begin(self, logs=None):
            events.append("begin")

        def on_epoch_begin(self, epoch, logs=None):
            events.append(epoch)

        def on_epoch_end(self, epoch, logs=None):
            assert "loss" in logs
            self.model.stop_training = epoch == 1

        def on_train_end(self, logs=None):
            events.append("end")

    model, lines = Linear(), []
    fit(model, X, T, epochs=9, callbacks=[Watch(), lambda epoch, logs: lines.append(epoch)])
    assert events == ["begin", 0, 1, "end"]
    assert lines == [0, 1]
    fit(model, X, T, callbacks=Watch())
    for wrong in ([Watch], [3]):
        with pytest.raises(TypeError):
            fit(model, X, T, callbacks=wrong)


def test_functions_may_take_every_event():
    seen = []
    events = LambdaCallback(
        lambda epoch, logs: seen.append(("end", epoch, "loss" in logs)),
        on_epoch_begin=lambda epoch, logs: seen.append(("begin", epoch)),
        on_train_begin=lambda logs: seen.append("first"),
        on_train_end=lambda logs: seen.append("last"),
    )
    fit(Linear(), X, T, epochs=1, callbacks=[events, LambdaCallback()])
    assert seen == ["first", ("begin", 0), ("end", 0, True), "last"]


def test_batches_may_be_lists():
    tuples, lists = Linear(), Linear()
    fit(tuples, [(X[:5], T[:5]), (X[5:], T[5:])])
    fit(lists, [[X[:5], T[:5]], [X[5:], T[5:]]])
    np.testing.assert_array_equal(tuples.parameters["w"], lists.parameters["w"])


def stopper(values, **arguments):
    model, stop = Linear(), EarlyStopping("score", **arguments)
    stop.set_model(model)
    stop.on_train_begin()
    for epoch, value in enumerate(values):
        model.parameters["w"][:] = epoch
        stop.on_epoch_end(epoch, {"score": value})
        if model.stop_training:
            break
    stop.on_train_end()
    return epoch, stop, model


def test_early_stopping():
    assert stopper([3, 2, 2.5, 2.6, 1], patience=2)[0] == 3
    assert stopper([3, 2, 2.5, 1, 1], patience=2)[0] == 4
    assert stopper([3, 2.9, 2.8], patience=1, min_delta=0.5)[0] == 1
    assert stopper([1, 2, 3, 2], mode="max", patience=1)[0] == 3
    assert stopper([float("nan"), 5, 4, 9], patience=1)[0] == 3
    epoch, stop, model = stopper([3, 2, 5, 6], patience=2, restore_best=True)
    assert (epoch, stop.best, stop.best_epoch, model.parameters["w"][0]) == (3, 2, 1, 1)
    with pytest.warns(RuntimeWarning, match="val_loss"):
        fit(Linear(), X, T, epochs=3, callbacks=[EarlyStopping()])


@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value")
def test_a_nan_loss_warns_once():
    with pytest.warns(RuntimeWarning, match="loss of epoch") as record:
        fit(Linear(rate=1e200), X, T, epochs=5, batch_size=2)
    assert len([r for r in record if "loss of epoch" in str(r.message)]) == 1


def test_an_interrupt_leaves_the_model_usable():
    def interrupt(epoch, logs):
        if epoch == 2:
            raise KeyboardInterrupt

    model = Linear()
    with pytest.raises(KeyboardInterrupt):
        fit(model, X, T, epochs=9, callbacks=[interrupt])
    assert model.history.epoch == [0, 1, 2]
    fit(model, X, T)


def test_lines_go_to_stderr(capsys):
    fit(Linear(), X, T, epochs=2, verbose=2)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines()[1].startswith("epoch 2/2  loss ")
    fit(Linear(), X, T, epochs=2, verbose="auto")
    assert capsys.readouterr().err == ""
    fit(Linear(), X, T, epochs=2, verbose=1)
    assert "loss" in capsys.readouterr().err


def test_verbosity():
    assert [verbosity(v) for v in (0, 1, 2, True, False)] == [0, 1, 2, 1, 0]
    progress(3, 0).close()
