"""Takes boxes with text and links between them, gives shapes: a graph drawn from top to bottom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nncompiler.picture.colors import UNKNOWN, filling
from nncompiler.picture.layout import Item, lay_out
from nncompiler.picture.svg import curve, element, label, number, shortened, titled, width_of

Array = np.ndarray[Any, Any]

LINE, PADDING, GAP, RANK_GAP = 14.0, 10.0, 28.0, 40.0
CELL, CELLS = 5.0, 16  # of the small picture of a weight matrix: size in pixels, most per side
STRIP, STRIP_CELLS = 7.0, 32  # of the row of a layer's values
LONGEST = 34  # letters on a line


@dataclass(frozen=True)
class Box:
    """`lines` stand under the title; `matrix` is shown as cells, `values` as a row of cells."""

    key: str
    rank: int
    title: str
    lines: tuple[str, ...]
    tooltip: str
    matrix: Array | None = None
    values: Array | None = None
    quiet: bool = False  # takes no part

    @property
    def texts(self) -> list[str]:
        return [shortened(line, LONGEST) for line in (self.title, *self.lines)]


@dataclass(frozen=True)
class Link:
    source: str
    target: str
    tooltip: str
    width: float = 1.4


@dataclass(frozen=True)
class Drawing:
    width: float
    height: float
    shapes: list[str]


def draw_boxes(boxes: Sequence[Box], links: Sequence[Link], largest: float) -> Drawing:
    """`largest` is the size of a layer's value that has the full colour."""
    width = {b.key: _width(b) for b in boxes}
    height = {b.key: _height(b) for b in boxes}
    items = [Item(b.key, b.rank, width[b.key]) for b in boxes]
    layout = lay_out(items, [(k.source, k.target) for k in links], GAP)
    top = _tops(boxes, height)
    left = min((layout.place[b.key] - width[b.key] / 2 for b in boxes), default=0.0)
    routes = [p for route in layout.routes.values() for p in route]
    shift = GAP - min([left, *routes])
    middle = {key: place + shift for key, place in layout.place.items()}
    by_key = {b.key: b for b in boxes}
    shapes = []
    for link in links:
        points = [(middle[link.source], top[link.source] + height[link.source])]
        ranks = range(by_key[link.source].rank + 1, by_key[link.target].rank)
        for rank, place in zip(
            ranks, layout.routes.get((link.source, link.target), []), strict=False
        ):
            row = [b.key for b in boxes if b.rank == rank]
            upper, lower = min(top[k] for k in row), max(top[k] + height[k] for k in row)
            points += [(place + shift, upper), (place + shift, lower)]
        points.append((middle[link.target], top[link.target] - 5))
        shapes.append(_arrow(link, points))
    shapes += [
        _draw(b, middle[b.key], top[b.key], width[b.key], height[b.key], largest) for b in boxes
    ]
    right = max([middle[b.key] + width[b.key] / 2 for b in boxes] + [p + shift for p in routes])
    return Drawing(right + GAP, max(top[k] + height[k] for k in top) + GAP, shapes)


def _tops(boxes: Sequence[Box], height: dict[str, float]) -> dict[str, float]:
    """Rows as high as their highest box, which stand in the middle of them."""
    found: dict[str, float] = {}
    y = GAP
    for rank in sorted({b.rank for b in boxes}):
        row = [b.key for b in boxes if b.rank == rank]
        tallest = max(height[k] for k in row)
        found |= {k: y + (tallest - height[k]) / 2 for k in row}
        y += tallest + RANK_GAP
    return found


def _arrow(link: Link, points: Sequence[tuple[float, float]]) -> str:
    x, y = points[-1]
    path = element(
        "path",
        d=curve(points, vertical=True),
        fill="none",
        stroke="#777777",
        stroke_width=link.width,
    )
    size = 3.0 + link.width
    corners = [(x - size / 1.6, y - 2), (x + size / 1.6, y - 2), (x, y + 5)]
    head = " ".join(f"{number(a)},{number(b)}" for a, b in corners)
    return titled(
        link.tooltip, path, element("polygon", points=head, fill="#777777"), class_="edge"
    )


# --------------------------------------------------------------------------- one box


def _cells(box: Box) -> Array | None:
    return None if box.matrix is None or not box.matrix.size else pooled(box.matrix)


def _width(box: Box) -> float:
    widths = [width_of(t, 12.0 if i == 0 else 10.5) for i, t in enumerate(box.texts)]
    cells = _cells(box)
    text = max(widths) + (0.0 if cells is None else cells.shape[1] * CELL + PADDING)
    strip = 0.0 if box.values is None else min(box.values.size, STRIP_CELLS) * STRIP
    return max(text, strip, 60.0) + 2 * PADDING


def _height(box: Box) -> float:
    cells = _cells(box)
    body = max(len(box.texts) * LINE, 0.0 if cells is None else cells.shape[0] * CELL)
    return body + 2 * PADDING - 4 + (0.0 if box.values is None else STRIP + 6)


def _draw(box: Box, x: float, y: float, width: float, height: float, largest: float) -> str:
    dashes = "4 3" if box.quiet else None
    parts = [
        element(
            "rect",
            x=x - width / 2,
            y=y,
            width=width,
            height=height,
            rx=6.0,
            fill="#fbfbf7",
            stroke="#555555",
            stroke_dasharray=dashes,
        )
    ]
    left = x - width / 2 + PADDING
    for i, text in enumerate(box.texts):
        size, fill = (12.0, "#111111") if i == 0 else (10.5, "#555555")
        parts.append(
            label(left, y + PADDING + 8 + i * LINE, text, size=size, anchor="start", fill=fill)
        )
    cells = _cells(box)
    if cells is not None:
        most = float(np.abs(cells[np.isfinite(cells)]).max(initial=0.0))
        start = x + width / 2 - PADDING - cells.shape[1] * CELL
        for (i, j), value in np.ndenumerate(cells):
            at = (start + j * CELL, y + PADDING - 2 + i * CELL)
            parts.append(_cell(*at, CELL, filling(float(value), most)))
    if box.values is not None:
        row = _strip(box.values)
        for j, value in enumerate(row):
            at = (left + j * STRIP, y + height - STRIP - 6)
            parts.append(_cell(*at, STRIP, filling(float(value), largest)))
    return titled(box.tooltip, *parts, class_="node")


def _cell(x: float, y: float, size: float, fill: str) -> str:
    edge = "#cccccc" if fill != UNKNOWN else "#ffffff"
    return element(
        "rect", x=x, y=y, width=size, height=size, fill=fill, stroke=edge, stroke_width=0.3
    )


def pooled(matrix: Array, most: int = CELLS) -> Array:
    """A matrix of at most `most` rows and columns; of every patch the number of largest size."""
    rows = np.array_split(np.arange(matrix.shape[0]), min(most, matrix.shape[0]))
    columns = np.array_split(np.arange(matrix.shape[1]), min(most, matrix.shape[1]))
    found = np.zeros((len(rows), len(columns)))
    for i, r in enumerate(rows):
        for j, c in enumerate(columns):
            patch = matrix[np.ix_(r, c)].ravel()
            found[i, j] = patch[np.argmax(np.abs(patch))]
    return found


def _strip(values: Array) -> Array:
    return pooled(values.reshape(1, -1), STRIP_CELLS).reshape(-1)
