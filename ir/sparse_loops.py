"""Takes nothing, gives the statements of sums along edges: Sweep, PairSums and PairTotals."""

from __future__ import annotations

from dataclasses import dataclass

from ir.index import Var
from ir.scalar import Scalar

PIECE = Var("piece", 8)  # of the rows of what is computed along edges


@dataclass(frozen=True, eq=False, slots=True)
class Sweep:
    """The micro-kernel of `sweep` (ir/ops/sparse.py has the meaning of the tables):

        for i in 0 .. row.extent (vectors * lanes rows at a time):
            state[m] = x                                            for every source column m
            for every node n in the order of the table `rows`:
                z = sum of weights[number] * state[slot]            over its edges
                state[sources + nodes + place] = z                  where it has a place
                state[sources + n] = formula(z, extras)
            outputs[i * kept + k] = state[slot]                     for every k of the table `kept`

    `state` is a workspace with the rows of one step side by side for every slot; `copies` are such
    workspaces for the extras ("" where memory is used as it lies), `terms` is one for the terms of
    a median. Threads share the rows as `piece` tells.
    """

    row: Var
    column: Var  # of nodes: what the extras are read at
    source: Var  # of x
    edge: Var  # of weights
    x: Scalar | None
    extras: tuple[Scalar, ...]
    weights: Scalar
    tables: tuple[str, ...]  # runs, rows, slots, kept, ways; numbers, unless these are in order
    runs: int
    formulas: tuple[str, ...]
    outputs: tuple[str, ...]
    kept: int
    sums: int  # how many sums are kept
    longest: int  # edges of a node
    lanes: int = 1
    vectors: int = 1
    state: str = ""
    copies: tuple[str, ...] = ()
    terms: str = ""
    piece: Var = PIECE
    sliced: bool = False  # whether workspaces have a part for every piece

    @property
    def step(self) -> int:
        """How many rows are computed at a time."""
        return self.lanes * self.vectors

    @property
    def own(self) -> tuple[str, ...]:
        """Memory of which every thread needs its own."""
        return tuple(name for name in (self.state, *self.copies, self.terms) if name)


@dataclass(frozen=True, eq=False, slots=True)
class PairSums:
    """The micro-kernel of `pair_sums`:

        outputs[e] = sum over the rows of a[row, lefts[e]] * b[row, rights[e]]

    A `chunk` of rows at a time, copied so that the rows of a column stand side by side in the
    workspaces `copies`. Of the pieces of the rows the first writes to the outputs, piece p to
    partial[(p - 1) * pairs + e].
    """

    row: Var
    left: Var
    right: Var
    pair: Var
    a: Scalar
    b: Scalar
    lefts: str
    rights: str
    outputs: tuple[str, ...]
    lanes: int = 1
    chunk: int = 1
    copies: tuple[str, str] = ("", "")
    partial: str = ""
    piece: Var = PIECE
    sliced: bool = False

    @property
    def step(self) -> int:
        return self.chunk

    @property
    def own(self) -> tuple[str, ...]:
        return tuple(name for name in self.copies if name)


@dataclass(frozen=True, eq=False, slots=True)
class PairTotals:
    """What follows on PairSums: outputs[e] += partial[(p - 1) * pairs + e], piece after piece, for
    those pieces that have rows."""

    sums: PairSums


Sparse = Sweep | PairSums | PairTotals


def rows_of_piece(stmt: Sweep | PairSums, count: int) -> int:
    """How many rows a piece of so many rows has; the last ones may have fewer, or none."""
    pieces = stmt.piece.extent
    assert isinstance(pieces, int)
    return -(-count // (pieces * stmt.step)) * stmt.step
