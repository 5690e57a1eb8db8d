"""Takes loops and sums, gives LLVM loops: whole vectors first, what is left under a mask.

What does not depend on a loop is computed before it is entered.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property

from ir.dependence import written
from ir.index import Var
from ir.loops import (
    Accumulate,
    For,
    Init,
    Let,
    Stmt,
    statements,
)
from ir.scalar import Scalar
from ir.types import Dim, Extent, i64
from nncompiler.codegen.costs import operations
from nncompiler.codegen.neighbours import Neighbours
from nncompiler.codegen.scope import Binding
from nncompiler.codegen.sums import Sums, accumulated, scalars_of
from nncompiler.codegen.values import Value, constant, number_of

LONG_BODY = 64  # operations; a longer body is not written a second time for the last lanes
REDUCTION_CHAINS = 4  # independent sums that hide the latency of an addition
MANY_SUMS = 5  # as many of them in one loop hide it from each other


@dataclass(frozen=True)
class Range:
    """The part of a loop that this call runs: `start` is a multiple of `grain`, and `stop` is one
    too or the end of the loop."""

    start: Value
    stop: Value
    grain: int


class Loops(Sums, ABC):
    """Writes loops around blocks of statements."""

    @cached_property
    def ranges(self) -> dict[str, Range]:
        """What this call runs of the axes that are dealt out, by their names."""
        return {}

    @abstractmethod
    def block(self, body: Sequence[Stmt]) -> None:
        """Write statements one after the other."""

    def range(self, var: Var) -> Range:
        """Where the loop over a variable runs: from 0 to its extent, but for a split's axes."""
        found = self.ranges.get(var.name)
        return found or Range(constant(0, i64), self.extent(var.extent), 1 << 30)

    def clip(self, var: Var, start: int, stop: int) -> tuple[Value, Value]:
        """What this call runs of start .. stop, where whole blocks or the rest of a loop lie."""
        part = self.ranges.get(var.name)
        if part is None:
            return constant(start, i64), constant(stop, i64)
        first = part.start if start == 0 else constant(start, i64)
        if stop == var.extent:
            return first, part.stop
        return first, self.e.minimum(part.stop, constant(stop, i64))

    # ------------------------------------------------------------ loops

    def write_loop(self, stmt: For) -> None:
        """A loop of any kind: serial, unrolled, over lanes."""
        if stmt.kind == "unroll":
            self._unrolled(stmt)
            return
        if stmt.kind == "vector" and stmt.var.extent == 1 and not accumulated(stmt.body):
            stmt = replace(stmt, kind="serial", step=1)  # of one point there are no lanes
        if stmt.kind == "vector" and stmt.step > 1:
            self._vector_loop(stmt)
            return
        self.hoist(stmt.body)
        if stmt.kind == "shifted vector":
            self._shifted_vector(stmt)
        elif stmt.kind == "unroll vector":
            self._unrolled_vector(stmt)
        else:
            part = self.range(stmt.var)
            self._run(stmt.var, part.start, part.stop, stmt.step, [stmt.body])

    def _unrolled(self, stmt: For) -> None:
        assert isinstance(stmt.var.extent, int)
        for i in range(stmt.var.extent):
            with self.bound(stmt.var, Binding(constant(i, i64))):
                self.block(stmt.body)

    def _unrolled_vector(self, stmt: For) -> None:
        extent, lanes = stmt.var.extent, stmt.step
        assert isinstance(extent, int)
        for start in range(0, extent, lanes):
            mask = None
            if start + lanes > extent:
                mask = self.e.lane_mask(constant(extent - start, i64), lanes)
            with self.bound(stmt.var, Binding(constant(start, i64), lanes, mask)):
                self.block(stmt.body)

    def _shifted_vector(self, stmt: For) -> None:
        self.push()  # what it has loaded is no longer in a register when the next one begins
        self.shifted = Neighbours(stmt.var, stmt.step)
        self._unrolled_vector(stmt)
        self.shifted = None
        self.pop()

    def _vector_loop(self, stmt: For) -> None:
        lanes, var = stmt.step, stmt.var
        carried = accumulated(stmt.body)
        partial = sum(self.is_partial(n) for n in carried)
        chains = REDUCTION_CHAINS if 0 < partial < MANY_SUMS else 1
        if isinstance(var.extent, int) and var.extent < 2 * lanes * chains:
            chains = 1
        part = self.range(var)
        assert part.grain % lanes == 0, "chunks hold whole vectors"
        start, end = part.start, part.stop
        self.finish(stmt.body)
        if number_of(end) is not None:
            self.hoist(stmt.body)
        self.streams.enter(stmt)
        if chains > 1:
            stop = self._whole(end, lanes * chains)
            self._vectors(stmt, start, stop, chains)
            start = stop
        is_whole = _is_multiple(var.extent, lanes)
        once = not (is_whole or carried) and self._is_written_once(stmt.body)
        stop = end if is_whole or once else self._whole(end, lanes)
        self._vectors(stmt, start, stop, 1, masked=once)
        self.streams.leave()
        if stop is not end:
            self._tail(stmt, stop, end)

    def _is_written_once(self, body: Sequence[Stmt]) -> bool:
        """Is it better to mask every vector than to write the code for the last one again?"""
        is_stream = self.streams.read or self.streams.written
        return self.e.target.has_masks and not is_stream and operations(body) > LONG_BODY

    def _vectors(
        self, stmt: For, start: Value, stop: Value, chains: int, masked: bool = False
    ) -> None:
        """Vectors from `start` to `stop`, `chains` of them at once, all of them whole or masked.

        Of a loop of unknown length what does not depend on it is computed where it is entered: a
        short batch, which never gets there, does not keep those values from the registers.
        """
        step = stmt.step * chains

        def run() -> None:
            self._run(stmt.var, start, stop, step, [stmt.body] * chains, stmt.step, masked)

        def enter() -> None:
            self.hoist(stmt.body)
            run()

        if number_of(stop) is not None:
            run()
        else:
            self._where(self.e.icmp("slt", start, stop), accumulated(stmt.body), enter)

    def _whole(self, extent: Value, step: int) -> Value:
        """The largest multiple of `step` that is at most `extent`."""
        number = number_of(extent)
        if number is not None:
            return constant(int(number) // step * step, i64)
        rest = self.e.value(f"urem i64 {extent.text}, {step}", i64)
        return self.e.sub(extent, rest)

    def _tail(self, stmt: For, start: Value, extent: Value) -> None:
        """What is left after the last whole vector, under a mask."""
        left = self.e.sub(extent, start)
        number = number_of(left)
        if number == 0:
            return
        if number is not None:
            self._masked_once(stmt, start, left)
            return
        some = self.e.icmp("ne", left, constant(0, i64))
        self._where(some, accumulated(stmt.body), lambda: self._masked_once(stmt, start, left))

    def _where(self, condition: Value, changed: Iterable[str], run: Callable[[], None]) -> None:
        """What `run` writes, under a condition; it changes the accumulators of these names."""
        names = [n for n in changed if n in self.accumulators]
        before = {n: self.accumulators[n].value for n in names}
        came_from = self.e.block
        do, done = self.e.new_label("do"), self.e.new_label("done")
        self.e.branch_if(condition, do, done)
        self.e.label(do)
        self.push()
        run()
        self.pop()
        end = self.e.block
        self.e.branch(done)
        self.e.label(done)
        for name in names:
            after = self.accumulators[name].value
            self.accumulators[name].value = self.phi(before[name], came_from, after, end)

    def _masked_once(self, stmt: For, start: Value, left: Value) -> None:
        mask = self.e.lane_mask(left, stmt.step)
        with self.bound(stmt.var, Binding(start, stmt.step, mask, left)):
            self.block(stmt.body)

    def phi(self, a: Value, from_a: str, b: Value, from_b: str) -> Value:
        text = f"phi {a.type} [ {a.text}, %{from_a} ], [ {b.text}, %{from_b} ]"
        return self.e.value(text, a.dtype, a.lanes, key=False)

    def _run(
        self,
        var: Var,
        start: Value,
        stop: Value,
        step: int,
        bodies: list[tuple[Stmt, ...]],
        lanes: int = 1,
        masked: bool = False,
    ) -> None:
        """for var in start .. stop: the bodies, each `lanes` further on, with sums of their own;
        masked, lanes beyond the end do nothing."""
        names = [n for n in accumulated(bodies[0]) if n in self.accumulators]
        chains = len(bodies)
        carried: list[Value] = []
        for name in names:
            total = self.accumulators[name].value
            carried.append(total)
            combine = self.accumulators[name].combine
            carried += [self.neutral(combine, total)] * (chains - 1)

        def body(i: Value, now: list[Value]) -> list[Value]:
            for chain, statements_ in enumerate(bodies):
                for number, name in enumerate(names):
                    self.accumulators[name].value = now[number * chains + chain]
                base = self.e.add(i, constant(chain * lanes, i64))
                left = self.e.sub(stop, base) if masked else None
                mask = self.e.lane_mask(left, lanes) if left else None
                with self.bound(var, Binding(base, lanes, mask, left)):
                    self.block(statements_)
                for number, name in enumerate(names):
                    now[number * chains + chain] = self.accumulators[name].value
            return now

        after = self.loop(start, stop, step, carried, body)
        for number, name in enumerate(names):
            parts = after[number * chains : (number + 1) * chains]
            while len(parts) > 1:
                combine = self.accumulators[name].combine
                pairs = zip(parts[::2], parts[1::2], strict=True)
                parts = [self.e.combine(combine, a, b) for a, b in pairs]
            self.accumulators[name].value = parts[0]

    def loop(
        self,
        start: Value,
        stop: Value,
        step: int,
        carried: list[Value],
        body: Callable[[Value, list[Value]], list[Value]],
    ) -> list[Value]:
        """A counted loop, tested at its end; gives the carried values after it."""
        first, last = number_of(start), number_of(stop)
        known = first is not None and last is not None
        if known and int(first or 0) >= int(last or 0):
            return carried
        if known and int(first or 0) + step >= int(last or 0):
            return body(start, list(carried))
        e = self.e
        before = e.block
        head, done = e.new_label("loop"), e.new_label("end")
        if known:
            e.branch(head)
        else:
            e.branch_if(e.icmp("slt", start, stop), head, done)
        e.label(head)
        self.push()
        i = Value(e.new_name("i"), i64)
        phis = [Value(e.new_name("sum"), v.dtype, v.lanes) for v in carried]
        at = len(e.lines)
        e.lines.extend([""] * (1 + len(phis)))
        after = body(i, list(phis))
        following = e.value(f"add nuw nsw i64 {i.text}, {step}", i64, key=False)
        again = e.icmp("slt", following, stop)
        latch = e.block
        e.branch_if(again, head, done)
        e.lines[at] = _phi_line(i, start, before, following, latch)
        for number, (phi, old, new) in enumerate(zip(phis, carried, after, strict=True)):
            e.lines[at + 1 + number] = _phi_line(phi, old, before, new, latch)
        self.pop()
        e.label(done)
        if known:
            return after
        return [self.phi(a, before, b, latch) for a, b in zip(carried, after, strict=True)]

    @contextmanager
    def bound(self, var: Var, binding: Binding) -> Iterator[None]:
        """Bind a loop variable for the statements inside."""
        old = self.bindings.get(var.name)
        self.bindings[var.name] = binding
        yield
        if old is None:
            del self.bindings[var.name]
        else:
            self.bindings[var.name] = old

    # ------------------------------------------------------------ loop-invariant expressions

    def hoist(self, body: Iterable[Stmt]) -> None:
        """Compute what does not depend on the loop before entering it."""
        body = list(body)
        unfinished = {s.name for s in statements(body) if isinstance(s, (Let, Init, Accumulate))}
        stored = written(body)
        changing: set[Scalar] = set()  # with what they are made of
        for s in scalars_of(body):  # operands first
            if (s.kind == "load" and s.name in stored) or not changing.isdisjoint(s.args):
                changing.add(s)
                continue
            worthwhile = s.kind in ("apply", "load", "ref")
            if worthwhile and unfinished.isdisjoint(self.dependences(s)) and self._is_known(s):
                self.evaluate(s)

    def _is_known(self, s: Scalar) -> bool:
        return all(
            n in self.bindings or n in self.values or n in self.accumulators
            for n in self.dependences(s)
        )


def _is_multiple(extent: Dim, step: int) -> bool:
    count = extent.coefficient if isinstance(extent, Extent) else extent
    return count % step == 0


def _phi_line(phi: Value, first: Value, before: str, then: Value, latch: str) -> str:
    kind = phi.type
    return f"  {phi.text} = phi {kind} [ {first.text}, %{before} ], [ {then.text}, %{latch} ]"
