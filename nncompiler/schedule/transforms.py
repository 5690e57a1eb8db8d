"""Takes rows of scalar expressions, gives Winograd's transforms of them.

    elements [d0 d1 d2 d3]  ->  [d0-d2  d1+d2  d2-d1  d1-d3]    for F(2, 3)

Lavin, Gray: Fast Algorithms for Convolutional Neural Networks (2015).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ir import scalar
from ir.scalar import Scalar

TAPS = 3

Matrix = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Transforms:
    """F(m, 3): of elements, of weights, of sums."""

    elements: Matrix
    weights: Matrix
    sums: Matrix

    @property
    def results(self) -> int:
        return len(self.sums)

    @property
    def size(self) -> int:
        return len(self.elements)


F2 = Transforms(
    ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1)),
    ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1)),
    ((1, 1, 1, 0), (0, 1, -1, -1)),
)
F4 = Transforms(
    (
        (4, 0, -5, 0, 1, 0),
        (0, -4, -4, 1, 1, 0),
        (0, 4, -4, -1, 1, 0),
        (0, -2, -1, 2, 1, 0),
        (0, 2, -1, -2, 1, 0),
        (0, 4, 0, -5, 0, 1),
    ),
    (
        (1 / 4, 0, 0),
        (-1 / 6, -1 / 6, -1 / 6),
        (-1 / 6, 1 / 6, -1 / 6),
        (1 / 24, 1 / 12, 1 / 6),
        (1 / 24, -1 / 12, 1 / 6),
        (0, 0, 1),
    ),
    ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1)),
)
BY_RESULTS = {2: F2, 4: F4}


def both_ways(matrix: Matrix, values: Sequence[Sequence[Scalar]]) -> list[Scalar]:
    """matrix * values * matrix', row by row."""
    columns = list(zip(*values, strict=True))
    first = [[weighted(row, column) for column in columns] for row in matrix]
    return [weighted(row, line) for line in first for row in matrix]


def weighted(weights: Sequence[float], values: Sequence[Scalar]) -> Scalar:
    """The sum of the values by their weights: those of 1 first, then differences."""
    total: Scalar | None = None
    for weight, value in sorted(zip(weights, values, strict=True), key=lambda p: -p[0]):
        if weight == 0:
            continue
        dtype = value.dtype
        if abs(weight) != 1:
            value = scalar.apply("mul", (value, scalar.const(abs(weight), dtype)), dtype)
        if total is None:
            total = value if weight > 0 else scalar.apply("neg", (value,), dtype)
        else:
            total = scalar.apply("add" if weight > 0 else "sub", (total, value), dtype)
    assert total is not None
    return total


def transposed(matrix: Matrix) -> Matrix:
    return tuple(zip(*matrix, strict=True))
