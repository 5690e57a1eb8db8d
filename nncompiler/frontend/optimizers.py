"""Takes one parameter and its gradient, gives its next value: the updates of torch.optim."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ir import ops
from ir.graph import Node
from nncompiler.frontend.names import suggest
from nncompiler.frontend.schedules import check_number
from nncompiler.frontend.updates import Moment, Optimizer, Rate


@dataclass(frozen=True)
class SGD(Optimizer):
    """v = momentum v + g; p -= rate v (with nesterov: p -= rate (g + momentum v))."""

    learning_rate: Rate = 0.01
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("momentum", self.momentum)
        check_number("weight_decay", self.weight_decay)
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum above 0")

    @property
    def slots(self) -> tuple[str, ...]:
        return ("velocity",) if self.momentum else ()

    def advance(self, m: Moment) -> tuple[Node, dict[str, Node]]:
        p, g = m.parameter, m.gradient
        if self.weight_decay:
            g = g + self.weight_decay * p
        if not self.momentum:
            return p - m.rate * g, {}
        velocity = self.momentum * m.slots["velocity"] + g
        direction = g + self.momentum * velocity if self.nesterov else velocity
        return p - m.rate * direction, {"velocity": velocity}


@dataclass(frozen=True)
class Adam(Optimizer):
    """Moments m and v of the gradient, both corrected for their start at zero (Kingma and Ba)."""

    learning_rate: Rate = 0.001
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    counts_steps: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("beta1", self.beta1, high=1.0, open_high=True)
        check_number("beta2", self.beta2, high=1.0, open_high=True)
        check_number("epsilon", self.epsilon)

    @property
    def slots(self) -> tuple[str, ...]:
        return ("m", "v")

    def advance(self, m: Moment) -> tuple[Node, dict[str, Node]]:
        g = m.gradient
        mean = self.beta1 * m.slots["m"] + (1.0 - self.beta1) * g
        square = self.beta2 * m.slots["v"] + (1.0 - self.beta2) * (g * g)
        step = m.rate / _bias_correction(self.beta1, m.t)
        spread = ops.sqrt(square) * (1.0 / ops.sqrt(_bias_correction(self.beta2, m.t)))
        return self._decayed(m) - step * (mean / (spread + self.epsilon)), {"m": mean, "v": square}

    def _decayed(self, m: Moment) -> Node:
        return m.parameter


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with weight decay beside the moments: p is first scaled by 1 - rate weight_decay."""

    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("weight_decay", self.weight_decay)

    def _decayed(self, m: Moment) -> Node:
        return m.parameter * (1.0 - m.rate * self.weight_decay)


@dataclass(frozen=True)
class RMSProp(Optimizer):
    """v = rho v + (1 - rho) g^2; p -= rate g / (sqrt(v) + epsilon)."""

    learning_rate: Rate = 0.001
    rho: float = 0.9
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("rho", self.rho, high=1.0)
        check_number("epsilon", self.epsilon)

    @property
    def slots(self) -> tuple[str, ...]:
        return ("v",)

    def advance(self, m: Moment) -> tuple[Node, dict[str, Node]]:
        g = m.gradient
        square = self.rho * m.slots["v"] + (1.0 - self.rho) * (g * g)
        return m.parameter - m.rate * (g / (ops.sqrt(square) + self.epsilon)), {"v": square}


@dataclass(frozen=True)
class Adagrad(Optimizer):
    """v = v + g^2; p -= rate g / (sqrt(v) + epsilon)."""

    learning_rate: Rate = 0.01
    epsilon: float = 1e-10

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("epsilon", self.epsilon)

    @property
    def slots(self) -> tuple[str, ...]:
        return ("v",)

    def advance(self, m: Moment) -> tuple[Node, dict[str, Node]]:
        g = m.gradient
        square = m.slots["v"] + g * g
        return m.parameter - m.rate * (g / (ops.sqrt(square) + self.epsilon)), {"v": square}


OPTIMIZERS: Mapping[str, type[Optimizer]] = {
    "sgd": SGD,
    "adam": Adam,
    "adamw": AdamW,
    "rmsprop": RMSProp,
    "adagrad": Adagrad,
}


def make_optimizer(value: object) -> Optimizer | None:
    """An optimizer from None, a name, (name, {parameters}) or an optimizer."""
    match value:
        case None | Optimizer():
            return value
        case str(name):
            return _named(name, {})
        case (str(name), dict(parameters)):
            return _named(name, parameters)
    raise TypeError(f"an optimizer is a name or an object such as SGD(0.1), not {value!r}")


def _named(name: str, parameters: Mapping[str, Any]) -> Optimizer:
    kind = OPTIMIZERS.get(name.lower())
    if kind is None:
        raise ValueError(f"unknown optimizer '{name}'; {suggest(name.lower(), OPTIMIZERS)}")
    known = tuple(inspect.signature(kind).parameters)
    for key in parameters:
        if key not in known:
            raise ValueError(f"optimizer '{name}' has no parameter '{key}'; {suggest(key, known)}")
    return kind(**parameters)


def _bias_correction(beta: float, t: Node) -> Node:
    """1 - beta^(t + 1), written so that the first steps lose no digits."""
    if beta == 0.0:
        return ops.constant(1.0, t.dtype)
    return -ops.expm1((t + 1.0) * math.log(beta))
