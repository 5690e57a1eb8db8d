"""Takes the wiring of neurons that see earlier values, gives the loop over time that computes it.

    h = f(bias + w x + u y[t-1])      for every time: x, y[t-1] -> h -> y;  y is handed on

An edge with a delay of k reads the k-th of the matrices that are handed on from time to time, each
of which becomes the next one; all are zero before the first time.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

from ir import ops
from ir.graph import Node
from nncompiler.frontend.blocks import Values
from nncompiler.frontend.delays import Lagged
from nncompiler.frontend.wiring import Wiring

Nodes = tuple[Node, ...]


def over_time(x: Node, wiring: Wiring, build: Callable[[Values], Nodes]) -> Nodes:
    """Sequences (batch, time, ...) of what `build` makes of the values that neurons see at every
    time; `x` is (batch, time, inputs)."""
    longest: dict[Hashable, int] = {}
    for source in wiring.lagged:
        longest[source.neuron] = max(source.delay, longest.get(source.neuron, 0))
    depth = max(longest.values(), default=0)
    kept = [[n for n, k in longest.items() if k > back] for back in range(depth)]

    def step(carried: Nodes, now: Nodes) -> tuple[list[Node], Nodes]:
        values = Values()
        values.add(now[0], wiring.inputs)
        for back, (neurons, value) in enumerate(zip(kept, carried, strict=True), 1):
            values.add(value, [Lagged(n, back) for n in neurons])
        found = build(values)
        following = []
        for back, neurons in enumerate(kept):
            following.append(
                values.columns([Lagged(n, back) for n in neurons] if back else neurons)
            )
        return following, found

    starts = [ops.full((x.shape[0], len(neurons)), 0, x.dtype) for neurons in kept]
    _, every = ops.scan(step, starts, [x])
    return every
