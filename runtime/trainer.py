"""Takes something that can be trained and the user's data, gives the history of a training run.

Compiled models and the NumPy reference share this loop, and with it the order of every batch.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from runtime.buffers import Array
from runtime.callbacks import CallbackList
from runtime.history import History
from runtime.progress import progress

Data = dict[str, Any]  # input id -> array, one row per example
Means = dict[str, float]


class Trainable(Protocol):
    """What `fit` needs of a model.

    seed, epoch     the order of the rows is default_rng((seed, epoch)); `epoch` counts the finished
                    epochs of the model's whole life, so that a saved model goes on as it would have
    stop_training   set by callbacks; cleared when fit begins
    history         the History of the last fit
    parameters      live arrays by name, for callbacks
    goes_on         whether the rows of a batch go on where those of the batch before stopped
    """

    seed: int
    epoch: int
    stop_training: bool
    history: Any

    @property
    def parameters(self) -> Any: ...

    @property
    def goes_on(self) -> bool: ...

    def pack(self, x: Any, t: Any, sample_weight: Any = None) -> Data:
        """Inputs by id; every array has one row per example. ValueError where they disagree."""

    def train_epoch(self, data: Data, batch_size: int, order: Array | None) -> Means:
        """Trains on all batches of the rows in that order; means over rows of loss and metrics."""

    def train_batch(self, data: Data) -> tuple[Means, int]:
        """Trains on one batch; its loss and metrics, and how many rows it had."""

    def evaluate_data(self, data: Data, batch_size: int) -> Means:
        """Loss and metrics without training."""


@dataclass(frozen=True)
class _Run:
    """What stays the same in all epochs."""

    target: Trainable
    data: Data | None  # None: batches come from an iterable
    batches: Any
    rows: int
    batch_size: int
    shuffle: bool
    class_weight: Mapping[int, float] | None
    validation: Data | None


def fit(
    target: Trainable,
    x: Any,
    t: Any = None,
    *,
    epochs: int = 1,
    batch_size: int = 32,
    validation_data: Any = None,
    validation_split: float = 0.0,
    shuffle: bool = True,
    callbacks: Any = (),
    verbose: str | int = "auto",
    sample_weight: Any = None,
    class_weight: Mapping[int, float] | None = None,
    model: Any = None,
) -> History:
    """Trains for some epochs; `model` is what callbacks see, the target itself by default.

    x and t are whole arrays (memory-mapped ones are read as needed), or x is an iterable of batches
    (x, t) or (x, t, sample_weight) that can be iterated once per epoch, and t is None.
    validation_split takes the last fraction of the rows, before they are shuffled. The history has
    "loss", the metrics, and the same with "val_", weighted by rows. ValueError on wrong arguments.
    After Ctrl-C the model is usable and `model.history` holds the finished epochs.
    """
    _check_counts(epochs, batch_size, validation_split)
    data = validation = None
    rows = 0
    if t is None and not _is_data(x):
        if validation_split or sample_weight is not None:
            raise ValueError(
                "validation_split and sample_weight need arrays; give an iterable's batches as "
                "(x, t, sample_weight) and its validation as validation_data"
            )
    else:
        data, validation, rows = _whole(target, x, t, sample_weight, class_weight, validation_split)
        if shuffle and target.goes_on:
            warnings.warn(
                "fit shuffles the rows, so what stateful layers carry from batch to batch goes to "
                "rows of other sequences: fit(..., shuffle=False) keeps their order",
                RuntimeWarning,
                stacklevel=3,
            )
    if validation_data is not None:
        validation = _validation(target, validation_data)
    run = _Run(target, data, x, rows, batch_size, shuffle, class_weight, validation)
    return _epochs(run, epochs, callbacks, verbose, target if model is None else model)


def _epochs(run: _Run, epochs: int, callbacks: Any, verbose: str | int, model: Any) -> History:
    params = {"epochs": epochs, "batch_size": run.batch_size, "rows": run.rows or None}
    history = History(params)
    model.history = history
    model.stop_training = False
    events = CallbackList(callbacks, model, params)
    shown = progress(epochs, verbose)
    logs: Means = {}
    try:
        events.call("on_train_begin", {})
        for number in range(epochs):
            events.call("on_epoch_begin", number, {})
            logs = _epoch(run, first=number == 0)
            history.record(number, logs)
            _warn_of_nan(history)
            shown.epoch(number, logs)
            events.call("on_epoch_end", number, logs)
            if model.stop_training:
                break
        events.call("on_train_end", logs)
    finally:
        shown.close()
    return history


def _epoch(run: _Run, *, first: bool) -> Means:
    target = run.target
    if run.data is None:
        means = _train_on_batches(run, first=first)
    else:
        order = None
        if run.shuffle:
            order = np.random.default_rng((target.seed, target.epoch)).permutation(run.rows)
        means = target.train_epoch(run.data, run.batch_size, order)
    target.epoch += 1
    logs = plain(means)
    if run.validation is not None:
        scores = plain(target.evaluate_data(run.validation, run.batch_size))
        logs |= {f"val_{name}": value for name, value in scores.items()}
    return logs


def _train_on_batches(run: _Run, *, first: bool) -> Means:
    sums: Means = {}
    rows = 0
    for batch in _batches(run.batches, first=first):
        x, t, weight = _parts(batch)
        weight = _weights(t, weight, run.class_weight)
        scalars, count = run.target.train_batch(run.target.pack(x, t, weight))
        for name, value in scalars.items():
            sums[name] = sums.get(name, 0.0) + float(value) * count
        rows += count
    return {name: value / rows for name, value in sums.items()}


def _batches(source: Iterable[Any], *, first: bool) -> Iterator[Any]:
    iterator = iter(source)
    try:
        batch = next(iterator)
    except StopIteration:
        if first:
            raise ValueError("empty data set: the iterable gives no batches") from None
        raise ValueError(
            "the iterable of batches is used up after one epoch; give one that can be iterated "
            "again, such as a list or an object with __iter__"
        ) from None
    return itertools.chain([batch], iterator)


def _whole(
    target: Trainable,
    x: Any,
    t: Any,
    sample_weight: Any,
    class_weight: Mapping[int, float] | None,
    validation_split: float,
) -> tuple[Data, Data | None, int]:
    """The packed rows to train on and to validate on, and the number of the former.

    Class weights count in training alone, as in Keras.
    """
    data = target.pack(x, t, _weights(t, sample_weight, class_weight))
    total = count_rows(data)
    if total == 0:
        raise ValueError("empty data set: there are no rows to train on")
    if not validation_split:
        return data, None, total
    rows = int(total * (1 - validation_split))
    if rows in (0, total):
        raise ValueError(
            f"validation_split={validation_split} of {total} rows leaves nothing to "
            f"{'train on' if rows == 0 else 'validate on'}"
        )
    scored = data if class_weight is None else target.pack(x, t, sample_weight)
    return (
        {name: array[:rows] for name, array in data.items()},
        {name: array[rows:] for name, array in scored.items()},
        rows,
    )


def _validation(target: Trainable, given: Any) -> Data:
    if not isinstance(given, (tuple, list)) or len(given) not in (2, 3):
        raise ValueError("validation_data must be (x, t) or (x, t, sample_weight)")
    data = target.pack(*_parts(given))
    if count_rows(data) == 0:
        raise ValueError("empty data set: validation_data has no rows")
    return data


def _weights(t: Any, sample_weight: Any, class_weight: Mapping[int, float] | None) -> Any:
    """Sample weights times the weight of each row's class; None where there is neither."""
    if class_weight is None:
        return sample_weight
    if not isinstance(class_weight, Mapping):
        raise TypeError(f"class_weight is a dict by class number, not {class_weight!r}")
    if isinstance(t, (dict, tuple)):
        raise ValueError("class_weight needs a single target of class labels")
    labels = np.asarray(t)
    if labels.ndim == 2 and labels.shape[1] > 1:
        if labels.size and not (labels.min() >= 0 and labels.max() <= 1):
            raise ValueError("class_weight needs class labels or their probabilities, not values")
        labels = labels.argmax(axis=1)
    elif labels.ndim == 2:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise ValueError(f"class_weight needs class labels, got a target of shape {labels.shape}")
    weights = np.ones(len(labels))
    for label, weight in class_weight.items():
        weights[labels == label] = weight
    return weights if sample_weight is None else weights * np.asarray(sample_weight)


