"""Takes a row kernel and its schedule, gives the loop nest.

softmax, lanes over j:                         bias gradient, lanes over j:
for i in batch:                                for j in 128 step 16 (vector):
    max0 = -inf                                    sum0 = 0
    for j (vector): max0 = max(max0, z)            for k in batch: sum0 += g[k*128 + j]
    sum1 = 0                                       b[j] = b[j] - lr * sum0
    for j (vector): sum1 += exp(z - max0)
    for j (vector): p = exp(z - max0) / sum1
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ir import scalar
from ir.index import Index, Remainder, Var
from ir.loops import (
    Accumulate,
    Buffer,
    For,
    Function,
    Init,
    Kernel,
    Let,
    Reduction,
    Scatter,
    Stmt,
    Store,
    Vectorize,
    Write,
)
from ir.nests import identity, start_of, store_row
from ir.scalar import Scalar
from nncompiler.schedule.heuristics import FULL_UNROLL, cost_of
from nncompiler.schedule.pieces import pieces

SCRATCH_LIMIT = 4096  # elements of one thread-local row
KEPT_COST = 4  # instructions that are worth a store and a load


def row_loops(kernel: Kernel) -> Function:
    """The loop nest of a kernel with recipe "rows"."""
    return _Rows(kernel).function()


class _Rows:
    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        vectorize = [d for d in kernel.schedule if isinstance(d, Vectorize)]
        self.lanes = vectorize[0].lanes if vectorize else 1
        name = vectorize[0].axis if vectorize else ""
        self.outer = _nearest_last(kernel, _last(kernel.axes, name))
        self.inner = _last(kernel.reduce_axes, name)
        self.vector = next((v for v in (*self.outer, *self.inner) if v.name == name), None)
        self.depths = {r.name: depth(r.value, kernel.reductions) for r in kernel.reductions}
        self.scratch: dict[Scalar, tuple[int, Buffer]] = {}
        self.stored: dict[Scalar, tuple[int, Write]] = {}

    def function(self) -> Function:
        body, outer = self._point(), self.outer
        if outer and outer[-1] is self.vector and not (self.kernel.reductions or self.inner):
            outer, vector = outer[:-1], outer[-1]
            parts = pieces(self.kernel.writes, vector, self.lanes)
            body = tuple(self._vector_loop(v, tuple(stores(w))) for v, w in parts)
        for v in reversed(outer):
            is_vector = v is self.vector
            body = (self._vector_loop(v, body) if is_vector else For(v, "serial", 1, body),)
        scratch = tuple(buffer for _, buffer in self.scratch.values())
        return Function(self.kernel.label, self.kernel.buffers, body, scratch)

    def _vector_loop(self, axis: Var, body: tuple[Stmt, ...]) -> For:
        kind = "unroll vector" if self._is_cut(axis) else "vector"
        return For(axis, kind, self.lanes, body)

    def _is_cut(self, axis: Var) -> bool:
        """Is the axis short, and are there edges of a padded value along it? Written out, the lanes
        beyond them are constants."""
        if not isinstance(axis.extent, int) or axis.extent > 4 * self.lanes:
            return False
        values = scalar.walk(w.value for w in self.kernel.writes)
        return any(axis in g.value.variables for s in values for g in s.guards)

    def _point(self) -> tuple[Stmt, ...]:
        """All work at one point of the parallel axes: a loop per depth, then the row's results."""
        inner = [(self._level(w.value), w) for w in self.kernel.writes if w.inner]
        levels = sorted({*self.depths.values(), *(d for d, _ in inner)})
        self._choose_scratch(levels, inner)
        self._choose_stored(inner)
        body: list[Stmt] = []
        for level in levels:
            reductions = [r for r in self.kernel.reductions if self.depths[r.name] == level]
            for r in reductions:
                body.append(Init(r.name, identity(r.combine, r.value.dtype)))
            writes = [w for at, w in inner if at == level]
            body.extend(self._sweep(level, reductions, writes))
        body += stores([w for w in self.kernel.writes if not w.inner])
        return tuple(body)

    def _sweep(
        self, level: int, reductions: Sequence[Reduction], writes: list[Write]
    ) -> list[Stmt]:
        """One pass over the reduce axes."""
        body: list[Stmt] = []
        for value, (first, buffer) in self.scratch.items():
            if first == level:
                row = self._use_scratch(value, level)
                body.append(Store(buffer.name, self._scratch_index(), row))
        for r in reductions:
            body.append(Accumulate(r.name, r.combine, self._use_scratch(r.value, level)))
        body += stores([replace(w, value=self._use_scratch(w.value, level)) for w in writes])
        for v in reversed(self.inner):
            if v is self.vector:
                short = isinstance(v.extent, int) and v.extent <= 4 * self.lanes
                kind = "unroll vector" if short else "vector"
                body = [For(v, kind, self.lanes, tuple(body))]
            else:
                body = [For(v, "unroll" if self._is_short else "serial", 1, tuple(body))]
        return body

    @property
    def _is_short(self) -> bool:
        total = 1
        for v in self.inner:
            total *= v.extent if isinstance(v.extent, int) else 2 * FULL_UNROLL
        return total <= FULL_UNROLL and self.vector not in self.inner

    # ------------------------------------------------------------ values kept between passes

    def _choose_scratch(self, levels: list[int], writes: list[tuple[int, Write]]) -> None:
        """What a later pass needs again is kept in a thread-local row, if it costs more to compute
        than to read: the largest such values, so that their operands are not read again."""
        if len(self.inner) != 1 or not isinstance(self.inner[0].extent, int):
            return
        (axis,) = self.inner
        assert isinstance(axis.extent, int)
        if self._is_short or (axis is self.vector and axis.extent <= 4 * self.lanes):
            return  # written out: the values stay in registers
        length = axis.extent if axis is self.vector else axis.extent * self.lanes
        if length > SCRATCH_LIMIT:
            return
        passes = [(self.depths[r.name], r.value) for r in self.kernel.reductions]
        passes += [(level, w.value) for level, w in writes]
        made: dict[Scalar, int] = {}  # value -> the first pass that computes it
        for level in levels:
            values = [value for at, value in passes if at == level]
            for s in self._wanted_again(values, made, axis):
                name = f"row{len(self.scratch)}"
                size = -(-length // self.lanes) * self.lanes
                self.scratch[s] = (made[s], Buffer(name, s.dtype, size, True))
            for s in scalar.walk(values):
                made.setdefault(s, level)

    def _choose_stored(self, writes: list[tuple[int, Write]]) -> None:
        """What a pass writes for others is read by the later passes, where that is less to read
        than its operands: a batch norm's cotangent that was gathered from several places."""
        for level, w in writes:
            if w.value in self.scratch or w.value.kind != "apply":
                continue
            if len({s for s in scalar.loads(w.value) if self._moves_along(s)}) > 1:
                self.stored.setdefault(w.value, (level, w))

    def _moves_along(self, s: Scalar) -> bool:
        return any(v in self.inner for v in scalar.variables(s))

    def _wanted_again(
        self, values: list[Scalar], made: dict[Scalar, int], axis: Var
    ) -> list[Scalar]:
        """The largest parts of `values` that an earlier pass has computed at some cost."""
        found: dict[Scalar, None] = {}
        stack, seen = list(values), set[Scalar]()
        while stack:
            s = stack.pop()
            if s in seen:
                continue
            seen.add(s)
            if s in self.scratch:
                continue
            kept = s.kind == "apply" and s in made and axis in scalar.variables(s)
            if kept and self._cost_again(s) >= KEPT_COST:
                found[s] = None
            else:
                stack.extend(s.args)
        return list(found)

    def _cost_again(self, value: Scalar) -> int:
        """What computing the value once more costs, given what is kept already."""
        total, stack, seen = 0, [value], set[Scalar]()
        while stack:
            s = stack.pop()
            if s in seen or s in self.scratch:
                continue
            seen.add(s)
            total += cost_of(s)
            stack.extend(s.args)
        return total

    def _scratch_index(self) -> Index:
        (axis,) = self.inner
        if axis is self.vector or self.vector is None:
            return Index.of(axis)
        lane = Index(((Remainder(Index.of(self.vector), self.lanes), 1),))
        return Index.of(axis) * self.lanes + lane

    def _use_scratch(self, value: Scalar, level: int) -> Scalar:
        """The value, with what an earlier pass has kept read from where it is; what this very pass
        keeps is still in registers."""
        if not self.scratch and not self.stored:
            return value

        def rule(s: Scalar) -> Scalar | None:
            if s in self.stored and level > self.stored[s][0]:
                write = self.stored[s][1]
                return scalar.load(write.buffer, write.index, s.dtype)
            kept = self.scratch.get(s)
            if kept is None or level <= kept[0]:
                return None
            return scalar.load(kept[1].name, self._scratch_index(), s.dtype)

        return scalar.rewrite(value, rule)

    def _level(self, value: Scalar) -> int:
        return depth(value, self.kernel.reductions)


def depth(value: Scalar, reductions: tuple[Reduction, ...]) -> int:
    """How many passes over the row must be finished before `value` can be computed."""
    by_name = {r.name: r for r in reductions}
    used = [s.name for s in scalar.walk([value]) if s.kind == "ref" and s.name in by_name]
    return max((1 + depth(by_name[u].value, reductions) for u in used), default=0)


def _last(axes: tuple[Var, ...], name: str) -> tuple[Var, ...]:
    """The axes with the one called `name` moved to the end."""
    return (*(v for v in axes if v.name != name), *(v for v in axes if v.name == name))


def stores(writes: Sequence[Write]) -> list[Stmt]:
    """Store all results of a point. Where one overwrites what another still reads (two parameters
    that are updated from each other's old values), all values are computed first."""
    written: set[str] = set()
    conflict = False
    for w in writes:
        conflict = conflict or any(s.name in written for s in scalar.loads(w.value))
        written.add(w.buffer)
    if not conflict:
        return [Store(w.buffer, w.index, w.value) for w in writes]
    names = [f"new{number}" for number in range(len(writes))]
    lets: list[Stmt] = [Let(name, w.value) for name, w in zip(names, writes, strict=True)]
    return lets + [
        Store(w.buffer, w.index, scalar.ref(name, w.value.dtype))
        for name, w in zip(names, writes, strict=True)
    ]


def _nearest_last(kernel: Kernel, axes: tuple[Var, ...]) -> tuple[Var, ...]:
    """Where lanes gather from several rows (a transpose), the loop along those rows is the inner
    one, so that every line of the cache is used while it is there."""
    if len(axes) < 2 or kernel.reductions:
        return axes
    *others, vector = axes
    distant = [
        s.index
        for s in scalar.walk(w.value for w in kernel.writes)
        if s.kind == "load" and (s.index.coefficient(vector) or 0) > 1
    ]
    along = [v for v in others if any(index.coefficient(v) == 1 for index in distant)]
    if len(along) != 1:
        return axes
    return (*(v for v in others if v not in along), vector, *along)


def vector_axis(scatter: Scatter, axes: tuple[Var, ...]) -> Var | None:
    """The last axis, where its points are neighbours in one row."""
    if not axes or scatter.index.coefficient(axes[-1]) != 1:
        return None
    return None if axes[-1] in scalar.variables(scatter.row) else axes[-1]


def scatter_loops(kernel: Kernel) -> Function:
    """Zero the result (or copy its base, or nothing where that is the result itself), then add or
    store row after row, in order: the sum does not depend on threads. Then what is read back."""
    scatter = kernel.scatter
    assert scatter is not None
    buffers = (*kernel.buffers, *kernel.workspace)
    target = next(b for b in buffers if b.name == scatter.buffer)
    cell = Var("z", target.size)
    lanes = next((d.lanes for d in kernel.schedule if isinstance(d, Vectorize)), 1)
    start = Store(target.name, Index.of(cell), start_of(scatter, cell))
    along = vector_axis(scatter, kernel.axes)
    body = [_over(kernel.axes, along, lanes, store_row(scatter))]
    if scatter.base != target.name:
        body.insert(0, For(cell, "vector", lanes, (start,)))
    back = (Store(w.buffer, w.index, w.value) for w in kernel.writes)
    body += [_over(kernel.axes, along, lanes, store) for store in back]
    return Function(kernel.label, kernel.buffers, tuple(body), workspace=kernel.workspace)


def _over(axes: tuple[Var, ...], along: Var | None, lanes: int, stmt: Stmt) -> Stmt:
    """The statement at every point, with lanes along one axis."""
    for v in reversed(axes):
        stmt = For(v, "vector", lanes, (stmt,)) if v is along else For(v, "serial", 1, (stmt,))
    return stmt
