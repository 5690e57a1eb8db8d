"""Takes nothing, gives import and compile times, each from a fresh process, best of several."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent

CHILD = """
import json, time
clock = time.perf_counter
start = clock(); import nncompiler as nnc; imported = clock() - start
start = clock(); import networkx, llvmlite.binding; needed = clock() - start
start = clock(); nnc.compile, nnc.SGD; modules = clock() - start
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
    "import the compiler's modules (on first use)": modules,
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
