"""The evaluator stays inside of its memory: whatever it reads or writes ends where nothing may be.

Every array that native code gets lies right before a page that cannot be touched, in a process of
its own: a single step too far would end it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = """
import ctypes, math, mmap, sys
import numpy as np
import nncompiler as nnc
import nncompiler.programs, runtime.buffers, runtime.frame, runtime.state
from tests.nncompiler.test_population import layered
from tests.nncompiler.test_population_errors import small
import networkx as nx

PAGE = mmap.PAGESIZE
kept = []
forbid = ctypes.CDLL(None).mprotect
forbid.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]

def guarded(shape, dtype):
    size = np.dtype(dtype).itemsize * math.prod(shape)
    pages = -(-size // PAGE)
    memory = mmap.mmap(-1, (pages + 1) * PAGE)
    kept.append(memory)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    assert forbid(start + pages * PAGE, PAGE, 0) == 0
    whole = np.frombuffer(memory, np.uint8, size, pages * PAGE - size)
    return whole.view(dtype).reshape(shape)

def copied(array, dtype=None):
    array = np.asarray(array)
    copy = guarded(array.shape, dtype or array.dtype)
    copy[...] = array
    return copy

runtime.buffers.aligned_empty = runtime.frame.aligned_empty = guarded
nncompiler.programs.aligned_copy = runtime.state.aligned_copy = runtime.frame.aligned_copy = copied
runtime.frame.ALIGNMENT = 1  # arrays end at the page, wherever they begin

large = nx.DiGraph()
for i in range(700):
    large.add_edge("x", f"h{i}", weight=0.1)
    large.add_edge(f"h{i}", "y", weight=1.0)
large.nodes["y"]["aggregation"] = "median"
sets = [[layered(seed) for seed in range(20)], [small()], [small(), large, small()]]
for dtype in ("float32", "float64"):
    for graphs in sets:
        population = nnc.compile_population(graphs, dtype=dtype, options=nnc.Options(threads=1))
        for batch in (1, 2, 7, 8, 15, 16, 17, 100, 128, 129, 5000):
            width = population[0].inputs
            for x in (np.ones((batch, width)), np.ones((len(graphs), batch, width))):
                assert np.isfinite(population(x)).all()
            population[0](np.ones((batch, width)))
print(len(kept))
if sys.argv[1:]:  # the guard itself: one element further is no longer there
    ctypes.string_at(runtime.buffers.address(guarded((3,), "float32")) + 12, 4)
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs mprotect")
def test_nothing_outside_of_the_arrays_is_touched() -> None:
    done = run()
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 500
    assert run("too far").returncode < 0
