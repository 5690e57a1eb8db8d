"""Takes parameters and gradients, gives the update of an optimizer as a graph.

The updates are those of torch.optim. State (velocities, moments, the count of finished updates) are
persistent inputs of the program: `optimizer.<slot>.<parameter>` and `optimizer.t`.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from ir import ops
from ir.graph import Node
from ir.types import DType, bind_dim, i64
from nncompiler.frontend.names import suggest
from nncompiler.frontend.schedules import Schedule, check_number, make_schedule

LEARNING_RATE = "learning_rate"
STEP_COUNT = "optimizer.t"

Rate = float | Schedule | Callable[[Node], Any]


@dataclass(frozen=True)
class State:
    """A persistent value that is not a parameter: its input node and its first value."""

    node: Node
    initial: np.ndarray[Any, Any]


@dataclass(frozen=True)
class Update:
    """One optimizer step: new values by input id, the states it keeps, names for values."""

    values: Mapping[str, Node]
    states: Mapping[str, State]
    names: Mapping[Node, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Moment:
    """What one parameter's update reads; `t` is the number of finished updates."""

    parameter: Node
    gradient: Node
    slots: Mapping[str, Node]
    rate: Node
    t: Node


@dataclass(frozen=True)
class Optimizer:
    """The part that all optimizers share: the rate, clipping, and one `advance` per parameter.

    `clip_value` bounds every entry of the gradients, `clip_norm` the norm of all gradients together
    (after `clip_value`, before weight decay).
    """

    learning_rate: Rate
    clip_value: float | None = field(default=None, kw_only=True)
    clip_norm: float | None = field(default=None, kw_only=True)

    counts_steps: ClassVar[bool] = False

    def __post_init__(self) -> None:
        make_schedule(self.learning_rate)
        for name in ("clip_value", "clip_norm"):
            if getattr(self, name) is not None:
                check_number(name, getattr(self, name))

    @property
    def schedule(self) -> Schedule:
        return make_schedule(self.learning_rate)

    @property
    def slots(self) -> tuple[str, ...]:
        """Names of the arrays kept per parameter; all start as zeros."""
        return ()

    def advance(self, m: Moment) -> tuple[Node, dict[str, Node]]:
        """The parameter's next value and its slots' next values."""
        raise NotImplementedError

    def build(
        self, parameters: Mapping[str, Node], gradients: Mapping[str, Node], dtype: DType
    ) -> Update:
        """The update of all parameters; ValueError where there are none."""
        if not parameters:
            raise ValueError("an optimizer needs at least one trainable parameter")
        states = {LEARNING_RATE: _state(LEARNING_RATE, dtype, self.schedule.base)}
        names: dict[Node, str] = {}
        values: dict[str, Node] = {}
        t = ops.constant(0.0, dtype)
        if self.counts_steps or self.schedule.uses_step:
            states[STEP_COUNT] = _state(STEP_COUNT, i64, 0)
            count = states[STEP_COUNT].node
            t = ops.cast(count, dtype)
            values[STEP_COUNT] = count + 1
            names[t] = "t"
        rate = self.schedule.rate(t, states[LEARNING_RATE].node)
        names.setdefault(rate, "rate")
        gradients = self._clip(gradients, names)
        for name, parameter in parameters.items():
            slots = {s: _slot(f"optimizer.{s}.{name}", parameter) for s in self.slots}
            states |= {f"optimizer.{s}.{name}": state for s, state in slots.items()}
            nodes = {s: state.node for s, state in slots.items()}
            moment = Moment(parameter, gradients[name], nodes, rate, t)
            values[name], new_slots = self.advance(moment)
            names.setdefault(values[name], f"new_{name}")
            for slot, value in new_slots.items():
                values[f"optimizer.{slot}.{name}"] = value
                names.setdefault(value, f"new_{slot}_{name}")
        return Update(values, states, names)

    def _clip(self, gradients: Mapping[str, Node], names: dict[Node, str]) -> Mapping[str, Node]:
        if self.clip_value is not None:
            bound = float(self.clip_value)
            gradients = {
                k: ops.minimum(ops.maximum(g, -bound), bound) for k, g in gradients.items()
            }
        if self.clip_norm is not None:
            parts = [ops.sum(g * g) for g in gradients.values()]
            total = parts[0]
            for part in parts[1:]:
                total = total + part
            norm = ops.sqrt(total)
            limit = float(self.clip_norm)
            # norm <= limit leaves the gradients as they are, bit by bit
            scale = limit / ops.maximum(norm, limit) if limit > 0 else norm * 0.0
            names.setdefault(norm, "gradient_norm")
            names.setdefault(scale, "gradient_scale")
            gradients = {k: g * scale for k, g in gradients.items()}
        return gradients


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


def _state(id: str, dtype: DType, initial: float) -> State:
    return State(ops.input(id, dtype, ()), np.asarray(initial, dtype.numpy))


def _slot(id: str, parameter: Node) -> State:
    zeros = np.zeros([bind_dim(d, {}) for d in parameter.shape], parameter.dtype.numpy)
    return State(ops.input(id, parameter.dtype, parameter.shape), zeros)


def _bias_correction(beta: float, t: Node) -> Node:
    """1 - beta^(t + 1), written so that the first steps lose no digits."""
    if beta == 0.0:
        return ops.constant(1.0, t.dtype)
    return -ops.expm1((t + 1.0) * math.log(beta))
