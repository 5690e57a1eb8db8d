"""Takes a choice of workloads, gives a table of times per call beside other libraries.

    python -m tests.bench                           everything
    python -m tests.bench --only digits --seconds 5
    python -m tests.bench --json out.json

The peers are NumPy, PyTorch, JAX, ONNX Runtime (inference and products), scikit-learn (training it
can do the same way) and tinygrad (needs clang). All that are installed do the same work from the
same weights, one thread each and pinned to one core, in turns in one process; their first losses
are compared before anything is timed. A peer that cannot do a workload has no line there.
Ratios are best / best: above 1 the peer is slower than the first one.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

THREADS = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "NNC_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "JAX_PLATFORMS": "cpu",
    "NPROC": "1",  # XLA takes the size of its thread pool from it
    "NUM_CPU_THREADS": "1",  # tinygrad's, as are the following
    "DEV": "CPU:CLANG",
    "CACHELEVEL": "0",  # no kernels on disk: a missing compiler shows at once
}
PEERS = ("nncompiler", "numpy", "torch", "jax", "onnxruntime", "sklearn", "tinygrad")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--only", default="", help="workloads whose name contains this")
    parser.add_argument("--peers", default=",".join(PEERS), help="comma-separated")
    parser.add_argument("--seconds", type=float, default=2.0, help="per peer and workload")
    parser.add_argument("--json", type=Path, help="write all the figures there")
    parser.add_argument("--no-start-up", action="store_true", help="leave import and compile out")
    options = parser.parse_args(arguments)
    os.environ.update(THREADS)  # before any peer is imported
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

    # the peers read these when they are imported, so nothing heavy may come earlier
    workloads = importlib.import_module("tests.bench.workloads").WORKLOADS
    peers = load(options.peers.split(","))
    rows = []
    for workload in workloads:
        if options.only in workload.name:
            row = measure(workload, peers, options.seconds)
            if row["times"]:
                rows.append(row)
                print(table_row(row), flush=True)
    times: dict[str, float] = {}
    if not options.no_start_up:
        from tests.bench.start_up import passes, start_up
        from tests.bench.timing import readable

        times = {**start_up(), **passes()}
        for name, seconds in times.items():
            print(f"{name:46s} {readable(seconds)}")
    if options.json:
        options.json.write_text(json.dumps({"workloads": rows, "start up": times}, indent=1))
    return 1 if any(row["mismatch"] for row in rows) else 0


def load(names: list[str]) -> list[Any]:
    """The peers' modules; one that is not installed or cannot run is left out, and said so."""
    peers = []
    for name in names:
        try:
            peers.append(importlib.import_module(f"tests.bench.peer_{name}"))
        except ImportError as error:
            print(f"{name} is left out: {error}")
    return peers


def measure(workload: Any, peers: list[Any], seconds: float) -> dict[str, Any]:
    from tests.bench.timing import interleave
    from tests.bench.workloads import flops

    runs: dict[str, Callable[[], Any]] = {}
    for peer in peers:
        for way, run in peer.build(workload).items():
            runs[" ".join(filter(None, (peer.NAME, way)))] = run
    mismatch = compare({name: number(run()) for name, run in runs.items()})
    times = interleave(runs, seconds=seconds)
    return {
        "name": workload.name,
        "flops": flops(workload),
        "mismatch": mismatch,
        "times": {name: vars_of(t) for name, t in times.items()},
    }


def vars_of(timing: Any) -> dict[str, float]:
    return {"best": timing.best, "median": timing.middle, "blocks": timing.blocks}


def number(value: Any) -> float:
    """One number that stands for a result: a loss, or the mean size of an output's elements."""
    import numpy as np

    if hasattr(value, "detach"):  # a tensor of PyTorch or tinygrad
        value = value.detach().numpy()
    array = np.asarray(value, np.float64)
    return float(np.abs(array).mean())


def compare(results: dict[str, float]) -> list[str]:
    """The names whose first result differs from the first one's by more than 1e-4."""
    first = next(iter(results.values()), 0.0)
    return [
        f"{name}: {value} instead of {first}"
        for name, value in results.items()
        if not abs(value - first) <= 1e-4 * abs(first) + 1e-7
    ]


def table_row(row: dict[str, Any]) -> str:
    from tests.bench.timing import readable

    times = row["times"]
    ours = next(t["best"] for t in times.values())
    cells = []
    for name, t in times.items():
        ratio = "" if t["best"] == ours else f" = {t['best'] / ours:.2f} x"
        cells.append(f"{name} {readable(t['best'])} (median {readable(t['median'])}){ratio}")
    rate = row["flops"] / ours / 1e9
    lines = [f"{row['name']}: {rate:.3g} GFLOP/s", *(f"    {cell}" for cell in cells)]
    lines += [f"    MISMATCH {text}" for text in row["mismatch"]]
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
