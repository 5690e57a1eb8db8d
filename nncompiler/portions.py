"""Takes rows of data for a network of a fixed number of rows, gives its batches.

A network whose inputs begin with one number n instead of a symbol takes n rows at a time: data of a
multiple of n rows are worked through n by n, whatever batch size is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ir.graph import Node

Array = np.ndarray[Any, Any]
Data = dict[str, Any]


def fixed_rows(inputs: Iterable[Node]) -> int | None:
    """The number that all inputs begin with; None where it is symbolic or there is none."""
    firsts = {node.shape[0] if node.shape else None for node in inputs}
    first = firsts.pop() if len(firsts) == 1 else None
    return first if isinstance(first, int) and first > 0 else None


def check_rows(rows: int, size: int) -> None:
    """ValueError where something would be left over, or there is nothing."""
    if rows == 0:
        raise ValueError(f"empty data set: the network takes {size} rows at a time")
    if rows % size:
        raise ValueError(
            f"the network takes {size} rows at a time, and {rows} rows leave a rest of "
            f"{rows % size}; write shape=('batch', ...) for any number of rows"
        )


def batch_rows(rows: int, asked: int | None, fixed: int | None) -> int:
    """How many rows to take at a time."""
    if fixed is not None:
        check_rows(rows, fixed)
        return fixed
    if not isinstance(asked, (int, np.integer)) or asked < 1:
        raise ValueError(f"batch_size must be a whole number, at least 1, got {asked!r}")
    return int(asked)


def portions(data: Mapping[str, Array], size: int, order: Array | None = None) -> Iterator[Data]:
    """The data `size` rows at a time, in that order; the last portion may be shorter."""
    rows = len(next(iter(data.values()))) if order is None else len(order)
    for first in range(0, rows, size):
        span = slice(first, first + size)
        chosen: Any = span if order is None else order[span]
        yield {name: array[chosen] for name, array in data.items()}


def mean_of(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The means by name over batches of equal size."""
    return {name: float(np.mean([s[name] for s in scores])) for name in scores[0]}
