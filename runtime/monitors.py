"""Takes the logs of every epoch, gives what follows when a number in them improves or does not."""

from __future__ import annotations

import os
import re
import warnings
from typing import Any

from runtime.callbacks import Callback, Logs

_LARGER = re.compile(r"(acc|accuracy|precision|recall|f1|auc|r2|top_\d+)$")


def larger_is_better(monitor: str) -> bool:
    """Whether a value of that name in the logs is a score: anything else is taken for a loss."""
    return _LARGER.search(monitor) is not None


class Monitor(Callback):
    """Base of callbacks that watch `monitor`, a name in the logs; knows its best value and epoch.

    mode "auto" takes names that end in accuracy, precision, recall, f1, auc, r2 or top_5 as better
    when larger; a value is better when it differs from the best by more than `min_delta`.
    """

    def __init__(self, monitor: str, min_delta: float, mode: str) -> None:
        if mode not in ("auto", "min", "max"):
            raise ValueError(f"mode must be 'auto', 'min' or 'max', not {mode!r}")
        larger = mode == "max" or (mode == "auto" and larger_is_better(monitor))
        self.monitor = monitor
        self.min_delta = abs(min_delta)
        self._sign = -1.0 if larger else 1.0
        self._begin()

    def _begin(self) -> None:
        self.best = float("nan")
        self.best_epoch = -1
        self._warned = False

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self._begin()

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        value = (logs or {}).get(self.monitor)
        if value is None:
            self._warn_once(logs or {})
        elif self.best_epoch < 0 or self._better(value):
            if value == value:
                self.best = float(value)
            self.best_epoch = epoch
            self.on_better(epoch, logs or {})
        else:
            self.on_worse(epoch, logs or {})

    def on_better(self, epoch: int, logs: Logs) -> None:
        """After the first epoch and after each that is better than all before."""

    def on_worse(self, epoch: int, logs: Logs) -> None:
        """After every other epoch."""

    def _better(self, value: float) -> bool:
        if self.best != self.best:
            return value == value  # any number is better than none
        return self._sign * (self.best - value) > self.min_delta

    def _warn_once(self, logs: Logs) -> None:
        if not self._warned:
            known = ", ".join(logs) or "nothing"
            warnings.warn(
                f"{type(self).__name__} monitors '{self.monitor}', but the logs have {known}",
                RuntimeWarning,
                stacklevel=3,
            )
            self._warned = True


class EarlyStopping(Monitor):
    """Ends training when `monitor` has not improved by `min_delta` for `patience` epochs.

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
        self.patience = _count("patience", patience)
        self.restore_best = restore_best
        super().__init__(monitor, min_delta, mode)

    def _begin(self) -> None:
        super()._begin()
        self.stopped_epoch: int | None = None
        self._kept: dict[str, Any] | None = None

    def on_better(self, epoch: int, logs: Logs) -> None:
        if self.restore_best:
            self._kept = {n: array.copy() for n, array in self.model.parameters.items()}

    def on_worse(self, epoch: int, logs: Logs) -> None:
        if epoch - self.best_epoch >= max(1, self.patience):
            self.stopped_epoch = epoch
            self.model.stop_training = True

    def on_train_end(self, logs: Logs | None = None) -> None:
        if self._kept is not None:
            for name, array in self._kept.items():
                self.model.parameters[name] = array
            self._kept = None


class ReduceLROnPlateau(Monitor):
    """Multiplies the learning rate by `factor` when `monitor` has not improved for `patience`
    epochs, then waits for `cooldown` epochs; never below `min_lr`."""

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        min_delta: float = 1e-4,
        *,
        cooldown: int = 0,
        min_lr: float = 0.0,
        mode: str = "auto",
    ) -> None:
        if not 0.0 <= factor < 1.0:
            raise ValueError(f"factor must be in [0, 1), not {factor}")
        if min_lr < 0.0:
            raise ValueError(f"min_lr must not be negative, got {min_lr}")
        self.factor = factor
        self.patience = _count("patience", patience)
        self.cooldown = _count("cooldown", cooldown)
        self.min_lr = min_lr
        super().__init__(monitor, min_delta, mode)

    def _begin(self) -> None:
        super()._begin()
        self._waited = 0
        self._resting = 0

    def on_better(self, epoch: int, logs: Logs) -> None:
        self._waited = 0
        self._resting = max(0, self._resting - 1)

    def on_worse(self, epoch: int, logs: Logs) -> None:
        if self._resting:
            self._resting -= 1
            self._waited = 0
            return
        self._waited += 1
        rate = self.model.learning_rate
        if self._waited >= max(1, self.patience) and rate > self.min_lr:
            self.model.learning_rate = max(rate * self.factor, self.min_lr)
            self._waited, self._resting = 0, self.cooldown


class ModelCheckpoint(Monitor):
    """Saves the model after every epoch, or after those that are the best so far.

    `path` may hold fields: "m-{epoch:02d}-{val_loss:.2f}.nnc"; epochs count from 1 there. With
    `save_weights_only` it names an .npz or .safetensors file. A file is complete or not there.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        monitor: str = "val_loss",
        save_best_only: bool = False,
        save_weights_only: bool = False,
        *,
        mode: str = "auto",
    ) -> None:
        self.path = os.fspath(path)
        self.save_best_only = save_best_only
        self.save_weights_only = save_weights_only
        super().__init__(monitor, 0.0, mode)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if self.save_best_only:
            super().on_epoch_end(epoch, logs)
        else:
            self._save(epoch, logs or {})

    def on_better(self, epoch: int, logs: Logs) -> None:
        self._save(epoch, logs)

    def _save(self, epoch: int, logs: Logs) -> None:
        try:
            path = self.path.format(**{**logs, "epoch": epoch + 1})
        except KeyError as error:
            known = ", ".join(("epoch", *logs))
            raise ValueError(
                f"ModelCheckpoint's path '{self.path}' has the field {error}; there are {known}"
            ) from None
        save = self.model.save_weights if self.save_weights_only else self.model.save
        save(path)


def _count(name: str, value: int) -> int:
    if value < 0:
        raise ValueError(f"{name} must not be negative, got {value}")
    return value
