"""Takes two machines or two ways to a gradient, gives a table of largest errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from nncompiler.blueprint import Blueprint
from nncompiler.machine import Machine
from nncompiler.reference import Reference

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Comparison(Mapping[str, float]):
    """Largest errors by name; `details` has one row per array.

    An error is the largest |a - b| of an array, divided by the largest |b| where that exceeds 1e-3.
    """

    errors: Mapping[str, float]
    details: Mapping[str, float] = field(default_factory=dict)

    def __getitem__(self, name: str) -> float:
        return self.errors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.errors)

    def __len__(self) -> int:
        return len(self.errors)

    @property
    def worst(self) -> float:
        """The largest error of all; NaN where one is NaN."""
        return float(np.max([*self.errors.values(), 0.0]))

    def __str__(self) -> str:
        rows = {**self.errors, **{f"  {n}": v for n, v in self.details.items()}}
        width = max((len(n) for n in rows), default=0)
        return "\n".join(f"{name:{width}s}  {error:.2e}" for name, error in rows.items())


def largest_error(value: Array, expected: Array) -> float:
    """See Comparison; infinite where only one of them is, or shapes differ."""
    value, expected = np.asarray(value, np.float64), np.asarray(expected, np.float64)
    if value.shape != expected.shape:
        return float("inf")
    if value.size == 0:
        return 0.0
    same = (value == expected) | (np.isnan(value) & np.isnan(expected))
    if same.all():
        return 0.0
    with np.errstate(invalid="ignore"):
        error = float(np.max(np.where(same, 0.0, np.abs(value - expected))))
    scale = float(np.max(np.abs(expected), where=np.isfinite(expected), initial=0.0))
    return error / scale if scale > 1e-3 else error


def compare(model: Machine, reference: Machine, x: Any, t: Any = None) -> Comparison:
    """Outputs, and with targets loss and gradients, of both machines on the same data."""
    outputs = _by_name(model, model.forward(x))
    expected = _by_name(reference, reference.forward(x))
    rows = {name: largest_error(outputs[name], expected[name]) for name in expected}
    errors = {"outputs": max(rows.values())}
    details = {f"output {name}": error for name, error in rows.items()}
    if t is not None:
        loss, gradients = model.backward(x, t)
        wanted_loss, wanted = reference.backward(x, t)
        errors["loss"] = largest_error(np.asarray(loss), np.asarray(wanted_loss))
        found = {name: largest_error(gradients[name], wanted[name]) for name in wanted}
        errors["gradients"] = max(found.values(), default=0.0)
        details |= {f"gradient {name}": error for name, error in found.items()}
    return Comparison(errors, details)


def _by_name(machine: Machine, outputs: Any) -> Mapping[str, Array]:
    return outputs if isinstance(outputs, dict) else {machine.blueprint.outputs[0]: outputs}


def check_gradients(
    model: Machine, x: Any, t: Any, *, epsilon: float = 1e-5, samples: int = 20, seed: int = 0
) -> Comparison:
    """The model's gradients against central differences (f(p + eps) - f(p - eps)) / 2 eps.

    The differences are taken in float64 by NumPy, at `samples` entries of every parameter.
    """
    _, gradients = model.backward(x, t)
    settings = replace(model.blueprint.settings, dtype="float64")
    twin = Reference(Blueprint(model.blueprint.source, settings), dict(model.state))
    rng = np.random.default_rng(seed)
    errors = {}
    for name, gradient in gradients.items():
        parameter = twin.parameters[name]
        count = min(samples, parameter.size)
        chosen = rng.choice(parameter.size, count, replace=False)
        places = [np.unravel_index(i, parameter.shape) for i in chosen]
        differences = [
            _difference(lambda: twin.training_loss(x, t), parameter, place, epsilon)
            for place in places
        ]
        found = [gradient[place] for place in places]
        errors[name] = largest_error(np.asarray(found), np.asarray(differences))
    return Comparison(errors)


def _difference(
    function: Callable[[], float], parameter: Array, place: tuple[Any, ...], epsilon: float
) -> float:
    before = parameter[place].copy()
    values = []
    for sign in (1, -1):
        parameter[place] = before + sign * epsilon
        values.append(function())
    parameter[place] = before
    return (values[0] - values[1]) / (2 * epsilon)
