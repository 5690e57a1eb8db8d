"""Takes parameters and gradients, gives what all optimizers do with them as a graph.

Rates, clipping, gathering of gradients, and averages; the rule of one parameter is a subclass's.
State (velocities, moments, the count of finished updates) are persistent inputs of the program:
`optimizer.<slot>.<parameter>` and `optimizer.t`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, ClassVar

import numpy as np

from ir import ops
from ir.graph import Node
from ir.types import DType, bind_dim, i64
from nncompiler.frontend.names import suggest
from nncompiler.frontend.schedules import Schedule, check_number, make_schedule

LEARNING_RATE = "learning_rate"
STEP_COUNT = "optimizer.t"
BATCH_COUNT = "optimizer.batches"
AVERAGE = "optimizer.average."

Rate = float | Schedule | Callable[[Node], Any]


@dataclass(frozen=True)
class State:
    """A persistent value that is not a parameter: its input node and its first value; `carried`
    where it goes on from batch to batch of one stream of data, until `reset_states`."""

    node: Node
    initial: np.ndarray[Any, Any]
    carried: bool = False


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


@dataclass
class _Plan:
    """An update in the making. While gradients are being gathered, values stay as they are."""

    dtype: DType
    prefix: str
    values: dict[str, Node] = field(default_factory=dict)
    states: dict[str, State] = field(default_factory=dict)
    names: dict[Node, str] = field(default_factory=dict)
    complete: Node | None = None  # whether this batch completes an update; None: each does

    def number(self, id: str, dtype: DType, initial: float = 0) -> Node:
        """A state that is a single number."""
        node = ops.input(self.prefix + id, dtype, ())
        self.states[self.prefix + id] = State(node, np.asarray(initial, dtype.numpy))
        return node

    def like(self, id: str, parameter: Node) -> Node:
        """A state of a parameter's shape, zeros at first."""
        node = ops.input(self.prefix + id, parameter.dtype, parameter.shape)
        zero = np.zeros((), parameter.dtype.numpy)
        zeros = np.broadcast_to(zero, [bind_dim(d, {}) for d in parameter.shape])
        self.states[self.prefix + id] = State(node, zeros)
        return node

    def set(self, id: str, value: Node, name: str, old: Node | None = None) -> None:
        """The next value of a persistent input (a state, or the parameter `old`)."""
        if self.complete is not None:
            value = ops.where(self.complete, value, self.states[id].node if old is None else old)
        self.values[id] = value
        if name:
            self.names.setdefault(value, name)

    def accumulate(
        self, parameters: Mapping[str, Node], gradients: Mapping[str, Node], number: int
    ) -> dict[str, Node]:
        """The mean gradients of `number` batches; what is set before and after waits for them."""
        batches = self.number(BATCH_COUNT, i64)
        complete = ops.eq(batches, number - 1)
        self.names[complete] = "complete"
        self.values[self.prefix + BATCH_COUNT] = ops.where(complete, 0, batches + 1)
        totals = {}
        for name, parameter in parameters.items():
            id = f"optimizer.total.{name}"
            totals[name] = self.like(id, parameter) + gradients[name]
            self.values[self.prefix + id] = ops.where(complete, 0.0, totals[name])
        self.complete = complete
        count = self.prefix + STEP_COUNT
        if count in self.values:
            self.set(count, self.values[count], "")
        return {name: total * (1.0 / number) for name, total in totals.items()}


