"""Takes a function that builds a model and a space of parameters, gives the best on validation.

    result = nnc.search(build, {"units": [16, 64], "rate": [0.01, 0.1]}, x, t, validation_split=0.2)
    result.best, result.model, print(result)

Trials are independent, so any concurrent.futures executor may run them.
"""

from __future__ import annotations

import inspect
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nncompiler.machine import Machine
from nncompiler.table import Table
from runtime.monitors import EarlyStopping, larger_is_better

Array = np.ndarray[Any, Any]
Build = Callable[..., Any]
Parameters = dict[str, Any]

FIT_PARAMETERS = ("epochs", "batch_size")  # of the space, where build does not take them


@dataclass(frozen=True)
class Trial:
    """One combination: its parameters, its best score, the run's history, or why it failed."""

    parameters: Parameters
    score: float
    epoch: int
    seconds: float
    history: Mapping[str, list[float]] = field(default_factory=dict, repr=False)
    error: str = ""


@dataclass(frozen=True)
class SearchResult:
    """All trials, best first, and the best model with the parameters of its best epoch."""

    trials: tuple[Trial, ...]
    monitor: str
    model: Any = field(repr=False)

    @property
    def best(self) -> Parameters:
        return self.trials[0].parameters

    @property
    def best_score(self) -> float:
        return self.trials[0].score

    def __iter__(self) -> Iterator[Trial]:
        return iter(self.trials)

    def __len__(self) -> int:
        return len(self.trials)

    def table(self) -> Table:
        names = list(dict.fromkeys(n for trial in self.trials for n in trial.parameters))
        rows = tuple(
            (
                *(_text(trial.parameters.get(n, "")) for n in names),
                f"{trial.score:.4f}" if not trial.error else f"failed: {trial.error}",
                str(trial.epoch + 1) if not trial.error else "",
                f"{trial.seconds:.2f}",
            )
            for trial in self.trials
        )
        return Table((*names, self.monitor, "epoch", "seconds"), rows)

    def __str__(self) -> str:
        return str(self.table())

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()


def search(
    build: Build,
    space: Mapping[str, Any],
    x: Any,
    t: Any,
    method: str = "grid",
    *,
    trials: int = 20,
    validation_split: float = 0.2,
    validation_data: Any = None,
    monitor: str = "val_loss",
    epochs: int = 20,
    batch_size: int = 32,
    early_stopping: int | None = 5,
    seed: int = 0,
    executor: Executor | None = None,
) -> SearchResult:
    """Trains `build(**parameters)` for every combination and orders them by the monitored value.

    space           name -> a sequence of values; for "random" also a function of a
                    numpy Generator, or an object with rvs (a SciPy distribution)
    method          "grid": all combinations; "random": `trials` drawn ones, without repetition
    early_stopping  how many epochs without improvement end a trial; None: never
    executor        runs the trials; for processes, build and its results must be picklable

    The names "epochs" and "batch_size" go to fit where build does not take them. A combination that
    fails is reported and comes last; ValueError where all of them fail.
    """
    combinations = _combinations(space, method, trials, seed)
    task = _Task(
        build,
        x,
        t,
        {"epochs": epochs, "batch_size": batch_size, "verbose": 0},
        validation_split if validation_data is None else 0.0,
        validation_data,
        monitor,
        early_stopping,
    )
    if executor is None:
        results = [task(parameters) for parameters in combinations]
    else:
        futures = [executor.submit(task, parameters) for parameters in combinations]
        results = [future.result() for future in futures]
    sign = -1.0 if larger_is_better(monitor) else 1.0
    order = sorted(range(len(results)), key=lambda i: _rank(results[i][0], sign))
    best, state = results[order[0]]
    if best.error:
        raise ValueError(f"all {len(results)} combinations fail; the first: {best.error}")
    model = task.build_model(best.parameters)
    model.state.restore(state)
    return SearchResult(tuple(results[i][0] for i in order), monitor, model)


