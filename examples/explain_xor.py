"""Why a weight moves: the derivative of the loss as formulas, and the network as a picture.

The laboratory's network of two inputs, three hidden neurons and one output learns XOR. `explain`
prints the chain rule for one weight in the neurons' names; the very formulas are evaluated and
compared with the compiled backward pass. Give a path to write the picture.

    python examples/explain_xor.py xor.svg
"""

from __future__ import annotations

import sys

import networkx as nx
import numpy as np

import nncompiler as nnc

X = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], float)
T = np.array([[0], [1], [1], [0]], float)


def network() -> nx.DiGraph:
    """Inputs 1 and 2, hidden neurons 3, 4, 5, output 6; all of them sigmoids."""
    g = nx.DiGraph()
    g.add_nodes_from([1, 2])
    g.add_nodes_from([3, 4, 5, 6], activation="sigmoid")
    g.add_edges_from((i, j) for j in (3, 4, 5) for i in (1, 2))
    g.add_edges_from((j, 6) for j in (3, 4, 5))
    return g


def main() -> None:
    model = nnc.compile(network(), loss="sse", optimizer=nnc.Adam(0.1), seed=3, dtype="float64")
    why = model.explain("w13")
    print(why)

    by_formula, compiled = why.evaluate(X, T), model.backward(X, T)[1]["1->3"]
    print(f"\nby these formulas {by_formula:.12f}, compiled {compiled:.12f}")
    np.testing.assert_allclose(by_formula, compiled, rtol=1e-10)

    step = model.bind(X, T)
    print(f"loss after 1000 steps {step.run(1000):.6f}: {model(X).ravel().round(2)}")
    print(f"and dL/dw13 is {why.evaluate(X, T):.1e}, with the weights as they are now")

    picture = model.picture([1.0, 0.0])  # the values of the neurons for this input
    print(repr(picture))
    if len(sys.argv) > 1:
        print("written to", picture.save(sys.argv[1]))


if __name__ == "__main__":
    main()