@dataclass(frozen=True)
class Optimizer(ABC):
    """The part that all optimizers share; a subclass has one `advance` per parameter.

    clip_value   bounds every entry of the gradients
    clip_norm    bounds the norm of all gradients together (after clip_value, before weight decay)
    rates        factors of the learning rate by parameter: a name or a pattern such as "hidden.*";
                 the first that fits counts
    accumulate   the number of batches whose mean gradient makes one update
    average      d: after each update average = d average + (1 - d) parameter, in `model.averages`;
                 the first update's average is the parameter
    lazy         in tables of embeddings, rows whose gradient is all zeros stay as they are, with
                 their moments, and are not decayed (as torch's SparseAdam): the cost of a step does
                 not grow with the table, unless a regularizer, `average` or `accumulate` needs all
                 of its rows
    """

    learning_rate: Rate
    clip_value: float | None = field(default=None, kw_only=True)
    clip_norm: float | None = field(default=None, kw_only=True)
    rates: Mapping[str, float] = field(default_factory=dict, kw_only=True)
    accumulate: int = field(default=1, kw_only=True)
    average: float | None = field(default=None, kw_only=True)
    lazy: bool = field(default=False, kw_only=True)

    counts_steps: ClassVar[bool] = False

    def __post_init__(self) -> None:
        make_schedule(self.learning_rate)
        for name in ("clip_value", "clip_norm"):
            if getattr(self, name) is not None:
                check_number(name, getattr(self, name))
        if self.average is not None:
            check_number("average", self.average, high=1.0, open_high=True)
        if not isinstance(self.rates, Mapping):
            raise TypeError(f"rates are a dict by parameter, not {self.rates!r}")
        for pattern, factor in self.rates.items():
            check_number(f"rates[{pattern!r}]", factor)
        if isinstance(self.accumulate, bool) or not isinstance(self.accumulate, int):
            raise TypeError(f"accumulate has to be a whole number, not {self.accumulate!r}")
        if self.accumulate < 1:
            raise ValueError(f"accumulate has to be at least 1, not {self.accumulate}")
        if not isinstance(self.lazy, bool):
            raise TypeError(f"lazy is True or False, not {self.lazy!r}")

    @property
    def schedule(self) -> Schedule:
        return make_schedule(self.learning_rate)

    @property
    def slots(self) -> tuple[str, ...]:
        """Names of the arrays kept per parameter; all start as zeros."""
        return ()

    @abstractmethod
    def advance(self, m: Moment) -> tuple[Node, dict[str, Node]]:
        """The parameter's next value and its slots' next values."""

    def build(
        self,
        parameters: Mapping[str, Node],
        gradients: Mapping[str, Node],
        dtype: DType,
        prefix: str = "",
        tables: Collection[str] = (),
    ) -> Update:
        """The update of all parameters; ValueError where there are none.

        `prefix` stands before the ids of all states, where several optimizers share a network;
        `tables` names the parameters whose rows `lazy` tells apart.
        """
        if not parameters:
            raise ValueError("an optimizer needs at least one trainable parameter")
        if self.lazy and not tables:
            raise ValueError("lazy is for embeddings, and there is no trainable one")
        plan = _Plan(dtype, prefix)
        t = ops.constant(0.0, dtype)
        if self.counts_steps or self.schedule.uses_step or self.average is not None:
            count = plan.number(STEP_COUNT, i64)
            t = ops.cast(count, dtype)
            plan.set(prefix + STEP_COUNT, count + 1, "")
            plan.names[t] = "t"
        base = plan.number(LEARNING_RATE, dtype, self.schedule.base)
        rate = self.schedule.rate(t, base)
        plan.names.setdefault(rate, "rate")
        if self.accumulate > 1:
            gradients = plan.accumulate(parameters, gradients, self.accumulate)
        touched = {n: _rows(gradients[n]) for n in tables} if self.lazy else {}
        gradients = self._clip(gradients, plan.names)
        factors = self._factors(parameters)
        for name, parameter in parameters.items():
            slots = {s: plan.like(f"optimizer.{s}.{name}", parameter) for s in self.slots}
            own = rate if factors[name] == 1.0 else rate * factors[name]
            new, new_slots = self.advance(Moment(parameter, gradients[name], slots, own, t))
            if name in touched:
                new = ops.where(touched[name], new, parameter)
                new_slots = {s: ops.where(touched[name], v, slots[s]) for s, v in new_slots.items()}
            plan.set(name, new, f"new_{name}", parameter)
            for slot, value in new_slots.items():
                plan.set(f"{prefix}optimizer.{slot}.{name}", value, f"new_{slot}_{name}")
            if self.average is not None:
                old = plan.like(AVERAGE + name, parameter)
                moved = self.average * old + (1.0 - self.average) * new
                first = ops.where(ops.eq(t, 0.0), new, moved)
                plan.set(prefix + AVERAGE + name, first, f"new_average_{name}")
        return Update(plan.values, plan.states, plan.names)

    def _factors(self, parameters: Mapping[str, Node]) -> dict[str, float]:
        """The factor of every parameter's rate; ValueError for a pattern that fits none."""
        for pattern in self.rates:
            if not any(fnmatchcase(name, pattern) for name in parameters):
                known = suggest(pattern, parameters)
                raise ValueError(f"rates: no trainable parameter fits '{pattern}'; {known}")
        return {
            name: next((float(f) for p, f in self.rates.items() if fnmatchcase(name, p)), 1.0)
            for name in parameters
        }

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


def _rows(gradient: Node) -> Node:
    """Which rows of the gradient are not all zeros, with extents of 1 behind."""
    return ops.any(ops.ne(gradient, 0.0), tuple(range(1, gradient.ndim)), keepdims=True)