@dataclass(frozen=True)
class _Task:
    """Everything that a trial needs besides its parameters; can be sent to another process."""

    build: Build
    x: Any
    t: Any
    fit: Mapping[str, Any]
    validation_split: float
    validation_data: Any
    monitor: str
    patience: int | None

    def __call__(self, parameters: Parameters) -> tuple[Trial, dict[str, Array]]:
        began = time.perf_counter()
        try:
            model = self.build_model(parameters)
            history, best = self._train(model, parameters)
        except ValueError as error:
            seconds = time.perf_counter() - began
            return Trial(parameters, float("nan"), -1, seconds, error=str(error)), {}
        score = history[self.monitor][best]
        seconds = time.perf_counter() - began
        return Trial(parameters, score, best, seconds, history), model.state.copy()

    def build_model(self, parameters: Parameters) -> Any:
        moved = self._for_fit(parameters)
        model = self.build(**{n: v for n, v in parameters.items() if n not in moved})
        if not isinstance(model, Machine):
            raise TypeError(
                f"build has to return a model, as nnc.compile gives it, not {_kind(model)}"
            )
        return model

    def _for_fit(self, parameters: Parameters) -> list[str]:
        taken = inspect.signature(self.build).parameters
        if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in taken.values()):
            return []
        return [n for n in FIT_PARAMETERS if n in parameters and n not in taken]

    def _train(self, model: Any, parameters: Parameters) -> tuple[dict[str, list[float]], int]:
        options = {**self.fit, **{n: parameters[n] for n in self._for_fit(parameters)}}
        patience = options["epochs"] if self.patience is None else self.patience
        stopping = EarlyStopping(self.monitor, patience=patience, restore_best=True)
        history = model.fit(
            self.x,
            self.t,
            validation_split=self.validation_split,
            validation_data=self.validation_data,
            callbacks=[stopping],
            **options,
        ).history
        if self.monitor not in history:
            raise ValueError(
                f"there is no '{self.monitor}' to search by; fit gives {', '.join(history)}"
            )
        return dict(history), stopping.best_epoch


def _combinations(
    space: Mapping[str, Any], method: str, trials: int, seed: int
) -> list[Parameters]:
    if not space:
        raise ValueError("the space of hyper-parameters is empty")
    if method == "grid":
        for name, values in space.items():
            if not _is_sequence(values) or not len(values):
                raise ValueError(f"a grid needs a list of values for '{name}', not {values!r}")
        return [
            dict(zip(space, values, strict=True)) for values in itertools.product(*space.values())
        ]
    if method == "random":
        return _draw(space, trials, seed)
    raise ValueError(f"method must be 'grid' or 'random', not {method!r}")


def _draw(space: Mapping[str, Any], trials: int, seed: int) -> list[Parameters]:
    """Different random combinations, fewer than `trials` where there are no more."""
    if trials < 1:
        raise ValueError(f"trials must be at least 1, got {trials}")
    rng = np.random.default_rng(seed)
    found: dict[str, Parameters] = {}
    for _ in range(20 * trials):
        drawn = {name: _draw_one(name, values, rng) for name, values in space.items()}
        found.setdefault(repr(drawn), drawn)
        if len(found) == trials:
            break
    return list(found.values())


def _draw_one(name: str, values: Any, rng: np.random.Generator) -> Any:
    if hasattr(values, "rvs"):
        return values.rvs(random_state=rng)
    if callable(values):
        return values(rng)
    if _is_sequence(values) and len(values):
        return values[int(rng.integers(len(values)))]
    raise ValueError(f"'{name}': expected values, a distribution or a function, not {values!r}")


def _is_sequence(values: Any) -> bool:
    return isinstance(values, (Sequence, np.ndarray, range)) and not isinstance(values, str)


def _kind(value: Any) -> str:
    return "None" if value is None else f"a {type(value).__name__}"


def _rank(trial: Trial, sign: float) -> float:
    return float("inf") if trial.error or trial.score != trial.score else sign * trial.score


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
