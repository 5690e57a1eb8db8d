"""Takes the logs of every epoch, gives the user a bar (tqdm, where installed) or plain lines."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any, Protocol


class Progress(Protocol):
    def epoch(self, number: int, logs: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


def verbosity(verbose: str | int | bool) -> int:
    """0 nothing, 1 a bar, 2 a line per epoch; "auto" is 1 where stderr is a terminal, else 0."""
    if verbose == "auto":
        return int(bool(sys.stderr) and sys.stderr.isatty())
    if verbose in (0, 1, 2):
        return int(verbose)
    raise ValueError(f"verbose must be 'auto', 0, 1 or 2, not {verbose!r}")


def progress(epochs: int, verbose: str | int | bool) -> Progress:
    """What shows a run of that many epochs."""
    level = verbosity(verbose)
    if level == 0:
        return Silent()
    if level == 1:
        try:
            from tqdm.auto import tqdm  # an extra
        except ImportError:
            return Lines(epochs, rewrite=sys.stderr.isatty())
        return Bar(tqdm(total=epochs, unit="epoch"))
    return Lines(epochs, rewrite=False)


class Silent:
    def epoch(self, number: int, logs: Mapping[str, float]) -> None:
        pass

    def close(self) -> None:
        pass


class Bar:
    def __init__(self, bar: Any) -> None:
        self._bar = bar

    def epoch(self, number: int, logs: Mapping[str, float]) -> None:
        self._bar.set_postfix({name: f"{value:.4g}" for name, value in logs.items()}, refresh=False)
        self._bar.update()

    def close(self) -> None:
        self._bar.close()


class Lines:
    """A line per epoch on stderr, or one line written over at most ten times a second."""

    def __init__(self, epochs: int, *, rewrite: bool) -> None:
        self._epochs = epochs
        self._rewrite = rewrite
        self._shown = 0.0
        self._open = False

    def epoch(self, number: int, logs: Mapping[str, float]) -> None:
        now = time.monotonic()
        if self._rewrite and now - self._shown < 0.1 and number + 1 < self._epochs:
            return
        self._shown = now
        values = "  ".join(f"{name} {value:.4g}" for name, value in logs.items())
        line = f"epoch {number + 1}/{self._epochs}  {values}"
        if self._rewrite:
            print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
            self._open = True
        else:
            print(line, file=sys.stderr, flush=True)

    def close(self) -> None:
        if self._open:
            print(file=sys.stderr)
