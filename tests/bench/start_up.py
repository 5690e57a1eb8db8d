"""Takes names of networks, gives times of import and compiling, cold and from the cache.

    python -m tests.bench.start_up                     a table of all of them
    python -m tests.bench.start_up --only LeNet --rounds 3

Every figure is the least of several fresh processes, one thread each: wall and CPU time from
`nnc.compile` to the end of the first training step.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
LIMITS = {  # what the project asks for: milliseconds cold, and from the cache
    "digits MLP": (250, 20),
    "MNIST MLP": (250, 20),
    "LeNet": (600, 60),
    "ResNet-8": (1500, 60),
    "LSTM, T = 16": (500, 60),
    "LSTM, T = 1024": (500, 60),
}

CHILD = """
import json, sys, time
clock, cpu = time.perf_counter, time.process_time
start = clock(); import nncompiler as nnc; imported = clock() - start
start = clock(); import networkx, llvmlite.binding; needed = clock() - start
from tests.bench.networks import NETWORKS, batch
g, optimizer, shape = NETWORKS[sys.argv[1]]()
x, t = batch(shape)
start, used = clock(), cpu()
model = nnc.compile(g, loss="cross_entropy", optimizer=optimizer)
compiled = clock() - start
model.step(x, t)
both, used = clock() - start, cpu() - used
print(json.dumps({
    "import nncompiler": imported,
    "import networkx and llvmlite": needed,
    "compile": compiled,
    "compile and first step": both,
    "CPU of both": used,
}))
"""


def measure(network: str, cache: str) -> dict[str, float]:
    environment = {
        **os.environ,
        "NNC_CACHE_DIR": cache,
        "NNC_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # users have their bytecode on disk
    command = [sys.executable, "-c", CHILD, network]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    times: dict[str, float] = json.loads(done.stdout)
    return times


def start_up(network: str = "digits MLP", rounds: int = 5) -> dict[str, float]:
    """Seconds by name, the best of `rounds` processes; "cold" starts from an empty cache."""
    times: dict[str, float] = {}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as cache:
            cold, cached = measure(network, cache), measure(network, cache)
        rows = {name: cold[name] for name in cold if name.startswith("import")}
        for label, row in (("cold", cold), ("from the cache", cached)):
            rows |= {f"{k}, {label}": v for k, v in row.items() if not k.startswith("import")}
        times = {name: min(v, times.get(name, v)) for name, v in rows.items()}
    return times


class Stopwatch:
    """An observer of the pipeline: the seconds that every pass took."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.last = time.perf_counter()

    def __call__(self, stage: str, value: object) -> None:
        now = time.perf_counter()
        if stage != "graph":  # what the first pass is given
            self.seconds[f"pass {stage}"] = now - self.last
        self.last = time.perf_counter()


def passes(rounds: int = 5) -> dict[str, float]:
    """Seconds of every pass over the training step, in this process, the best of `rounds`."""
    import nncompiler as nnc
    from nncompiler.pipeline import build
    from tests.bench.peer_nncompiler import graph
    from tests.bench.workloads import DIGITS, Workload

    network = graph(Workload("digits step", "step", **DIGITS))
    optimizer = nnc.SGD(0.02, momentum=0.9)
    step = nnc.compile(network, loss="cross_entropy", optimizer=optimizer).program("step")
    times: dict[str, float] = {}
    for _ in range(rounds):
        watch = Stopwatch()
        build(step.graph, checks=step.checks, observers=[watch])
        times = {name: min(s, times.get(name, s)) for name, s in watch.seconds.items()}
    return times


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="networks whose name contains this")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    print(f"{'milliseconds':16s}     cold (CPU) wanted     from the cache (CPU) wanted")
    for network, (cold, cached) in LIMITS.items():
        if options.only not in network:
            continue
        times = {k: round(1000 * v) for k, v in start_up(network, options.rounds).items()}
        cells = []
        for label, limit in (("cold", cold), ("from the cache", cached)):
            wall = times[f"compile and first step, {label}"]
            cells.append(f"{wall:8d} ({times[f'CPU of both, {label}']:4d}) {limit:6d}")
        print(f"{network:16s} {cells[0]}            {cells[1]}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
