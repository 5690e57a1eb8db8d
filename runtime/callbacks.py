"""Takes the events of a training run, gives the user's code a turn at each of them."""

from __future__ import annotations

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
