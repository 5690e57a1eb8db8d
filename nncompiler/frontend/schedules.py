"""Takes a learning-rate schedule, gives the rate of one update as a graph of the step count.

`t` counts finished updates from 0. The base rate is a live scalar input of the program, so it can
be changed while training without compiling anything; a schedule only shapes it over time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from ir import ops
from ir.graph import Node
from nncompiler.errors import call_user


@runtime_checkable
class Schedule(Protocol):
    """`base` is the first value of the live learning rate; `rate(t, base)` builds the graph.

    `uses_step` is False where the rate does not depend on t (then no step count is kept).
    """

    @property
    def base(self) -> float: ...

    @property
    def uses_step(self) -> bool: ...

    def rate(self, t: Node, base: Node) -> Node: ...


@dataclass(frozen=True)
class _Schedule:
    learning_rate: float

    def __post_init__(self) -> None:
        check_number("learning_rate", self.learning_rate)

    @property
    def base(self) -> float:
        return float(self.learning_rate)

    @property
    def uses_step(self) -> bool:
        return True


@dataclass(frozen=True)
class Constant(_Schedule):
    """alpha."""

    @property
    def uses_step(self) -> bool:
        return False

    def rate(self, t: Node, base: Node) -> Node:
        return base


@dataclass(frozen=True)
class InverseTime(_Schedule):
    """alpha / (1 + delta t)."""

    delta: float

    def rate(self, t: Node, base: Node) -> Node:
        return base / (1.0 + self.delta * t)


@dataclass(frozen=True)
class Power(_Schedule):
    """alpha / (t + 1)^delta; sum alpha_t^2 stays finite for 0.5 < delta <= 1."""

    delta: float = 1.0

    def rate(self, t: Node, base: Node) -> Node:
        return base / (t + 1.0) ** self.delta


@dataclass(frozen=True)
class ConstantThenDecay(_Schedule):
    """alpha for the first `steps` updates, then alpha / (1 + delta (t - steps))."""

    steps: int
    delta: float

    def rate(self, t: Node, base: Node) -> Node:
        late = ops.maximum(t - float(self.steps), 0.0)
        return base / (1.0 + self.delta * late)


@dataclass(frozen=True)
class Cosine(_Schedule):
    """Half a cosine from alpha down to `minimum` over `steps` updates, then `minimum`."""

    steps: int
    minimum: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 1:
            raise ValueError(f"Cosine needs at least 1 step, not {self.steps}")

    def rate(self, t: Node, base: Node) -> Node:
        angle = ops.minimum(t, float(self.steps)) * (math.pi / self.steps)
        return self.minimum + (base - self.minimum) * (0.5 * (1.0 + ops.cos(angle)))


@dataclass(frozen=True)
class Symbolic:
    """A user's function of the symbolic step; the live learning rate is a factor on it, first 1."""

    function: Callable[[Node], Node | float]

    @property
    def base(self) -> float:
        return 1.0

    @property
    def uses_step(self) -> bool:
        return True

    def rate(self, t: Node, base: Node) -> Node:
        value: Node | float = call_user("the learning-rate schedule", self.function, t)
        if isinstance(value, Node) and value.shape != ():
            raise ValueError(f"a learning-rate schedule has to give a scalar, not {value.type}")
        return base * value


def make_schedule(value: object) -> Schedule:
    """A schedule from a number, a schedule, or a function of the symbolic step."""
    if isinstance(value, Schedule):
        return value
    if callable(value):
        return Symbolic(value)
    check_number("learning_rate", value)
    return Constant(float(value))  # type: ignore[arg-type]


def check_number(
    name: str, value: object, *, low: float = 0.0, high: float = math.inf, open_high: bool = False
) -> None:
    """ValueError / TypeError unless low <= value <= high (or < high)."""
    if isinstance(value, bool) or not hasattr(value, "__float__"):
        raise TypeError(f"{name} has to be a number, not {value!r}")
    number = float(value)
    if not low <= number <= high or (open_high and number == high) or math.isinf(number):
        bracket = ")" if open_high or math.isinf(high) else "]"
        raise ValueError(f"{name} has to be in [{low:g}, {high:g}{bracket}, not {value!r}")
