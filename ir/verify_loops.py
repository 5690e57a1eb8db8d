"""Takes a kernel or a loop function, gives nothing; ValueError where it breaks a rule of the IR.

The rules: buffers are declared once, with their dtype, and flagged written just where they are
stored to; variables are used inside of their loops, values after their definition; an index stays
inside of its buffer (checked where that can be decided); ops exist and get operands of their type.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from ir.dependence import scalars
from ir.function import stages
from ir.index import Index, Var
from ir.loops import (
    Accumulate,
    Buffer,
    For,
    Function,
    Init,
    Kernel,
    Let,
    Prefetch,
    Split,
    Stmt,
    Store,
    StoreRow,
    Tile,
    Transpose,
)
from ir.op import REGISTRY, Lowering
from ir.scalar import Scalar, walk
from ir.sparse_loops import PairSums, PairTotals, Sweep
from ir.types import Dim, DType, Extent, TensorType

RECIPES = ("rows", "contract", "scatter", "sparse")
KINDS = ("serial", "ordered", "parallel", "vector", "unroll", "unroll vector", "shifted vector")
COMBINES = ("sum", "prod", "max", "min")


def verify_kernel(kernel: Kernel) -> None:
    """Check a kernel; the message names it and what is wrong."""
    buffers = (*kernel.buffers, *kernel.workspace)
    check = _Check(kernel.label, _declared(kernel.label, buffers))
    check.require(kernel.recipe in RECIPES, f"recipe '{kernel.recipe}' is none of {RECIPES}")
    every = (*kernel.axes, *kernel.reduce_axes)
    check.require(len({v.name for v in every}) == len(every), "two axes have the same name")
    names: dict[str, DType] = {}
    for r in kernel.reductions:
        check.require(r.combine in COMBINES, f"'{r.name}' combines by '{r.combine}'")
        check.require(r.name not in names, f"reduction '{r.name}' is defined twice")
        check.expression(r.value, every, names)
        names[r.name] = r.value.dtype
    for w in kernel.writes:
        axes = every if w.inner else kernel.axes
        check.expression(w.value, axes, names)
        check.store(w.buffer, w.index, w.value.dtype, axes)
    if (s := kernel.scatter) is not None:
        check.expression(s.row, every, names)
        check.expression(s.value, every, names)
        check.require(s.combine in ("sum", "set"), f"rows are combined by '{s.combine}'")
        check.scatter(s.buffer, s.index, s.stride, s.value.dtype, every)
        if s.base:
            check.access(s.base, Index(), s.value.dtype, bounded=False)
    check.require(
        (kernel.scatter is not None) == (kernel.recipe == "scatter"),
        "the recipe 'scatter' and a scatter phase belong together",
    )
    if kernel.recipe == "contract":
        _contraction(kernel, check)
    if kernel.sparse is not None:
        _body((kernel.sparse,), check, (), {}, set())
    check.flags(kernel.buffers)


def _contraction(kernel: Kernel, check: _Check) -> None:
    """A contraction has one sum of a product of two values."""
    reductions = kernel.reductions
    one = len(reductions) == 1 and reductions[0].combine == "sum"
    check.require(one, "a contraction has one reduction, a sum")
    value = reductions[0].value
    check.require(value.kind == "apply" and value.name == "mul", "a contraction sums a product")


def verify_function(function: Function) -> None:
    """Check a loop function; the message names it and what is wrong."""
    buffers = (*function.buffers, *function.scratch, *function.workspace)
    check = _Check(function.label, _declared(function.label, buffers))
    _body(function.body, check, (), {}, set())
    check.flags(function.buffers)
    if function.splits:
        check.require(len(function.splits) == len(function.body), "every stage has a split or None")
    if function.whens:
        check.require(len(function.whens) == len(function.body), "every stage has a when or None")
    for body, split, _ in stages(function):
        if split is not None:
            _split(body[0], split, check)


def _split(stmt: Stmt, split: Split, check: _Check) -> None:
    """Chunks are of loops that hold nothing but one another, in whole steps."""
    nest = dict(_nest(stmt))
    for var, chunk in split.axes:
        check.require(var in nest, f"{var} is dealt out, but is no loop of the stage's nest")
        whole = chunk >= 1 and chunk % nest[var] == 0
        check.require(whole, f"{var} is dealt out by {chunk}, but steps by {nest[var]}")
    order = [var for var, _ in split.axes]
    check.require(bool(order) and len(set(order)) == len(order), "axes of a split are distinct")


def _nest(stmt: Stmt) -> Iterator[tuple[Var, int]]:
    match stmt:
        case For(var=var, step=step, body=body):
            yield var, step
            if len(body) == 1:
                yield from _nest(body[0])
        case Tile(m=m, n=n, rows=rows):
            yield from ((m, rows[0]), (n, stmt.columns))
        case Transpose(row=row, column=column, lanes=lanes):
            yield from ((row, lanes), (column, lanes))
        case Sweep(piece=piece) | PairSums(piece=piece):
            yield piece, 1


def _body(
    body: Iterable[Stmt],
    check: _Check,
    axes: tuple[Var, ...],
    names: Mapping[str, DType],
    accumulators: set[str],
) -> None:
    names, accumulators = dict(names), set(accumulators)
    for stmt in body:
        inner = axes
        if isinstance(stmt, Tile):
            inner = (*axes, stmt.m, stmt.n, *stmt.k)
        elif isinstance(stmt, Transpose):
            inner = (*axes, stmt.row, stmt.column)
        elif isinstance(stmt, Sweep):
            inner = (*axes, stmt.row, stmt.column, stmt.source, stmt.edge)
        elif isinstance(stmt, PairSums):
            inner = (*axes, stmt.row, stmt.left, stmt.right)
        fresh = len({v.name for v in inner}) == len(inner)
        check.require(fresh, "a variable of a block hides another one")
        for value in scalars(stmt):
            check.expression(value, inner, names)
        match stmt:
            case For(var, kind, step, inside):
                check.require(kind in KINDS, f"loop kind '{kind}' is none of {KINDS}")
                check.require(step >= 1, f"loop over {var} has step {step}")
                one = kind != "shifted vector" or (
                    isinstance(var.extent, int) and var.extent <= step
                )
                check.require(one, f"a shifted vector of {var} is more than one vector")
                hides = any(v.name == var.name for v in axes)
                check.require(not hides, f"loop variable {var} hides an outer one")
                check.stepped |= {var} if step > 1 and "vector" not in kind else set()
                _body(inside, check, (*axes, var), names, accumulators)
            case Let(name, value) | Init(name, value):
                check.require(name not in names, f"'{name}' is defined twice")
                names[name] = value.dtype
                accumulators |= {name} if isinstance(stmt, Init) else set()
            case Accumulate(name, combine, value):
                check.require(combine in COMBINES, f"'{name}' combines by '{combine}'")
                check.require(name in accumulators, f"'{name}' accumulates before its Init")
                check.require(names[name] == value.dtype, f"'{name}' accumulates a {value.dtype}")
            case Store(buffer, index, value):
                check.store(buffer, index, value.dtype, axes)
            case Prefetch(buffer, index):
                check.scope(index, axes)
                check.require(buffer in check.buffers, f"buffer '{buffer}' is not declared")
            case Transpose(buffer=buffer, index=index, value=value):
                check.store(buffer, index, value.dtype, inner)
            case StoreRow(buffer, index, _, stride, value):
                check.scatter(buffer, index, stride, value.dtype, axes)
            case Sweep(outputs=outputs) | PairSums(outputs=outputs):
                for name in (*outputs, *stmt.own):
                    dtype = scalars(stmt)[0].dtype
                    check.store(name, Index(), dtype, axes)
            case PairTotals(sums=sums):
                for name in (*sums.outputs, sums.partial):
                    check.store(name, Index(), sums.a.dtype, axes)
            case Tile():
                same = stmt.lhs.dtype == stmt.rhs.dtype
                check.require(same, "the operands of a tile have different dtypes")
                if stmt.source is not None:
                    check.store(stmt.rhs.name, stmt.rhs.index, stmt.source.dtype, inner)
                if stmt.slice is not None:
                    check.scope(Index.of(stmt.slice[0]), axes)
                known = {**names, stmt.acc: stmt.lhs.dtype}
                _body(stmt.ahead, check, (*axes, stmt.m, stmt.n), names, accumulators)
                _body(stmt.epilogue, check, (*axes, stmt.m, stmt.n), known, accumulators)


def _declared(label: str, buffers: Iterable[Buffer]) -> dict[str, Buffer]:
    found: dict[str, Buffer] = {}
    for b in buffers:
        if b.name in found:
            raise ValueError(f"{label}: buffer '{b.name}' is declared twice")
        found[b.name] = b
    return found


@dataclass
class _Check:
    label: str
    buffers: Mapping[str, Buffer]
    stored: set[str] = field(default_factory=set)
    stepped: set[Var] = field(default_factory=set)  # do not reach their extent - 1

    def require(self, condition: bool, message: str) -> None:
        if not condition:
            raise ValueError(f"{self.label}: {message}")

    def flags(self, buffers: Iterable[Buffer]) -> None:
        """Written is what is stored to, nothing else."""
        for b in buffers:
            said = "is" if b.written else "is not"
            done = "stored to" if b.name in self.stored else "never stored to"
            agree = b.written == (b.name in self.stored)
            self.require(agree, f"buffer '{b.name}' {said} declared as written but {done}")

    def expression(self, root: Scalar, axes: tuple[Var, ...], names: Mapping[str, DType]) -> None:
        for s in walk([root]):
            self.scope(s.index, axes)
            match s.kind:
                case "load":
                    for guard in s.guards:
                        self.scope(guard.value, axes)
                    free = not s.guards and not s.args
                    self.access(s.name, s.index, s.dtype, bounded=free)
                case "ref":
                    self.require(s.name in names, f"'{s.name}' is used before it is defined")
                    kept = names[s.name]
                    self.require(kept == s.dtype, f"'{s.name}' is {kept}, used as {s.dtype}")
                case "apply":
                    self.apply(s)

    def apply(self, s: Scalar) -> None:
        op = REGISTRY.get(s.name)
        if op is None or op.lowering is not Lowering.MAP:
            raise ValueError(f"{self.label}: '{s.name}' is no elementwise op")
        attrs = {"dtype": s.dtype} if s.name in ("cast", "bitcast") else {}
        try:
            result = op.type_rule(*(TensorType(a.dtype, ()) for a in s.args), **attrs).dtype
        except (ValueError, TypeError) as error:
            raise ValueError(f"{self.label}: {s}: {error}") from error
        self.require(result == s.dtype, f"{s} is {result}, not {s.dtype}")

    def scope(self, index: Index, axes: tuple[Var, ...]) -> None:
        for var in index.variables:
            self.require(var in axes, f"variable {var} of [{index}] is not in scope")

    def store(self, name: str, index: Index, dtype: DType, axes: tuple[Var, ...]) -> None:
        self.scope(index, axes)
        self.access(name, index, dtype, bounded=True)
        self.stored.add(name)

    def scatter(
        self, name: str, index: Index, stride: int, dtype: DType, axes: tuple[Var, ...]
    ) -> None:
        self.scope(index, axes)
        self.access(name, index, dtype, bounded=False)
        low, high = index.bounds
        inside = (low or 0) >= 0 and (high is None or high < max(stride, 1))
        self.require(inside, f"'{name}' is added to at [{index}], outside of a row of {stride}")
        self.stored.add(name)

    def access(self, name: str, index: Index, dtype: DType, *, bounded: bool) -> None:
        if name not in self.buffers:
            raise ValueError(f"{self.label}: buffer '{name}' is not declared")
        b = self.buffers[name]
        self.require(b.dtype == dtype, f"'{name}' holds {b.dtype}, accessed as {dtype}")
        if bounded and not (index.variables & self.stepped) and leaves(index, b.size):
            raise ValueError(f"{self.label}: {name}[{index}] leaves 0 .. {b.size} - 1")


def leaves(index: Index, size: Dim) -> bool:
    """Whether an affine index certainly leaves 0 .. size - 1 somewhere (False where unsure).

    The largest value is linear in the one symbol s: slope * s + offset; s is at least 1.
    """
    slope, offset, low = 0, index.constant, index.constant
    symbols = {size.symbol} if isinstance(size, Extent) else set()
    for atom, coefficient in index.terms:
        if not isinstance(atom, Var) or atom.extent == 0:
            return False
        if isinstance(atom.extent, Extent):
            symbols.add(atom.extent.symbol)
        if coefficient < 0:
            if isinstance(atom.extent, Extent):
                return True  # below zero for a large symbol
            low += coefficient * (atom.extent - 1)
        elif isinstance(atom.extent, Extent):
            slope += coefficient * atom.extent.coefficient
            offset -= coefficient
        else:
            offset += coefficient * (atom.extent - 1)
    if len(symbols) > 1:
        return low < 0
    grows = size.coefficient if isinstance(size, Extent) else 0
    room = 0 if isinstance(size, Extent) else size
    return low < 0 or slope > grows or slope + offset >= grows + room
