"""Takes the events of a training run, gives the user's code a turn at each of them."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

Logs = Mapping[str, float]


class Callback:
    """Base of callbacks, with the methods that Keras has; `self.model` is the model in training.

    Set `self.model.stop_training = True` to end the run after the present epoch.
    """

    model: Any = None
    params: Mapping[str, Any] = {}

    def set_model(self, model: Any) -> None:
        self.model = model

    def set_params(self, params: Mapping[str, Any]) -> None:
        self.params = params

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Before the first epoch."""

    def on_train_end(self, logs: Logs | None = None) -> None:
        """After the last epoch, with its logs."""

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Before epoch number `epoch`, counted from 0."""

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """After an epoch; logs hold loss, metrics and val_..."""


class LambdaCallback(Callback):
    """A plain function `f(epoch, logs)`, called after every epoch."""

    def __init__(self, function: Callable[[int, Logs], object]) -> None:
        self._function = function

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self._function(epoch, logs or {})


class EarlyStopping(Callback):
    """Ends training when `monitor` has not improved by `min_delta` for `patience` epochs.

    mode "auto" takes names that end in accuracy, precision, recall, f1, auc, r2 or top_5 as better
    when larger.
    `restore_best` puts back the parameters of the best epoch at the end.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        patience: int = 0,
        min_delta: float = 0.0,
        restore_best: bool = False,
        *,
        mode: str = "auto",
    ) -> None:
        if mode not in ("auto", "min", "max"):
            raise ValueError(f"mode must be 'auto', 'min' or 'max', not {mode!r}")
        if patience < 0:
            raise ValueError(f"patience must not be negative, got {patience}")
        larger = re.search(r"(acc|accuracy|precision|recall|f1|auc|r2|top_\d+)$", monitor)
        self.monitor = monitor
        self.patience = patience
        self.min_delta = abs(min_delta)
        self.restore_best = restore_best
        self._sign = -1.0 if mode == "max" or (mode == "auto" and larger) else 1.0
        self._begin()

    def _begin(self) -> None:
        self.best = float("nan")
        self.best_epoch = -1
        self.stopped_epoch: int | None = None
        self._kept: dict[str, Any] | None = None
        self._warned = False

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self._begin()

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        value = (logs or {}).get(self.monitor)
        if value is None:
            if not self._warned:
                known = ", ".join(logs or {}) or "nothing"
                warnings.warn(
                    f"EarlyStopping monitors '{self.monitor}', but the logs have {known}",
                    RuntimeWarning,
                    stacklevel=2,
                )
                self._warned = True
            return
        if self.best_epoch < 0 or self._better(value):
            if value == value:
                self.best = float(value)
            self.best_epoch = epoch
            if self.restore_best:
                self._kept = {n: array.copy() for n, array in self.model.parameters.items()}
        elif epoch - self.best_epoch >= max(1, self.patience):
            self.stopped_epoch = epoch
            self.model.stop_training = True

    def _better(self, value: float) -> bool:
        if self.best != self.best:
            return value == value  # any number is better than none
        return self._sign * (self.best - value) > self.min_delta

    def on_train_end(self, logs: Logs | None = None) -> None:
        if self._kept is not None:
            for name, array in self._kept.items():
                self.model.parameters[name] = array
            self._kept = None


class CallbackList:
    """Calls the same event of several callbacks, in order; plain functions count as callbacks."""

    def __init__(self, callbacks: Iterable[Any], model: Any, params: Mapping[str, Any]) -> None:
        if callable(callbacks) or hasattr(callbacks, "on_epoch_end"):
            callbacks = (callbacks,)
        self._callbacks = [_as_callback(callback) for callback in callbacks]
        self.call("set_params", params)
        self.call("set_model", model)

    def call(self, event: str, *arguments: Any) -> None:
        for callback in self._callbacks:
            if method := getattr(callback, event, None):
                method(*arguments)


def _as_callback(callback: Any) -> Any:
    events = ("on_epoch_end", "on_epoch_begin", "on_train_begin", "on_train_end")
    if isinstance(callback, type):
        raise TypeError(f"pass an object, not the class {callback.__name__}: {callback.__name__}()")
    if any(hasattr(callback, event) for event in events):
        return callback
    if callable(callback):
        return LambdaCallback(callback)
    raise TypeError(f"{callback!r} is neither a Callback nor a function of (epoch, logs)")
