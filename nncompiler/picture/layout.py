"""Takes nodes in columns and edges, gives places with few crossings: a layered drawing.

An edge over several columns goes through a free place in each of them, so that it passes between
the nodes. The order in a column follows the mean place of the neighbours, sweep after sweep; then
neighbours change places where this leaves fewer crossings (Sugiyama, Tagawa, Toda 1981). Members
of a group stay side by side. Nothing depends on the order in which nodes and edges are given, but
for the order of the columns' first members.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field

SWEEPS, ROUNDS = 12, 8
MANY = 1500  # places above which long edges run straight, and no two nodes are tried in exchange


@dataclass(frozen=True)
class Item:
    """A node: its column, its extent along the column, and the group that it stays in."""

    key: Hashable
    column: int
    size: float
    group: Hashable = None


@dataclass(frozen=True)
class Layout:
    """`place` along the column by key; `routes` of long edges: a place per column in between."""

    place: dict[Hashable, float]
    routes: dict[tuple[Hashable, Hashable], list[float]]
    crossings: int


@dataclass
class _Columns:
    rows: list[list[Item]]
    left: dict[Hashable, list[Hashable]] = field(default_factory=dict)
    right: dict[Hashable, list[Hashable]] = field(default_factory=dict)

    def link(self, u: Hashable, v: Hashable) -> None:
        self.right.setdefault(u, []).append(v)
        self.left.setdefault(v, []).append(u)


def lay_out(
    items: Sequence[Item], edges: Sequence[tuple[Hashable, Hashable]], gap: float
) -> Layout:
    """Places for the items, whose centres are at least half their sizes and `gap` apart."""
    columns, routes = _with_free_places(items, edges)
    _order(columns)
    place = _spread(columns, gap)
    found = {edge: [place[k] for k in keys] for edge, keys in routes.items()}
    crossings = _crossings(columns)
    return Layout({i.key: place[i.key] for i in items}, found, crossings)


def _with_free_places(
    items: Sequence[Item], edges: Sequence[tuple[Hashable, Hashable]]
) -> tuple[_Columns, dict[tuple[Hashable, Hashable], list[Hashable]]]:
    column = {i.key: i.column for i in items}
    columns = _Columns([[] for _ in range(max(column.values(), default=-1) + 1)])
    for item in items:
        columns.rows[item.column].append(item)
    free = sum(max(column[v] - column[u] - 1, 0) for u, v in edges)
    routes: dict[tuple[Hashable, Hashable], list[Hashable]] = {}
    for u, v in edges:
        if column[v] <= column[u] or (free > MANY and column[v] > column[u] + 1):
            continue  # backwards, or straight
        keys: list[Hashable] = [("free", u, v, c) for c in range(column[u] + 1, column[v])]
        for key, number in zip(keys, range(column[u] + 1, column[v]), strict=True):
            columns.rows[number].append(Item(key, number, 0.0))
        for a, b in zip([u, *keys], [*keys, v], strict=True):
            columns.link(a, b)
        if keys:
            routes[u, v] = keys
    return columns, routes


# --------------------------------------------------------------------------- order


def _order(columns: _Columns) -> None:
    columns.rows = [_side_by_side(row) for row in columns.rows]
    best, least = [list(r) for r in columns.rows], _crossings(columns)
    for sweep in range(SWEEPS):
        if not least:
            break
        forwards = sweep % 2 == 0
        numbers = range(1, len(columns.rows))
        for number in numbers if forwards else reversed(range(len(columns.rows) - 1)):
            side = columns.left if forwards else columns.right
            beside = columns.rows[number - 1 if forwards else number + 1]
            columns.rows[number] = _by_neighbours(columns.rows[number], beside, side)
        _exchange(columns)
        crossings = _crossings(columns)
        if crossings < least:
            best, least = [list(r) for r in columns.rows], crossings
    columns.rows = best


def _by_neighbours(
    row: list[Item], beside: list[Item], side: Mapping[Hashable, list[Hashable]]
) -> list[Item]:
    """The row in the order of the neighbours' mean places; groups by the mean of their members."""
    at = {item.key: i for i, item in enumerate(beside)}
    mean: dict[Hashable, float] = {}
    for number, item in enumerate(row):
        places = [at[k] for k in side.get(item.key, ()) if k in at]
        scaled = number * max(len(beside) - 1, 1) / max(len(row) - 1, 1)
        mean[item.key] = sum(places) / len(places) if places else scaled
    whole: dict[Hashable, list[float]] = {}
    for item in row:
        whole.setdefault(_unit(item), []).append(mean[item.key])
    middle = {unit: sum(m) / len(m) for unit, m in whole.items()}
    first = {unit: i for i, unit in enumerate(whole)}
    return sorted(row, key=lambda i: (middle[_unit(i)], first[_unit(i)], mean[i.key]))


