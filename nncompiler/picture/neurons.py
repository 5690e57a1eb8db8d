"""Takes a graph of neurons, gives shapes: circles in columns, edges by sign and size of weights.

Layers that the compiler found stand in a frame. All nodes and edges of the user's graph are there;
those that take no part in the outputs are dashed, frozen edges dotted, delayed ones broken.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nncompiler.frontend.delays import Delays
from nncompiler.frontend.lifting import SPARSE, Block
from nncompiler.picture.boxes import Drawing
from nncompiler.picture.colors import filling, ink_on, line
from nncompiler.picture.layout import Item, Layout, lay_out
from nncompiler.picture.ranks import natural, ranks_of
from nncompiler.picture.svg import curve, element, label, number, shortened, titled

if TYPE_CHECKING:
    import networkx as nx

MARGIN, HEAD = 46.0, 30.0
CROWDED = 24  # neurons in a column above which they are drawn smaller


@dataclass(frozen=True)
class Scene:
    """What is drawn: the graph, weights by edge (None: unknown) and their parameters' names, biases
    and values by neuron, the blocks found, which neurons and parameters take part, and the edges
    that bring what was computed steps of time before."""

    graph: nx.DiGraph[Any]
    weights: Mapping[tuple[Hashable, Hashable], float | None]
    numbers: Mapping[tuple[Hashable, Hashable], str]
    biases: Mapping[Hashable, float]
    values: Mapping[Hashable, float]
    blocks: Sequence[Block]
    inputs: Sequence[Hashable]
    outputs: Sequence[Hashable]
    frozen: frozenset[str]
    delays: Delays

    @property
    def heaviest(self) -> float:
        return max((abs(w) for w in self.weights.values() if w is not None), default=0.0)

    @property
    def largest(self) -> float:
        return max(map(abs, self.values.values()), default=0.0)


@dataclass(frozen=True)
class _Sizes:
    radius: float
    gap: float
    column: float


def draw_neurons(scene: Scene) -> Drawing:
    owner = {n: b.name for b in scene.blocks for n in b.members if _is_framed(b)}
    ranks = ranks_of(scene.graph, scene.blocks, scene.delays)
    fullest = max([0, *(list(ranks.values()).count(r) for r in set(ranks.values()))])
    sizes = _Sizes(9.0, 9.0, 150.0) if fullest > CROWDED else _Sizes(17.0, 18.0, 150.0)
    place = {n: i for i, n in enumerate([*scene.inputs, *scene.outputs])}
    nodes = sorted(scene.graph, key=lambda n: (place.get(n, len(place)), natural(n)))
    items = [Item(n, ranks[n], 2 * sizes.radius, owner.get(n)) for n in nodes]
    edges = sorted(scene.graph.edges(), key=lambda e: (natural(e[0]), natural(e[1])))
    layout = lay_out(items, edges, sizes.gap)
    places = [*layout.place.values(), *(p for r in layout.routes.values() for p in r)]
    top = min(places, default=0.0) - sizes.radius - HEAD - MARGIN / 2
    at = {n: (MARGIN + ranks[n] * sizes.column, y - top) for n, y in layout.place.items()}
    shapes = [_frame(b, scene, at, sizes) for b in scene.blocks if _is_framed(b)]
    heavy = sorted(
        edges, key=lambda e: (abs(scene.weights[e] or 0.0), natural(e[0]), natural(e[1]))
    )
    shapes += [_edge(scene, e, at, ranks, layout, sizes, top) for e in heavy]
    shapes += [_neuron(scene, n, at[n], sizes) for n in nodes]
    width = 2 * MARGIN + max(ranks.values(), default=0) * sizes.column
    return Drawing(width, max(places, default=0.0) - top + sizes.radius + MARGIN, shapes)


def activation_of(graph: nx.DiGraph[Any], node: Hashable) -> str:
    """How the activation of a neuron is called."""
    activation = graph.nodes[node].get("activation", "linear")
    if callable(activation):
        return str(getattr(activation, "__name__", "function"))
    return activation if isinstance(activation, str) else " ".join(map(str, activation))


def _is_framed(block: Block) -> bool:
    return block.kind != SPARSE and len(block.members) > 1


def _frame(
    block: Block, scene: Scene, at: Mapping[Hashable, tuple[float, float]], sizes: _Sizes
) -> str:
    xs, ys = zip(*(at[n] for n in block.members), strict=True)
    side, ends = sizes.radius + 10, sizes.radius + sizes.gap / 2 + (8 if scene.values else 0)
    name = activation_of(scene.graph, block.members[0])
    kind = "" if block.kind == "dense" else f"{block.kind}, "
    box = element(
        "rect",
        x=min(xs) - side,
        y=min(ys) - ends,
        width=max(xs) - min(xs) + 2 * side,
        height=max(ys) - min(ys) + 2 * ends,
        rx=10.0,
        fill="#f3f1e7",
        stroke="#b9b39a",
    )
    text = label(sum(xs) / len(xs), min(ys) - ends - 6, block.name, size=11.0, fill="#7a7358")
    masked = " with a mask" if block.is_masked else ""
    tip = (
        f"{block.name}: {len(block.members)} neurons, {kind}{name}, {block.weights} weights{masked}"
    )
    return titled(tip, box, text, class_="layer")


def _edge(
    scene: Scene,
    edge: tuple[Hashable, Hashable],
    at: Mapping[Hashable, tuple[float, float]],
    ranks: Mapping[Hashable, int],
    layout: Layout,
    sizes: _Sizes,
    top: float,
) -> str:
    u, v = edge
    weight = scene.weights[edge]
    name = scene.numbers.get(edge)
    color, width = line(float("nan") if weight is None else weight, scene.heaviest)
    (x, y), (p, q) = at[u], at[v]
    if ranks[v] > ranks[u]:
        between = zip(range(ranks[u] + 1, ranks[v]), layout.routes.get(edge, []), strict=False)
        middle = [(MARGIN + c * sizes.column, place - top) for c, place in between]
        path = curve([(x + sizes.radius, y), *middle, (p - sizes.radius, q)])
    else:  # what closes a cycle, or leads to the neuron itself
        far = min(y, q) - (2.4 if u == v else 3.0) * sizes.radius
        side = 2.2 * sizes.radius if u == v else 0.0
        ends = (x - side, far, p + side, far, p, q - sizes.radius)
        path = f"M{number(x)} {number(y - sizes.radius)}C{' '.join(map(number, ends))}"
    shared = f", shared as {name}" if name not in (None, f"{u}->{v}") else ""
    still = ", frozen" if name in scene.frozen else ""
    size = "no weight" if weight is None else f"weight {weight:.6g}"
    aside = "" if name is not None else ", takes no part"
    late = f", delay {scene.delays[edge]}" if edge in scene.delays else ""
    shape = element(
        "path",
        d=path,
        fill="none",
        stroke=color,
        stroke_width=width,
        stroke_linecap="round" if name is not None else None,
        stroke_dasharray="1 5" if still else "5 4" if aside else "9 3" if late else None,
    )
    parts = [shape]
    if ranks[v] <= ranks[u]:
        tip = q - sizes.radius
        corners = ((p - 4.0, tip - 7), (p + 4.0, tip - 7), (p, tip))
        points = " ".join(f"{number(a)},{number(b)}" for a, b in corners)
        parts.append(element("polygon", points=points, fill=color))
    return titled(f"{u} -> {v}: {size}{shared}{late}{still}{aside}", *parts, class_="edge")


def _neuron(scene: Scene, node: Hashable, at: tuple[float, float], sizes: _Sizes) -> str:
    x, y = at
    data = scene.graph.nodes[node]
    active = node in scene.biases or node in scene.inputs
    value = scene.values.get(node)
    fill = "#ffffff" if active and node not in scene.inputs else "#ececec"
    ink = "#222222"
    if value is not None:
        fill, ink = filling(value, scene.largest), ink_on(value, scene.largest)
    circle = element(
        "circle",
        cx=x,
        cy=y,
        r=sizes.radius,
        fill=fill,
        stroke="#333333",
        stroke_width=2.2 if node in scene.outputs else 1.1,
        stroke_dasharray=None if active else "3 3",
    )
    parts = [circle]
    small = sizes.radius < 12
    name, room = str(node), 3 if small else 4
    if len(name) <= room:
        parts.append(label(x, y + (3 if small else 4), name, size=7.5 if small else 11.0, fill=ink))
    elif not small:
        parts.append(label(x, y + sizes.radius + 11, shortened(name, 16), size=9.5))
    if value is not None and not small:
        lower = len(name) > room
        parts.append(
            label(
                x,
                y + 4 if lower else y + sizes.radius + 11,
                f"{value:.3g}",
                size=9.0,
                fill=ink if lower else "#444444",
            )
        )
    return titled(_tip(scene, node, data, value, active), *parts, class_="node")


def _tip(
    scene: Scene, node: Hashable, data: Mapping[str, Any], value: float | None, active: bool
) -> str:
    if node in scene.inputs:
        parts = [f"{node}: input"]
    else:
        parts = [f"{node}: {activation_of(scene.graph, node)}"]
        if data.get("aggregation", "sum") != "sum":
            parts.append(f"aggregation {data['aggregation']}")
        if node in scene.biases:
            parts.append(f"bias {scene.biases[node]:.6g}")
    if value is not None:
        parts.append(f"value {value:.6g}")
    if not active:
        parts.append("takes no part")
    return ", ".join(parts)