def _parts(batch: Any) -> tuple[Any, Any, Any]:
    if not isinstance(batch, (tuple, list)) or len(batch) not in (2, 3):
        raise ValueError("each batch of an iterable must be (x, t) or (x, t, sample_weight)")
    return batch[0], batch[1], batch[2] if len(batch) == 3 else None


def _is_data(x: Any) -> bool:
    """Whether x is the data itself rather than an iterable of batches."""
    if isinstance(x, (Mapping, tuple)) or hasattr(x, "__array__") or not isinstance(x, Iterable):
        return True
    return isinstance(x, list) and not _is_batch(next(iter(x), None))


def _is_batch(entry: Any) -> bool:
    """Whether a list begins with a batch: a tuple, or a list of arrays as data loaders give."""
    if isinstance(entry, tuple):
        return True
    return isinstance(entry, list) and len(entry) in (2, 3) and hasattr(entry[0], "__array__")


def count_rows(data: Mapping[str, Any]) -> int:
    """How many examples packed data have."""
    return min((len(array) for array in data.values()), default=0)


def plain(means: Mapping[str, float]) -> Means:
    """Scalars under the names that users know: "metric:accuracy" is "accuracy"."""
    return {name.removeprefix("metric:"): float(value) for name, value in means.items()}


def _check_counts(epochs: int, batch_size: int, validation_split: float) -> None:
    if isinstance(epochs, bool) or not isinstance(epochs, (int, np.integer)) or epochs < 0:
        raise ValueError(f"epochs must be a whole number, at least 0, got {epochs!r}")
    if not isinstance(batch_size, (int, np.integer)) or batch_size < 1:
        raise ValueError(f"batch_size must be a whole number, at least 1, got {batch_size!r}")
    if not 0 <= validation_split < 1:
        raise ValueError(f"validation_split must be in [0, 1), got {validation_split!r}")


def _warn_of_nan(history: History) -> None:
    losses = history.history.get("loss", [])
    if losses and not math.isfinite(losses[-1]) and all(map(math.isfinite, losses[:-1])):
        warnings.warn(
            f"the loss of epoch {len(losses)} is {losses[-1]}: try a smaller learning rate or "
            "clip_norm",
            RuntimeWarning,
            stacklevel=5,
        )
