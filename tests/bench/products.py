"""Takes nothing, gives a table of matrix products beside torch.mm and the peak of this core.

    python -m tests.bench.products                     all shapes and orders, about two minutes
    python -m tests.bench.products --only 256x256x256 --orders AB,ABt --dtype f64

Operands and results lie in fixed buffers. Ours, torch.mm(out=) where PyTorch is installed, and a
loop of multiply-adds on registers alone take turns in one process on one core; the best block of
each counts, and the median of the ratios block by block. A and B are M x K and K x N; A' and B'
are handed over transposed.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

BLOCK = 2e-3  # seconds of a measurement; longer products are measured one by one
SHAPES = (
    *("64x64x64", "128x784x512", "32x784x128", "256x256x256", "512x512x512", "1024x1024x1024"),
    *("2048x2048x2048", "1000x1000x1000", "17x300x1000", "1x784x512", "32x512x256"),
)
WIDE = ("64x64x64", "128x784x512", "256x256x256", "1024x1024x1024", "1x784x512")  # in f64, too
ORDERS = ("AB", "AtB", "ABt")


@dataclass(frozen=True)
class Row:
    """A product: GFLOP/s of ours, of the peer's (0 without one) and of the registers alone."""

    name: str
    ours: float
    peer: float
    ratio: float  # the median of peer's time / ours
    peak: float
    error: float

    def text(self) -> str:
        beside = f"{self.peer:7.1f} {self.ours / self.peer:6.2f} {self.ratio:6.2f}"
        shown = beside if self.peer else " " * 21
        of_peak = self.ours / self.peak
        return f"{self.name:26}{self.ours:7.1f} {shown} {of_peak:6.2f} {self.error:9.1e}"


def product(order: str, shape: str, dtype: str) -> Any:
    """The compiled product of two arrays on fixed buffers: (bound call, a, b)."""
    import numpy as np

    from ir import ops
    from ir.graph import Graph
    from nncompiler.compilation import compile_graph
    from nncompiler.options import Options
    from runtime.session import Session

    m, k, n = map(int, shape.split("x"))
    a = ops.input("a", dtype, (k, m) if order == "AtB" else (m, k))
    b = ops.input("b", dtype, (n, k) if order == "ABt" else (k, n))
    c = (a.T if order == "AtB" else a) @ (b.T if order == "ABt" else b)
    session = Session(compile_graph(Graph("product", (a, b), {"c": c}), options=Options(threads=1)))
    random = np.random.default_rng(0)
    data = {x.attrs["id"]: random.normal(size=x.shape).astype(x.dtype.numpy) for x in (a, b)}
    return session.bind(data), data["a"], data["b"]


def beside_torch(order: str, a: Any, b: Any) -> tuple[Callable[[int], object], Any] | None:
    """(so many calls of torch.mm, its result); None without PyTorch."""
    try:
        import torch
    except ImportError:
        return None
    torch.set_num_threads(1)
    x, y = torch.from_numpy(a), torch.from_numpy(b)
    x, y = (x.t() if order == "AtB" else x), (y.t() if order == "ABt" else y)
    out = torch.empty(x.shape[0], y.shape[1], dtype=x.dtype)

    def run(count: int) -> None:
        for _ in range(count):
            torch.mm(x, y, out=out)

    return run, out.numpy()


def measure(order: str, shape: str, dtype: str, seconds: float, probe: Callable[[], float]) -> Row:
    """Blocks in turns, for about `seconds`."""
    import numpy as np

    bound, a, b = product(order, shape, dtype)
    m, k, n = map(int, shape.split("x"))
    flops = 2.0 * m * k * n
    peer = beside_torch(order, a, b)
    runs = [bound.run, *([peer[0]] if peer else [])]
    times: list[list[float]] = [[] for _ in runs]
    counts = []
    for run in runs:
        run(3)
        start = time.perf_counter()
        run(3)
        counts.append(max(1, round(3 * BLOCK / (time.perf_counter() - start))))
    peak = 0.0
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[0]) < 7:
        peak = max(peak, *(probe() for _ in range(10)))
        for run, count, found in zip(runs, counts, times, strict=True):
            start = time.perf_counter()
            run(count)
            found.append((time.perf_counter() - start) / count)
    ours = flops / min(times[0]) / 1e9
    name, c = f"{order} {shape} {dtype}", bound.outputs["c"]
    exact = peer[1] if peer else (a.T if order == "AtB" else a) @ (b.T if order == "ABt" else b)
    error = float(np.max(np.abs(c - exact)) / np.max(np.abs(exact)))
    if peer is None:
        return Row(name, ours, 0.0, 0.0, peak, error)
    ratios = [theirs / mine for mine, theirs in zip(*times, strict=True)]
    return Row(name, ours, flops / min(times[1]) / 1e9, median(ratios), peak, error)


def cases(options: argparse.Namespace) -> Iterator[tuple[str, str, str]]:
    wanted = options.only.split(",") if options.only else []
    for dtype in ("f32", "f64"):
        for shape in wanted or (SHAPES if dtype == "f32" else WIDE):
            if options.dtype in ("", dtype):
                yield from ((order, shape, dtype) for order in options.orders.split(","))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="shapes M x K x N, as 64x64x64,1x784x512")
    parser.add_argument("--orders", default=",".join(ORDERS))
    parser.add_argument("--dtype", default="", choices=["", "f32", "f64"])
    parser.add_argument("--seconds", type=float, default=0.5, help="per product")
    options = parser.parse_args()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"  # before any peer is imported
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

    from ir.types import dtype_of
    from nncompiler.roofline import peak_probe

    probes = {name: peak_probe(dtype_of(name)) for name in ("f32", "f64")}
    heads = f"{'ours':>7} {'torch':>7} {'best':>6} {'middle':>6} {'/peak':>6} {'error':>9}"
    print(f"{'GFLOP/s':26}{heads}")
    for order, shape, dtype in cases(options):
        print(measure(order, shape, dtype, options.seconds, probes[dtype]).text(), flush=True)
    found = {name: max(probe() for _ in range(20)) for name, probe in probes.items()}
    print("registers alone: " + ", ".join(f"{v:.1f} GFLOP/s {k}" for k, v in found.items()))


if __name__ == "__main__":
    main()
