"""Takes nothing, gives times of import, compiling and its passes, the best of several runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent

CHILD = """
import json, time
clock = time.perf_counter
start = clock(); import nncompiler as nnc; imported = clock() - start
start = clock(); import networkx, llvmlite.binding; needed = clock() - start
from tests.bench.peer_nncompiler import graph
from tests.bench.workloads import DIGITS, Workload, batches
w = Workload("digits step", "step", **DIGITS)
x, t = batches(w)[0]
g = graph(w)
start = clock()
model = nnc.compile(g, loss="cross_entropy", optimizer=nnc.SGD(0.02, momentum=0.9))
compiled = clock() - start
start = clock(); model.step(x, t); first = clock() - start
print(json.dumps({
    "import nncompiler": imported,
    "import networkx and llvmlite": needed,
    "compile": compiled,
    "first step": first,
    "compile and first step": compiled + first,
}))
"""


def measure(cache: str) -> dict[str, float]:
    environment = {
        **os.environ,
        "NNC_CACHE_DIR": cache,
        "NNC_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # users have their bytecode on disk
    done = subprocess.run(
        [sys.executable, "-c", CHILD], env=environment, capture_output=True, text=True, check=True
    )
    times: dict[str, float] = json.loads(done.stdout)
    return times


def start_up(rounds: int = 5) -> dict[str, float]:
    """Seconds by name, the best of `rounds` processes; "cold" starts from an empty cache."""
    times: dict[str, float] = {}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as cache:
            cold, cached = measure(cache), measure(cache)
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
