"""Takes nothing, gives a table: how much quicker several threads are than one.

    python -m tests.bench.threads                 2 threads
    python -m tests.bench.threads --threads 4
    python -m tests.bench.threads --busy          while other processes keep all cores but one busy

Everything runs natively on fixed buffers, threads and one thread in turns. Other work on the
machine spoils the ratios, so every turn waits until the cores are idle (for 3 s at most).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from ir import ops
from ir.graph import Graph
from nncompiler.compilation import compile_graph
from runtime.session import Session
from tests.bench.peer_nncompiler import compile_model
from tests.bench.timing import readable
from tests.bench.workloads import WORKLOADS, batches

Run = Callable[[int], Any]  # so many times, natively
BLOCK = 0.004  # seconds of a measurement
PRODUCTS = (32, 64, 128, 256, 512, 1024)
LENGTHS = (8 << 10, 64 << 10, 1 << 20, 16 << 20)
STEPS = ("digits step", "mnist sgd", "mnist adam")


def product(n: int) -> Graph:
    a, b = (ops.input(name, "f32", (n, n)) for name in "ab")
    return Graph("product", (a, b), {"y": a @ b})


def elementwise(n: int) -> Graph:
    a, b = (ops.input(name, "f32", (n,)) for name in "ab")
    return Graph("elementwise", (a, b), {"y": ops.relu(a * b + a)})


def graph_runs(graph: Graph, counts: list[int]) -> list[Run]:
    artifact = compile_graph(graph)
    random = np.random.default_rng(0)
    data = {
        str(node.attrs["id"]): random.standard_normal(node.shape, dtype=np.float32)  # type: ignore[arg-type]
        for node in graph.inputs
    }
    return [Session(artifact, {}, threads).bind(data).run for threads in counts]


def step_runs(name: str, counts: list[int]) -> list[Run]:
    workload = next(w for w in WORKLOADS if w.name == name)
    x, t = batches(workload)[0]
    return [compile_model(workload, threads).bind(x, t).run for threads in counts]


def measure(runs: list[Run], rounds: int, *, quiet: bool) -> list[list[float]]:
    """Seconds of one run, for all runs in every round."""
    numbers = []
    for run in runs:
        run(3)
        started = time.perf_counter()
        run(3)
        numbers.append(max(1, round(BLOCK * 3 / (time.perf_counter() - started))))
    times: list[list[float]] = [[] for _ in runs]
    for turn in range(rounds):
        if quiet and turn % 4 == 0:
            wait_for_quiet()
        for run, number, found in zip(runs, [min(numbers)] * len(runs), times, strict=True):
            run(number // 4)
            started = time.perf_counter()
            run(number)
            found.append((time.perf_counter() - started) / number)
    return times


def wait_for_quiet(seconds: float = 3.0) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        idle, total = _processor_time()
        time.sleep(0.05)
        later, at_end = _processor_time()
        if later - idle > 0.9 * (at_end - total):
            return


def _processor_time() -> tuple[int, int]:
    stat = Path("/proc/stat")
    if not stat.exists():
        return 1, 1
    fields = [int(f) for f in stat.read_text().splitlines()[0].split()[1:]]
    return fields[3] + fields[4], sum(fields)


def keep_busy() -> list[subprocess.Popen[bytes]]:
    """A process that only counts on every core but the first; they do not run on others."""
    code = "import os, sys; os.sched_setaffinity(0, {int(sys.argv[1])})\nwhile True: pass"
    cores = sorted(os.sched_getaffinity(0))[1:]
    return [subprocess.Popen([sys.executable, "-c", code, str(core)]) for core in cores]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--only", default="", help="rows whose name contains this")
    parser.add_argument("--busy", action="store_true", help="all cores but one are busy")
    options = parser.parse_args()
    counts = [1, options.threads]
    rows: dict[str, Callable[[], list[Run]]] = {}
    for n in PRODUCTS:
        rows[f"product {n}"] = lambda n=n: graph_runs(product(n), counts)  # type: ignore[misc]
    for n in LENGTHS:
        rows[f"elementwise {n}"] = lambda n=n: graph_runs(elementwise(n), counts)  # type: ignore[misc]
    for name in STEPS:
        rows[name] = lambda name=name: step_runs(name, counts)  # type: ignore[misc]
    others = keep_busy() if options.busy else []
    try:
        print(f"{'':22}{'1 thread':>10}{f'{counts[1]} threads':>12}{'best':>8}{'middle':>8}")
        for name, make in rows.items():
            if options.only in name:
                one, many = measure(make(), options.rounds, quiet=not others)
                best, middle = min(one) / min(many), median(one) / median(many)
                shown = f"{readable(min(one)):>10}{readable(min(many)):>12}"
                print(f"{name:22}{shown}{best:8.2f}{middle:8.2f}", flush=True)
    finally:
        for process in others:
            process.kill()


if __name__ == "__main__":
    main()
