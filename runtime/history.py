"""Takes the logs of every epoch, gives the record that `fit` returns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class History:
    """`history`: name -> a value per epoch; `epoch`: the epochs' numbers; `params`: fit's settings.

    A name that is missing in some epoch stands there as NaN, so that all lists are equally long.
    """

    def __init__(self, params: Mapping[str, Any] | None = None) -> None:
        self.history: dict[str, list[float]] = {}
        self.epoch: list[int] = []
        self.params: dict[str, Any] = dict(params or {})

    def record(self, epoch: int, logs: Mapping[str, float]) -> None:
        done = len(self.epoch)
        self.epoch.append(epoch)
        for name, value in logs.items():
            self.history.setdefault(name, [float("nan")] * done).append(float(value))
        for values in self.history.values():
            values.extend([float("nan")] * (done + 1 - len(values)))

    def __repr__(self) -> str:
        last = ", ".join(f"{name} {values[-1]:.4g}" for name, values in self.history.items())
        return f"History({len(self.epoch)} epochs{': ' + last if last else ''})"
