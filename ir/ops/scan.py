"""Takes a step and sequences, gives the SCAN record: a loop over time with carried values.

    h, ys = init, []
    for t in 0 .. length:   h, y = body(h, x[:, t], w);   ys.append(y)

Time stands behind the leading axis (the batch) of a sequence, and first in one of scalars. Results
are the last carried values, then the sequences of everything that the body gives beside them. Those
that nobody reads are never stored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ir.graph import Body, Node, make
from ir.interpret import run_body
from ir.op import Lowering, Op, register
from ir.ops.core import Array, as_node
from ir.ops.scan_vjp import scan_vjp
from ir.ops.steps import fresh_leaf, make_scan, stacked, step_of
from ir.types import TensorType, TupleType

Nodes = tuple[Node, ...]


def _scan_type(
    *types: TensorType, body: Body, carries: int, sequences: int, length: int, reverse: bool
) -> TupleType:
    del reverse
    if length < 1 or carries + sequences > len(types) or len(types) != len(body.inputs):
        raise ValueError(f"scan of {len(types)} values over {length} steps")
    for place, (type, inner) in enumerate(zip(types, body.inputs, strict=True)):
        is_sequence = carries <= place < carries + sequences
        expected = stacked(inner.type, length) if is_sequence else inner.type
        if type != expected:
            raise ValueError(f"operand {place} of a scan is {type}, its body needs {expected}")
    for inner, new in zip(body.inputs[:carries], body.outputs, strict=False):
        if inner.type != new.type:
            raise ValueError(f"a scan carries {inner.type}, its step gives {new.type}")
    results = [stacked(n.type, length) for n in body.outputs[carries:]]
    return TupleType.of([*types[:carries], *results])


def _scan_evaluate(
    *arrays: Array, body: Body, carries: int, sequences: int, length: int, reverse: bool
) -> tuple[Array, ...]:
    carried, fixed = list(arrays[:carries]), arrays[carries + sequences :]
    steps = [np.moveaxis(a, min(1, a.ndim - 1), 0) for a in arrays[carries : carries + sequences]]
    found: list[tuple[Array, ...]] = []
    for t in range(length)[:: -1 if reverse else 1]:
        results = run_body(body, [*carried, *(s[t] for s in steps), *fixed])
        carried = list(results[:carries])
        found.append(results[carries:])
    columns = zip(*(found[::-1] if reverse else found), strict=True)
    stacks = [np.stack(c, axis=min(1, c[0].ndim)) for c in columns]
    return (*carried, *stacks)


register(
    Op(
        "scan",
        Lowering.SCAN,
        _scan_type,
        _scan_evaluate,  # type: ignore[arg-type]
        scan_vjp,
        doc="a loop over time with carried values",
    )
)


def _item_type(results: TensorType, *, index: int) -> TensorType:
    if not isinstance(results, TupleType) or not 0 <= index < len(results.parts):
        raise ValueError(f"item {index} of {results}")
    return results.parts[index]


register(
    Op(
        "item",
        Lowering.ITEM,
        _item_type,
        lambda results, *, index: results[index],
        doc="one of the results of a scan; its cotangent is one of those of the scan",
    )
)


def item(results: Node, index: int) -> Node:
    return make("item", results, index=index)


Step = Callable[[Nodes, Nodes], tuple[Sequence[Node], Sequence[Node]]]


def scan(
    step: Step,
    init: Sequence[Any],
    sequences: Sequence[Any] = (),
    *,
    length: int | None = None,
    reverse: bool = False,
) -> tuple[Nodes, Nodes]:
    """(last carried values, sequences of results) of new carried, results = step(carried, xs).

    `step` is called once, with symbolic values of one time. What it uses from outside is computed
    before the loop. Sequences have the shape (batch, time, ...), or (time,); `reverse` runs from
    the last time to the first, results stand at their times.
    """
    starts = tuple(as_node(c) for c in init)
    streams = tuple(as_node(s) for s in sequences)
    lengths = {s.shape[min(1, s.ndim - 1)] for s in streams} | ({length} if length else set())
    if len(lengths) != 1 or not all(isinstance(n, int) for n in lengths):
        raise ValueError(f"a scan needs one length, a number: {sorted(map(str, lengths))}")
    (time,) = lengths
    leaves = [*(c.type for c in starts), *(step_of(s.type) for s in streams)]
    inner = tuple(fresh_leaf(type) for type in leaves)
    given = inner[: len(starts)], inner[len(starts) :]
    carried, results = (tuple(as_node(v) for v in part) for part in step(*given))
    if len(carried) != len(starts):
        raise ValueError(f"the step carries {len(carried)} values, the scan starts {len(starts)}")
    assert isinstance(time, int)
    whole = make_scan(given[0], given[1], carried, results, starts, streams, time, reverse)
    return (
        tuple(item(whole, i) for i in range(len(starts))),
        tuple(item(whole, len(starts) + i) for i in range(len(results))),
    )
