"""Takes a profile, gives how near its kernels come to the measured limits of this machine.

A kernel that does I operations per byte can run at min(peak, I * bandwidth): the roofline of
Williams, Waterman and Patterson (2009). Both limits are those of one thread, measured once per
process by native code: multiply-adds on registers alone, and a sum of arrays out of every cache.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from ir import ops
from ir.graph import Graph
from ir.types import DType, f32
from nncompiler.codegen.emit import Emitter
from nncompiler.codegen.llvm import assemble, host
from nncompiler.codegen.values import Value, constant
from nncompiler.compilation import compile_graph
from nncompiler.options import Options
from nncompiler.table import Table
from runtime.artifact import Artifact, Plan
from runtime.loader import load
from runtime.profile import ProfileRow
from runtime.session import Session

CHAINS = 12  # independent multiply-adds, enough to keep every unit busy
ROUNDS = 20_000
STREAM = 1 << 24  # elements of the arrays that are added: 64 MiB each
REPEATS = 5


@dataclass(frozen=True)
class Limits:
    """Limits of one thread: GFLOP/s of multiply-adds, GB/s to and from memory."""

    peak: float
    bandwidth: float

    def limit(self, row: ProfileRow) -> float:
        """GFLOP/s that the roofline allows a kernel; infinite where it moves nothing."""
        if not row.gbps:
            return self.peak
        return min(self.peak, row.gflops / row.gbps * self.bandwidth)

    def fraction(self, row: ProfileRow) -> float:
        """How much of what the roofline allows is reached; above 1 where data stay in a cache."""
        if row.gflops:
            return row.gflops / self.limit(row)
        return row.gbps / self.bandwidth


@cache
def measured_limits(dtype: DType = f32) -> Limits:
    """The limits of this machine for a dtype, measured at the first use (about 0.2 s)."""
    peak = peak_probe(dtype)
    return Limits(max(peak() for _ in range(REPEATS)), _bandwidth(dtype))


@dataclass(frozen=True)
class ProfileTable(Table):
    """A profile: its table, its figures per kernel, and the limits that they are held against."""

    kernels: tuple[ProfileRow, ...] = ()
    limits: Limits = Limits(0.0, 0.0)

    def plot(self, path: str | None = None) -> Any:
        """The roofline with a point per kernel, as a matplotlib figure (the extra `plot`).

        Written where a path is given. ImportError names the extra if matplotlib is missing.
        """
        return _plot(self.kernels, self.limits, path)


def profile_table(rows: Sequence[ProfileRow], dtype: DType) -> ProfileTable:
    """Rows of a profile, the time of one call, and how near each kernel comes to the roofline."""
    limits = measured_limits(dtype)
    cells = tuple(
        (
            row.label,
            f"{1e6 * row.seconds / row.calls:.2f}",
            f"{row.gflops:.2f}",
            f"{row.gbps:.2f}",
            f"{100 * row.share:.1f}%",
            f"{100 * limits.fraction(row):.0f}%",
        )
        for row in rows
    )
    calls = rows[0].calls if rows else 1
    total = 1e6 * sum(row.seconds for row in rows) / calls
    notes = (
        "",
        f"{total:.2f} us per call, mean of {calls} calls, one thread",
        f"roofline of this machine: {limits.peak:.0f} GFLOP/s, {limits.bandwidth:.1f} GB/s from "
        "memory; above 100% where data stay in a cache",
    )
    header = ("kernel", "us", "GFLOP/s", "GB/s", "share", "of roofline")
    return ProfileTable(header, cells, notes, tuple(rows), limits)


def peak_probe(dtype: DType) -> Callable[[], float]:
    """Measures, at every call, the GFLOP/s of multiply-adds on registers alone (about 0.1 ms)."""
    target = host()
    lanes = target.lanes(dtype)
    e = Emitter(target)
    start = [constant(0.1 * i, dtype, lanes) for i in range(CHAINS)]
    factor, term = constant(0.999, dtype, lanes), constant(0.001, dtype, lanes)
    kind = start[0].type
    e.branch("loop")
    e.label("loop")
    e.do("%i = phi i64 [ 0, %entry ], [ %next, %loop ]")
    sums = [Value(f"%sum{i}", dtype, lanes) for i in range(CHAINS)]
    at = len(e.lines)
    e.lines.extend([""] * CHAINS)
    after = [e.fma(s, factor, term) for s in sums]
    for i, (s, first, last) in enumerate(zip(sums, start, after, strict=True)):
        phi = f"phi {kind} [ {first.text}, %entry ], [ {last.text}, %loop ]"
        e.lines[at + i] = f"  {s.text} = {phi}"
    e.do("%next = add i64 %i, 1")
    e.do(f"%more = icmp slt i64 %next, {ROUNDS}")
    e.do("br i1 %more, label %loop, label %done")
    e.label("done")
    total = after[0]
    for s in after[1:]:
        total = e.add(total, s)
    e.do(f"store {total.typed}, ptr %bufs, align 64")
    e.do("ret i64 0")
    body = e.function("i64 @peak(ptr %bufs, ptr %syms, ptr %team)")
    module = "\n".join([f'target triple = "{target.triple}"', *e.declarations, body])
    plan = Plan("peak", [], [], [], {}, {}, [], [], [], "peak", target.name)
    program = load(Artifact(plan, assemble(module, target)))  # its code lives as long as it does
    memory = np.zeros(64 + lanes, np.float64)
    where = -(-memory.ctypes.data // 64) * 64

    def measure() -> float:
        assert memory.size  # it lives as long as this function
        start = time.perf_counter()
        program.entry(where, None, None)
        return 2 * CHAINS * lanes * ROUNDS / (time.perf_counter() - start) / 1e9

    return measure


def _bandwidth(dtype: DType) -> float:
    size = STREAM * f32.bytes // dtype.bytes
    a, b = ops.input("a", dtype, (size,)), ops.input("b", dtype, (size,))
    graph = Graph("add", (a, b), {"sum": a + b})
    session = Session(compile_graph(graph, options=Options(cache=False, threads=1)))
    data = np.ones(size, dtype.numpy)
    bound = session.bind({"a": data, "b": data})
    seconds = _best(lambda: bound.run(1))
    return 3 * size * dtype.bytes / seconds / 1e9


def _best(function: Callable[[], Any]) -> float:
    best = float("inf")
    for _ in range(REPEATS):
        start = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - start)
    return best


def _plot(rows: tuple[ProfileRow, ...], limits: Limits, path: str | None = None) -> Any:
    """A line for what the machine allows, a point per kernel, larger where more time goes."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("a plot needs matplotlib: pip install 'nncompiler[plot]'") from error
    shown = [row for row in rows if row.gflops and row.gbps]
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    intensity = [row.gflops / row.gbps for row in shown]
    ridge = limits.peak / limits.bandwidth
    low, high = min([*intensity, ridge]) / 2, max([*intensity, ridge]) * 2
    roof = [low, ridge, high]
    axes.plot(roof, [min(limits.peak, x * limits.bandwidth) for x in roof], color="black")
    for row, x in zip(shown, intensity, strict=True):
        axes.scatter([x], [row.gflops], s=20 + 400 * row.share)
        axes.annotate(row.label, (x, row.gflops), fontsize=6)
    axes.set(xscale="log", yscale="log", xlabel="operations per byte", ylabel="GFLOP/s")
    axes.set_title(
        f"peak {limits.peak:.0f} GFLOP/s, memory {limits.bandwidth:.1f} GB/s, one thread"
    )
    if path is not None:
        figure.savefig(path)
    return figure
