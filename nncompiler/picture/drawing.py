"""Takes a model, and data of one example where there are any, gives its picture."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np

from ir.interpret import bind_inputs
from nncompiler.explain.explanation import compute
from nncompiler.explain.neurons import Neurons
from nncompiler.frontend.delays import find_delays
from nncompiler.frontend.lifting import SPARSE, Block, lift
from nncompiler.frontend.packing import check_shared
from nncompiler.frontend.wiring import read_wiring
from nncompiler.persist import PathLike
from nncompiler.picture.boxes import Drawing, draw_boxes
from nncompiler.picture.colors import filling, line
from nncompiler.picture.layers import boxes_of_blocks, boxes_of_layers, layer_values
from nncompiler.picture.neurons import Scene, draw_neurons
from nncompiler.picture.svg import document, element, label

if TYPE_CHECKING:
    from nncompiler.model import Model

MOST_NEURONS, MOST_EDGES = 300, 1500  # of a picture of single neurons
FOOT = 46.0


@dataclass(frozen=True)
class Picture:
    """An SVG; shown in notebooks. `svg` is its text, `save(path)` writes it."""

    svg: str

    def _repr_svg_(self) -> str:
        return self.svg

    def __str__(self) -> str:
        return self.svg

    def __repr__(self) -> str:
        return f"<Picture, {len(self.svg)} characters of SVG>"

    def save(self, path: PathLike) -> Path:
        """Writes the file; gives its path."""
        target = Path(path)
        target.write_text(self.svg, encoding="utf-8")
        return target


def picture(model: Model, x: Any = None) -> Picture:
    """See `Model.picture`."""
    if not model.blueprint.network.views:
        values = {} if x is None else layer_values(model, _one_row(model, x))
        boxes, links = boxes_of_layers(model, values)
        largest = _largest(values.values())
        return _finish(model, draw_boxes(boxes, links, largest), 0.0, largest, "")
    scene = scene_of(model, x)
    graph = scene.graph
    if len(graph) > MOST_NEURONS or graph.number_of_edges() > MOST_EDGES:
        boxes, links = boxes_of_blocks(model, scene)
        note = (
            f"{len(graph):,} neurons and {graph.number_of_edges():,} edges: one box per layer "
            f"found (single neurons up to {MOST_NEURONS} and {MOST_EDGES} edges)"
        )
        return _finish(model, draw_boxes(boxes, links, scene.largest), 0.0, scene.largest, note)
    notes = [_edge_by_edge(scene.blocks), "broken lines: delayed" if scene.delays else ""]
    note = "; ".join(filter(None, notes))
    return _finish(model, draw_neurons(scene), scene.heaviest, scene.largest, note)


def _edge_by_edge(blocks: Sequence[Block]) -> str:
    """What is in no frame."""
    rest = [b for b in blocks if b.kind == SPARSE]
    if len(rest) > 4:
        return f"edge by edge: {sum(len(b.members) for b in rest)} neurons in {len(rest)} groups"
    texts = [f"{b.name} ({len(b.members)} neuron{'s' if len(b.members) > 1 else ''})" for b in rest]
    return f"edge by edge: {', '.join(texts)}" if texts else ""


# --------------------------------------------------------------------------- neurons


def scene_of(model: Model, x: Any = None) -> Scene:
    """Weights, biases and (with x) values of a graph of neurons as they are now."""
    source, settings = model.source, model.blueprint.settings
    delays = find_delays(source) if settings.recurrent else None
    if delays is not None and x is not None:
        raise ValueError("values are shown of networks without memory, this one is recurrent")
    wiring = check_shared(read_wiring(source, settings.outputs, settings.real, delays))
    numbers, weights = {}, {}
    for u, v, data in source.edges(data=True):
        name = data.get("weight_name", f"{u}->{v}")
        given = data.get("weight")
        weights[u, v] = None if given is None else float(given)
        if v in wiring.neurons and name in model.parameters:
            numbers[u, v] = name
            weights[u, v] = float(model.parameters[name])
    biases = {n: float(model.parameters[f"{n}.bias"]) for n in wiring.neurons}
    views, trainable = model.blueprint.network.views, model.blueprint.objective.trainable
    frozen = frozenset(name for name, view in views.items() if view.array not in trainable)
    return Scene(
        source,
        weights,
        numbers,
        biases,
        {} if x is None else neuron_values(model, _one_row(model, x)),
        lift(wiring),
        wiring.inputs,
        wiring.outputs,
        frozen,
        delays or {},
    )


def neuron_values(model: Model, x: Mapping[str, Any]) -> dict[Hashable, float]:
    """The value of every neuron that takes part, for one example."""
    blueprint = model.blueprint
    net = Neurons(blueprint.source, blueprint.settings.outputs, blueprint.objective)
    given = {leaf.attrs["id"]: np.asarray(model.parameters[n]) for n, leaf in net.numbers.items()}
    for leaf, (id, column) in net.columns.items():
        if id in x and column is not None:
            given[leaf.attrs["id"]] = x[id][:, column]
    leaves = [n for n in net.tape.names if n.attrs["id"] in given]
    values, symbols = bind_inputs(leaves, given)
    states = {net.values[n] for n in net.wiring.neurons} | set(net.seen.values())
    needed = [
        f for leaf, f in net.tape.made.items() if leaf in states or _is_inside(leaf.attrs["id"])
    ]
    compute(needed, values, symbols)
    return {n: float(values[leaf][0]) for n, leaf in net.values.items()}


def _is_inside(id: str) -> bool:
    return id.startswith(("aggregate:", "sorted:"))


def _one_row(model: Model, x: Any) -> dict[str, Any]:
    """The inputs of one example, with a batch of one; ValueError for more rows."""
    found = {}
    for name, value in model.blueprint.name_inputs(x).items():
        node = model.blueprint.network.inputs[name]
        array = np.asarray(value)
        array = array if array.ndim == node.ndim else array[None]
        if array.ndim != node.ndim or array.shape[0] != 1 or array.shape[1:] != node.shape[1:]:
            raise ValueError(
                f"a picture shows one example: '{name}' is {node.type}, got {np.shape(value)}"
            )
        found[name] = array.astype(node.dtype.numpy)
    return found


# --------------------------------------------------------------------------- legend


def _finish(model: Model, drawing: Drawing, heaviest: float, largest: float, note: str) -> Picture:
    y = drawing.height
    shapes, width = [*drawing.shapes], 20.0
    if heaviest:
        legend, width = _weights(heaviest, width, y)
        shapes.append(legend)
    if largest:
        legend, width = _values(largest, width + 10, y)
        shapes.append(legend)
    height = y + (FOOT if heaviest or largest else 0.0)
    width = max(drawing.width, width + 20, 240.0)
    for text in wrap(note, int((width - 40) / 5.0)):
        shapes.append(label(20.0, height, text, size=10.0, anchor="start", fill="#666666"))
        height += 16
    title = repr(model).strip("<>")
    return Picture(document(width, height, shapes, title))


def _weights(heaviest: float, x: float, y: float) -> tuple[str, float]:
    parts = [label(x, y + 4, "weight", size=10.0, anchor="start", fill="#444444")]
    x += 46
    for share in (-1.0, -0.5, 0.5, 1.0):
        color, width = line(share * heaviest, heaviest)
        parts.append(element("path", d=f"M{x:.2f} {y:.2f}h34", stroke=color, stroke_width=width))
        parts.append(label(x + 17, y + 18, f"{share * heaviest:.3g}", size=9.0, fill="#444444"))
        x += 48
    return element("g", parts, class_="legend"), x


def _values(largest: float, x: float, y: float) -> tuple[str, float]:
    parts = [label(x, y + 4, "value", size=10.0, anchor="start", fill="#444444")]
    x += 38
    steps: Sequence[float] = (-1.0, -0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0)
    for i, share in enumerate(steps):
        parts.append(
            element(
                "rect",
                x=x,
                y=y - 7,
                width=16.0,
                height=14.0,
                fill=filling(share * largest, largest),
                stroke="#cccccc",
                stroke_width=0.4,
            )
        )
        if i % 4 == 0:
            parts.append(label(x + 8, y + 18, f"{share * largest:.3g}", size=9.0, fill="#444444"))
        x += 16
    return element("g", parts, class_="legend"), x + 10


def _largest(values: Any) -> float:
    sizes = [float(np.abs(v[np.isfinite(v)]).max(initial=0.0)) for v in values]
    return max(sizes, default=0.0)
