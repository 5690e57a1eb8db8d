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
    """Functions as callbacks: f(epoch, logs) at the end or begin of epochs, f(logs) of the run."""

    def __init__(
        self,
        on_epoch_end: Callable[[int, Logs], object] | None = None,
        on_epoch_begin: Callable[[int, Logs], object] | None = None,
        on_train_begin: Callable[[Logs], object] | None = None,
        on_train_end: Callable[[Logs], object] | None = None,
    ) -> None:
        self._epoch_end, self._epoch_begin = on_epoch_end, on_epoch_begin
        self._train_begin, self._train_end = on_train_begin, on_train_end

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if self._epoch_end is not None:
            self._epoch_end(epoch, logs or {})

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        if self._epoch_begin is not None:
            self._epoch_begin(epoch, logs or {})

    def on_train_begin(self, logs: Logs | None = None) -> None:
        if self._train_begin is not None:
            self._train_begin(logs or {})

    def on_train_end(self, logs: Logs | None = None) -> None:
        if self._train_end is not None:
            self._train_end(logs or {})


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
