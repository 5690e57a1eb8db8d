"""Takes an initializer (name, pair, number, array, object), gives first values of parameters.

Values are drawn in double precision and rounded to the parameter's dtype, so that models of both
precisions start from the same weights.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np

from ir.types import DType
from nncompiler.errors import call_user
from nncompiler.frontend.names import suggest

Array = np.ndarray[Any, Any]
Fans = tuple[int, int]


@runtime_checkable
class Initializer(Protocol):
    """Anything that can draw the first values of a parameter."""

    def draw(
        self, rng: np.random.Generator, shape: Sequence[int], fans: Fans, dtype: DType
    ) -> Array: ...


@dataclass(frozen=True)
class Named:
    """An initializer of the table below with its parameters."""

    name: str
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def draw(
        self, rng: np.random.Generator, shape: Sequence[int], fans: Fans, dtype: DType
    ) -> Array:
        values = INITIALIZERS[self.name](rng, tuple(shape), fans, **self.parameters)
        return np.asarray(values, np.float64).astype(dtype.numpy)


@dataclass(frozen=True, eq=False)
class Given:
    """The values of an array; ValueError where its shape is another one."""

    array: Array

    def draw(
        self, rng: np.random.Generator, shape: Sequence[int], fans: Fans, dtype: DType
    ) -> Array:
        if self.array.shape != tuple(shape):
            raise ValueError(
                f"the initial array has shape {self.array.shape}, the parameter {tuple(shape)}"
            )
        return self.array.astype(dtype.numpy)


@dataclass(frozen=True, eq=False)
class Drawn:
    """A user's function (rng, shape) -> array."""

    function: Callable[[np.random.Generator, tuple[int, ...]], Any]

    def draw(
        self, rng: np.random.Generator, shape: Sequence[int], fans: Fans, dtype: DType
    ) -> Array:
        values = call_user("the initializer", self.function, rng, tuple(shape))
        return Given(np.asarray(values)).draw(rng, shape, fans, dtype)


def zeros(rng: np.random.Generator, shape: tuple[int, ...], fans: Fans) -> Array:
    return np.zeros(shape)


def ones(rng: np.random.Generator, shape: tuple[int, ...], fans: Fans) -> Array:
    return np.ones(shape)


def constant(
    rng: np.random.Generator, shape: tuple[int, ...], fans: Fans, value: float = 0.0
) -> Array:
    return np.full(shape, value, np.float64)


def uniform(
    rng: np.random.Generator,
    shape: tuple[int, ...],
    fans: Fans,
    low: float = -0.05,
    high: float = 0.05,
) -> Array:
    return rng.uniform(low, high, shape)


def normal(
    rng: np.random.Generator,
    shape: tuple[int, ...],
    fans: Fans,
    mean: float = 0.0,
    std: float = 1.0,
) -> Array:
    return rng.normal(mean, std, shape)


def glorot_uniform(
    rng: np.random.Generator, shape: tuple[int, ...], fans: Fans, gain: float = 1.0
) -> Array:
    """Uniform in [-b, b] with b = gain sqrt(6) / sqrt(fan_in + fan_out) (Glorot, Bengio)."""
    bound = gain * math.sqrt(6.0 / max(1, fans[0] + fans[1]))
    return rng.uniform(-bound, bound, shape)


def glorot_normal(
    rng: np.random.Generator, shape: tuple[int, ...], fans: Fans, gain: float = 1.0
) -> Array:
    """Normal with standard deviation gain sqrt(2 / (fan_in + fan_out))."""
    return rng.normal(0.0, gain * math.sqrt(2.0 / max(1, fans[0] + fans[1])), shape)


def he_uniform(rng: np.random.Generator, shape: tuple[int, ...], fans: Fans) -> Array:
    """Uniform in [-b, b] with b = sqrt(6 / fan_in)."""
    bound = math.sqrt(6.0 / max(1, fans[0]))
    return rng.uniform(-bound, bound, shape)


def he_normal(rng: np.random.Generator, shape: tuple[int, ...], fans: Fans) -> Array:
    """Normal with standard deviation sqrt(2 / fan_in)."""
    return rng.normal(0.0, math.sqrt(2.0 / max(1, fans[0])), shape)


def orthogonal(
    rng: np.random.Generator, shape: tuple[int, ...], fans: Fans, gain: float = 1.0
) -> Array:
    """Rows (or columns, whichever are fewer) of the matrix (shape[0], rest) are orthonormal."""
    if len(shape) < 2:
        raise ValueError(f"orthogonal needs a matrix, not a parameter of shape {shape}")
    rows, columns = shape[0], math.prod(shape[1:])
    tall = rng.normal(size=(max(rows, columns), min(rows, columns)))
    q, r = np.linalg.qr(tall)
    # the signs of R's diagonal make the distribution uniform over orthogonal matrices
    q = q * np.where(np.diagonal(r) < 0, -1.0, 1.0)
    return gain * (q if rows >= columns else q.T).reshape(shape)


INITIALIZERS: Mapping[str, Callable[..., Array]] = {
    f.__name__: f
    for f in (
        zeros,
        ones,
        constant,
        uniform,
        normal,
        glorot_uniform,
        glorot_normal,
        he_uniform,
        he_normal,
        orthogonal,
    )
}


def make_initializer(value: object) -> Initializer:
    """An initializer from a name, (name, {parameters}), number, array, function or object.

    Raises ValueError for an unknown name or parameter, TypeError for anything else.
    """
    match value:
        case str(name):
            return _named(name, {})
        case (str(name), dict(parameters)):
            return _named(name, parameters)
        case Initializer():
            return value
        case bool():
            raise TypeError(f"an initializer is a name, pair, number or array, not {value!r}")
        case int() | float() | np.number():
            return Named("constant", {"value": float(value)})
        case np.ndarray() | list() | tuple():
            return Given(np.asarray(value))
        case _ if callable(value):
            return Drawn(value)
    raise TypeError(f"an initializer is a name, pair, number or array, not {value!r}")


def _named(name: str, parameters: Mapping[str, Any]) -> Named:
    if name not in INITIALIZERS:
        raise ValueError(f"unknown initializer '{name}'; {suggest(name, INITIALIZERS)}")
    known = tuple(inspect.signature(INITIALIZERS[name]).parameters)[3:]
    for key in parameters:
        if key not in known:
            raise ValueError(
                f"initializer '{name}' has no parameter '{key}'; {suggest(key, known)}"
            )
    return Named(name, dict(parameters))
