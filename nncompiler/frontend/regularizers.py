"""Takes weights, gives the penalty that a regularizer adds to the loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from ir import ops
from ir.graph import Node
from nncompiler.errors import call_user
from nncompiler.frontend.schedules import check_number

Regularizer = Callable[[Node], Node]


@dataclass(frozen=True)
class L1:
    """c * sum of |W|; gradient c sign(W)."""

    c: float = 0.01

    def __post_init__(self) -> None:
        check_number("the factor of L1", self.c)

    def __call__(self, weight: Node) -> Node:
        return self.c * ops.sum(abs(weight))


@dataclass(frozen=True)
class L2:
    """c * sum of W^2; gradient 2 c W."""

    c: float = 0.01

    def __post_init__(self) -> None:
        check_number("the factor of L2", self.c)

    def __call__(self, weight: Node) -> Node:
        return self.c * ops.sum(weight * weight)


@dataclass(frozen=True)
class Several:
    """The sum of several penalties."""

    parts: tuple[Regularizer, ...]

    def __call__(self, weight: Node) -> Node:
        total = self.parts[0](weight)
        for part in self.parts[1:]:
            total = total + part(weight)
        return total


_NAMES: Mapping[str, Callable[..., Regularizer]] = {"l1": L1, "l2": L2}


def make_regularizer(value: object) -> Regularizer | None:
    """A regularizer from None, a name, (name, {"c": ...}), a function of a weight, or a list."""
    match value:
        case None:
            return None
        case "l1" | "l2":
            return _NAMES[value]()
        case ("l1" | "l2" as name, dict(parameters)):
            return _NAMES[name](**parameters)
        case [_, *_]:
            assert isinstance(value, Sequence)
            return Several(tuple(p for p in map(make_regularizer, value) if p is not None))
        case _ if callable(value):
            return partial(call_user, "the regularizer", value)
    raise ValueError(f"unknown regularizer {value!r} (known: L1(c), L2(c), a function of a weight)")
