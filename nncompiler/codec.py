"""Takes graphs, settings and arrays, gives JSON text beside numbered arrays, and the way back.

    ("leaky_relu", {"slope": 0.1})   ->  {"$tuple": ["leaky_relu", {"slope": 0.1}]}
    np.ones(3)                       ->  {"$array": 0}
    np.int64(8)                      ->  {"$scalar": 1}
    nnc.L2(1e-4)                     ->  {"$type": "regularizers.L2", "fields": {...}}

Nothing is ever executed on reading: objects are dataclasses of our own front end, by name.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

if TYPE_CHECKING:
    import networkx as nx

Array = np.ndarray[Any, Any]

MODULES = ("initializers", "losses", "optimizers", "regularizers", "schedules")
_PREFIX = "nncompiler.frontend."
_TAGS = ("$tuple", "$array", "$type", "$dict", "$float", "$scalar")


class Encoder:
    """Collects arrays while it turns values into JSON."""

    def __init__(self) -> None:
        self.arrays: list[Array] = []

    def encode(self, value: Any, where: str) -> Any:
        """The JSON form of a value; TypeError naming `where` for what cannot be stored."""
        if value is None or type(value) in (bool, int, str):
            return value
        if type(value) is float:
            return value if np.isfinite(value) else {"$float": str(value)}
        if isinstance(value, np.generic):
            return {"$scalar": self._array(np.asarray(value), where)["$array"]}
        if isinstance(value, np.ndarray):
            return self._array(value, where)
        if isinstance(value, tuple):
            return {"$tuple": [self.encode(v, where) for v in value]}
        if isinstance(value, list):
            return [self.encode(v, where) for v in value]
        if isinstance(value, dict):
            return self._dict(value, where)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return self._object(value, where)
        if callable(value):
            raise TypeError(
                f"{where} is a Python function ({_describe(value)}), which a file without code "
                "cannot hold: use a name, or save_weights and compile the graph again"
            )
        raise TypeError(f"{where}: a {type(value).__name__} cannot be saved")

    def _array(self, value: Array, where: str) -> Any:
        if value.dtype.kind not in "biuf":
            raise TypeError(f"{where}: an array of dtype {value.dtype} cannot be saved")
        self.arrays.append(np.ascontiguousarray(value).reshape(value.shape))
        return {"$array": len(self.arrays) - 1}

    def _dict(self, value: dict[Any, Any], where: str) -> Any:
        if all(isinstance(k, str) and k not in _TAGS for k in value):
            return {k: self.encode(v, where) for k, v in value.items()}
        items = value.items()
        return {"$dict": [[self.encode(k, where), self.encode(v, where)] for k, v in items]}

    def _object(self, value: Any, where: str) -> Any:
        module = type(value).__module__.removeprefix(_PREFIX)
        if module not in MODULES:
            raise TypeError(f"{where}: a {type(value).__name__} cannot be saved")
        fields = {
            f.name: self.encode(getattr(value, f.name), f"{f.name} of {where}")
            for f in dataclasses.fields(value)
            if f.init
        }
        return {"$type": f"{module}.{type(value).__name__}", "fields": fields}


class Decoder:
    """Turns JSON back into values."""

    def __init__(self, arrays: list[Array]) -> None:
        self.arrays = arrays

    def decode(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self.decode(v) for v in value]
        if not isinstance(value, dict):
            return value
        tag = next((t for t in _TAGS if t in value), None)
        if tag is None:
            return {k: self.decode(v) for k, v in value.items()}
        return self._tags[tag](self, value)

    def _object(self, value: dict[str, Any]) -> Any:
        module, _, name = value["$type"].partition(".")
        if module not in MODULES:
            raise ValueError(f"unknown kind of object '{value['$type']}'")
        kind = getattr(importlib.import_module(_PREFIX + module), name, None)
        if (
            not dataclasses.is_dataclass(kind)
            or not isinstance(kind, type)
            or kind.__module__ != _PREFIX + module
        ):
            raise ValueError(f"unknown kind of object '{value['$type']}'")
        return kind(**{k: self.decode(v) for k, v in value["fields"].items()})

    _tags: ClassVar[dict[str, Callable[[Decoder, dict[str, Any]], Any]]] = {
        "$tuple": lambda self, value: tuple(self.decode(v) for v in value["$tuple"]),
        "$array": lambda self, value: self.arrays[value["$array"]],
        "$scalar": lambda self, value: self.arrays[value["$scalar"]][()],
        "$float": lambda self, value: float(value["$float"]),
        "$dict": lambda self, value: {self.decode(k): self.decode(v) for k, v in value["$dict"]},
        "$type": lambda self, value: self._object(value),
    }


def encode_graph(graph: nx.DiGraph[Any], encoder: Encoder) -> dict[str, Any]:
    """A node-link form of a graph; edges into operations carry their `slot`."""
    nodes = [
        {"id": encoder.encode(name, "a node's name"), "data": _attributes(encoder, name, data)}
        for name, data in graph.nodes(data=True)
    ]
    edges = []
    for target in graph.nodes:
        incoming = list(graph.in_edges(target, data=True))
        numbered = (
            "op" in graph.nodes[target]
            and len(incoming) > 1
            and not any("slot" in data for _, _, data in incoming)
        )
        for slot, (source, _, data) in enumerate(incoming):
            data = {**data, "slot": slot} if numbered else data
            where = f"the edge from '{source}' to '{target}'"
            edges.append(
                {
                    "source": encoder.encode(source, where),
                    "target": encoder.encode(target, where),
                    "data": {str(k): encoder.encode(v, f"{k} of {where}") for k, v in data.items()},
                }
            )
    return {
        "directed": True,
        "multigraph": graph.is_multigraph(),
        "graph": encoder.encode(dict(graph.graph), "the graph's attributes"),
        "nodes": nodes,
        "edges": edges,
    }


def _attributes(encoder: Encoder, name: object, data: dict[str, Any]) -> dict[str, Any]:
    return {str(k): encoder.encode(v, f"{k} of node '{name}'") for k, v in data.items()}


def decode_graph(data: dict[str, Any], decoder: Decoder) -> nx.DiGraph[Any]:
    """The graph of `encode_graph`, with nodes and edges in their old order."""
    import networkx as nx

    graph = nx.MultiDiGraph() if data["multigraph"] else nx.DiGraph()
    graph.graph.update(decoder.decode(data["graph"]))
    for node in data["nodes"]:
        graph.add_node(decoder.decode(node["id"]), **decoder.decode(node["data"]))
    for edge in data["edges"]:
        ends = decoder.decode(edge["source"]), decoder.decode(edge["target"])
        graph.add_edge(*ends, **decoder.decode(edge["data"]))
    return graph


def _describe(function: Any) -> str:
    return str(getattr(function, "__qualname__", type(function).__name__))