def _side_by_side(row: list[Item]) -> list[Item]:
    first = {unit: i for i, unit in reversed(list(enumerate(map(_unit, row))))}
    return sorted(row, key=lambda i: first[_unit(i)])


def _unit(item: Item) -> Hashable:
    return ("alone", item.key) if item.group is None else ("group", item.group)


def _exchange(columns: _Columns) -> None:
    """Neighbours in a column change places while this leaves fewer crossings."""
    if sum(map(len, columns.rows)) > MANY:
        return
    for _ in range(ROUNDS):
        better = False
        for number, row in enumerate(columns.rows):
            around = [
                columns.rows[n] for n in (number - 1, number + 1) if 0 <= n < len(columns.rows)
            ]
            at = {item.key: i for r in around for i, item in enumerate(r)}
            near = {i.key: _sides(columns, i.key, at) for i in row}
            for i in range(len(row) - 1):
                a, b = row[i], row[i + 1]
                if a.group != b.group:
                    continue
                now = sum(_pairs(p, q) for p, q in zip(near[a.key], near[b.key], strict=True))
                then = sum(_pairs(q, p) for p, q in zip(near[a.key], near[b.key], strict=True))
                if then < now:
                    row[i], row[i + 1] = b, a
                    better = True
        if not better:
            return


def _sides(columns: _Columns, key: Hashable, at: Mapping[Hashable, int]) -> list[list[int]]:
    return [sorted(at[k] for k in side.get(key, ())) for side in (columns.left, columns.right)]


def _pairs(upper: list[int], lower: list[int]) -> int:
    """Crossings of the edges of two nodes of a column, the first above the second."""
    return sum(bisect_left(lower, place) for place in upper)


def _crossings(columns: _Columns) -> int:
    total = 0
    for a, b in zip(columns.rows, columns.rows[1:], strict=False):
        at = {item.key: i for i, item in enumerate(b)}
        ends = [sorted(at[k] for k in columns.right.get(item.key, ()) if k in at) for item in a]
        seen: list[int] = []
        for places in ends:
            total += sum(len(seen) - _upto(seen, p) for p in places)
            for p in places:
                insort(seen, p)
    return total


def _upto(values: list[int], limit: int) -> int:
    return bisect_left(values, limit + 1)


# --------------------------------------------------------------------------- places


def _spread(columns: _Columns, gap: float) -> dict[Hashable, float]:
    """Places in the found order: first evenly around 0, then towards the neighbours."""
    place: dict[Hashable, float] = {}
    for row in columns.rows:
        place |= _placed(row, dict.fromkeys((i.key for i in row), 0.0), gap)
    for number in range(ROUNDS):
        side = columns.left if number % 2 == 0 else columns.right
        rows = columns.rows if number % 2 == 0 else columns.rows[::-1]
        for row in rows:
            wanted = {}
            for item in row:
                near = [place[k] for k in side.get(item.key, ())]
                wanted[item.key] = sum(near) / len(near) if near else place[item.key]
            place |= _placed(row, wanted, gap)
    middle = [place[i.key] for row in columns.rows for i in row if i.size]
    shift = (min(middle) + max(middle)) / 2 if middle else 0.0
    return {key: value - shift for key, value in place.items()}


def _placed(row: list[Item], wanted: Mapping[Hashable, float], gap: float) -> dict[Hashable, float]:
    """The places nearest to the wanted ones (least squares) that keep order and distances: blocks
    of nodes that touch move as one (pool adjacent violators)."""
    offset: list[float] = []
    for i, item in enumerate(row):
        step = (row[i - 1].size + item.size) / 2 + gap if i else 0.0
        offset.append(offset[-1] + step if i else 0.0)
    blocks: list[tuple[float, int]] = []  # (mean of wanted - offset, members)
    for item, start in zip(row, offset, strict=True):
        mean, count = wanted[item.key] - start, 1
        while blocks and blocks[-1][0] >= mean:
            other, number = blocks.pop()
            mean = (mean * count + other * number) / (count + number)
            count += number
        blocks.append((mean, count))
    means = [mean for mean, count in blocks for _ in range(count)]
    return {i.key: m + o for i, m, o in zip(row, means, offset, strict=True)}
