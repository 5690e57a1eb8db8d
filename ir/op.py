"""Takes nothing, gives the record of an operation: ONE declaration, from which all follows.

A record holds the type rule, the NumPy reference, the derivative, the lowering class, and the
samples from which all of the op's tests are generated.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ir.index import Guard, Index
from ir.types import TensorType


class Lowering(enum.Enum):
    """What drives fusion, lowering and scheduling; no pass ever matches on an op's name."""

    LEAF = "leaf"  # input, constant, iota, extent
    MAP = "map"  # one scalar function at every point
    VIEW = "view"  # values moved, none computed
    REDUCE = "reduce"  # axes combined away
    CONTRACT = "contract"  # einsum of two operands
    GATHER = "gather"  # rows picked by an index tensor
    SCATTER = "scatter"  # rows added or stored at an index tensor
    SPARSE = "sparse"  # sums along the edges of a graph of columns
    SCAN = "scan"  # a loop over time: a body graph with carried values
    ITEM = "item"  # one of the results of a scan
    FOLD = "fold"  # adjoint of a window; simplify writes it as a contraction or a sum over views


COMMUTATIVE = "commutative"
READS_BACK = "reads back"  # SCATTER: the result is what the rows hold at the indices in the end
CHEAP = "cheap"  # costs about one instruction: recomputed rather than stored


@dataclass(frozen=True)
class Sample:
    """Arguments for one generated test: arrays (float64 where real) and attributes.

    `smooth` is False where finite differences mean nothing (at kinks, for integers).
    """

    arrays: tuple[np.ndarray[Any, Any], ...]
    attrs: Mapping[str, Any] = field(default_factory=dict)
    smooth: bool = True


@dataclass(frozen=True)
class Source:
    """Where one output element of a view comes from: operand number, its indices, and the guards
    under which it comes from there.

    Outside of them the next source applies, and at last the node's attribute `value`.
    """

    operand: int
    indices: tuple[Index, ...]
    guards: tuple[Guard, ...] = ()


@dataclass(frozen=True, eq=False)
class Op:
    """One operation.

    type_rule(*input_types, **attrs) -> TensorType     raises ValueError naming both shapes
    evaluate(*arrays, **attrs) -> ndarray              the NumPy reference, extents bound to ints
    vjp(g, y, *inputs, **attrs) -> cotangents          one Node (or None) per input, or a single one
    sources(indices, input_types, **attrs) -> (Source, ...)   VIEW only: index algebra of the view
    combine                                            REDUCE: "sum" | "prod" | "max" | "min";
                                                       SCATTER: "sum" | "set"
    """

    name: str
    lowering: Lowering
    type_rule: Callable[..., TensorType]
    evaluate: Callable[..., np.ndarray[Any, Any]]
    vjp: Callable[..., Any] | None = None
    samples: Callable[[], list[Sample]] = list
    flags: frozenset[str] = frozenset()
    sources: Callable[..., tuple[Source, ...]] | None = None
    combine: str | None = None
    doc: str = ""

    def __repr__(self) -> str:
        return f"<op {self.name}>"


REGISTRY: dict[str, Op] = {}


def register(op: Op) -> Op:
    """Enter a record in the table of all ops; a name may be taken once."""
    if op.name in REGISTRY:
        raise ValueError(f"op '{op.name}' is declared twice")
    REGISTRY[op.name] = op
    return op
