"""The code of a program does not depend on how this process happens to hash strings."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

NETWORK = """
import hashlib
import networkx as nx
import nncompiler as nnc

g = nx.DiGraph()
g.add_node("x", op="input", shape=("batch", 1, 28, 28))
g.add_node("conv", op="conv", filters=6, kernel_size=5, padding=2, activation="relu")
g.add_node("pool", op="max_pool", pool_size=2)
g.add_node("flat", op="flatten")
g.add_node("dense", op="dense", units=10)
nx.add_path(g, ["x", "conv", "pool", "flat", "dense"])
model = nnc.compile(g, loss="cross_entropy", optimizer=nnc.SGD(0.1))
print(hashlib.sha256(model.program("step").lowered.module.encode()).hexdigest())
"""


def test_every_process_writes_the_same_text(tmp_path: Path) -> None:
    root = str(Path(__file__).resolve().parents[2])
    found = set()
    for seed in range(5):
        environment = {
            **os.environ,
            "PYTHONPATH": root,
            "PYTHONHASHSEED": str(seed),
            "NNC_CACHE_DIR": str(tmp_path),
        }
        done = subprocess.run(
            [sys.executable, "-c", NETWORK], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        found.add(done.stdout)
    assert len(found) == 1
