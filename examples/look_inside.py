"""Every stage between the graph and the machine code, as text that can be read.

python examples/look_inside.py              all stages of a small network
python examples/look_inside.py kernels      one of them, whole
"""

from __future__ import annotations

import sys

import networkx as nx
import numpy as np

import nncompiler as nnc

EXPLAINED = {
    "graph": "what to compute: one line per value, under the names you gave",
    "gradient": "the same with the derivatives and the optimizer's update, as ordinary operations",
    "simplified": "the normal form: what is computed twice or not needed is gone",
    "kernels": "what runs in one loop nest: axes, accesses, one expression per result",
    "loops": "how it loops: tiles, vectors, epilogues",
    "llvm": "what LLVM is given",
    "assembly": "what the processor runs",
}


def main() -> None:
    g = nx.DiGraph()
    g.add_node("x", op="input", shape=("batch", 2))
    g.add_node("hidden", op="dense", units=4, activation="tanh")
    g.add_node("y", op="dense", units=1, activation="sigmoid")
    nx.add_path(g, ["x", "hidden", "y"])
    model = nnc.compile(g, loss="mse", optimizer=nnc.SGD(0.5), seed=1)

    if len(sys.argv) > 1:
        if sys.argv[1] not in model.stages:
            raise SystemExit(f"no stage '{sys.argv[1]}'; there are {', '.join(model.stages)}")
        print(model.stages[sys.argv[1]])
        return
    for name, text in model.stages.items():
        lines = text.splitlines()
        print(f"--- {name}: {EXPLAINED[name]} ({len(lines)} lines)")
        print("\n".join(lines[:14]))
        print("    ..." if len(lines) > 14 else "")

    x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
    t = np.array([[0], [1], [1], [0]], np.float32)
    print("--- compiled against NumPy running the graph: largest errors")
    print(model.compare(x, t))
    print("--- where the time goes")
    print(model.profile(x, t))


if __name__ == "__main__":
    main()
