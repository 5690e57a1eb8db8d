"""Takes a trained model of neurons, gives its graph without the edges of the smallest weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nncompiler.frontend.delays import find_delays
from nncompiler.frontend.wiring import read_ends
from nncompiler.model import Model

if TYPE_CHECKING:
    import networkx as nx


def prune(
    model: Model, share: float | None = None, *, threshold: float | None = None
) -> nx.DiGraph[Any]:
    """The model's graph, with its present weights, without some of its edges.

    share      this part of all edges goes, those of the smallest |weight| first
    threshold  edges of |weight| below it go

    So do neurons that no output depends on any more. One that lost all its predecessors stays as a
    constant. Inputs and outputs keep their order. ValueError for a model of layers.
    """
    if (share is None) == (threshold is None):
        raise ValueError("prune takes either the share of edges to remove or a threshold")
    if share is not None and not 0.0 <= share <= 1.0:
        raise ValueError(f"share has to be in [0, 1], not {share}")
    g = model.to_networkx()
    edges = sorted(
        ((abs(data.get("weight", 0.0)), str(u), str(v), u, v) for u, v, data in g.edges(data=True)),
        key=lambda e: e[:3],
    )
    if share is not None:
        gone = edges[: round(share * len(edges))]
    else:
        gone = [e for e in edges if threshold is not None and e[0] < threshold]
    delays = find_delays(g) if model.settings.recurrent else {}
    for edge, delay in delays.items():  # whatever cycles are left
        g.edges[edge]["delay"] = delay
    g.graph["inputs"], g.graph["outputs"] = read_ends(g, model.settings.outputs, delays)
    g.remove_edges_from([(u, v) for *_, u, v in gone])
    kept = {*g.graph["inputs"], *g.graph["outputs"]}
    waiting = list(g.graph["outputs"])
    while waiting:
        for node in g.predecessors(waiting.pop()):
            if node not in kept:
                kept.add(node)
                waiting.append(node)
    g.remove_nodes_from([n for n in g if n not in kept])
    for node in g:
        if not g.in_degree(node) and node not in g.graph["inputs"]:
            g.nodes[node].setdefault("bias", 0.0)
    return g
