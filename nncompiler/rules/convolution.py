"""Takes a node with sliding windows, gives contractions and views: no fold is left.

    dx = fold(contract(g, W))   ->   contract(window(pad(dilate(g))), flip(W))

The input gradient of a convolution is a convolution of the output gradient with the flipped kernel:
it gathers, and scatters nowhere. With a stride there are zeros between the elements of the output
gradient, which schedule/strided.py knows; where windows do not overlap, every element of the kernel
has results of its own instead. Normal form: no fold, no window of size 1, no slice of a pad or of
a window, and none of a contraction over windows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ir.graph import Node, make
from ir.ops.contraction import LETTERS, contract, parse_spec
from ir.ops.pieces import dilate, flip, pad, slice_
from ir.ops.views import reshape, transpose
from ir.ops.windows import diagonal, window
from ir.types import Dim
from nncompiler.rules.match import rescale, scaled


@dataclass(frozen=True)
class _Axis:
    """One axis of a window: its position in the operand, and how windows lie on it."""

    axis: int
    extent: int
    count: int
    size: int
    stride: int
    dilation: int

    @property
    def spread(self) -> int:
        """The extent of the counted axis with its elements a stride apart."""
        return (self.count - 1) * self.stride + 1 if self.count else 0

    @property
    def is_split(self) -> bool:
        """Do windows not overlap, so that every remainder has an element of the kernel?"""
        return self.size <= self.stride > 1 and self.dilation == 1

    @property
    def unstrided(self) -> _Axis:
        """The axis of quotients: a fold of stride 1 with an element of the kernel."""
        quotients = -(-self.extent // self.stride)
        return _Axis(self.axis, quotients, self.count, 1, 1, 1)


def _axes_of(whole: Node, parts: Node, attrs: Node) -> list[_Axis]:
    """The window axes of `parts`, the windows over `whole`."""
    found = []
    for number, axis in enumerate(attrs.attrs["axes"]):
        numbers = (whole.shape[axis], parts.shape[axis], parts.shape[whole.ndim + number])
        extent, count, size = (int(d) for d in numbers)  # type: ignore[arg-type]
        stride, dilation = attrs.attrs["strides"][number], attrs.attrs["dilations"][number]
        found.append(_Axis(axis, extent, count, size, stride, dilation))
    return found


# --------------------------------------------------------------------------- windows of size one


def window_of_one(node: Node) -> Node | None:
    """An axis whose windows hold one element is a slice.

    window(x, size 1, stride 2)  ->  reshape(slice(x, ::2))
    """
    if node.op.name != "window":
        return None
    (x,) = node.inputs
    axes = _axes_of(x, node, node)
    kept = [a for a in axes if a.size > 1]
    if len(kept) == len(axes):
        return None
    steps = [1] * x.ndim
    for a in axes:
        steps[a.axis] = a.stride if a.size == 1 else 1
    thin = slice_(x, (0,) * x.ndim, x.shape, steps)
    return reshape(_window(thin, kept) if kept else thin, node.shape)


def _window(x: Node, axes: Sequence[_Axis]) -> Node:
    return window(
        x,
        [a.axis for a in axes],
        [a.size for a in axes],
        [a.stride for a in axes],
        [a.dilation for a in axes],
    )


# --------------------------------------------------------------------------- folds


def fold(node: Node) -> Node | None:
    """A fold as what gathers: of a multiple, of disjoint windows, of a contraction, of anything.

    fold(x * s)                    ->  fold(x) * s
    fold(contract(g, W))           ->  contract(window(pad(g)), flip(W)), see _split_kernel
    fold(broadcast(g))             ->  sum(window(pad(dilate(g))))
    fold(windows side by side)     ->  pad(reshape(x))
    fold(windows of one element)   ->  reshape(pad(x))
    fold(x)                        ->  sum(diagonal(window(pad(dilate(flip(x))))))
    """
    if node.op.name != "fold":
        return None
    (x,) = node.inputs
    multiple = _fold_multiple(node, x)
    if multiple is not None:
        return multiple
    axes = _axes_of(node, x, node)
    if all(a.size == 1 for a in axes):
        return _fold_of_one(node, x, axes)
    for way in (_fold_contraction, _fold_repeated, _fold_disjoint):
        better = way(node, x, axes)
        if better is not None:
            return better
    return _fold_any(node, x, axes)


def _fold_multiple(node: Node, x: Node) -> Node | None:
    if x.op.name == "neg":
        return make("neg", make(node.op, x.inputs[0], **node.attrs))
    factor = scaled(x)
    if factor is None or not (node.dtype.is_float or factor[1] == "mul"):
        return None
    return rescale(make(node.op, factor[0], **node.attrs), *factor[1:])


def _fold_of_one(node: Node, x: Node, axes: list[_Axis]) -> Node:
    """Windows of one element only move apart.

    stride 2:  [a b c]  ->  [[a 0] [b 0] [c 0]]  ->  [a 0 b 0 c 0]  ->  [a 0 b 0 c]
    """
    thin = {a.axis: a for a in axes}
    apart: list[Dim] = []
    whole: list[Dim] = []
    between: list[int] = []
    for n, dim in enumerate(node.shape):
        a = thin.get(n)
        apart += [dim] if a is None else [a.count, 1]
        between += [0] if a is None else [0, a.stride - 1]
        whole.append(dim if a is None else a.count * a.stride)
    spread = reshape(pad(reshape(x, apart), (0,) * len(apart), between), whole)
    stops, high = list(whole), [0] * node.ndim
    for n, a in thin.items():
        stops[n] = min(a.count * a.stride, a.extent)
        high[n] = max(a.extent - a.count * a.stride, 0)
    part = slice_(spread, (0,) * node.ndim, tuple(stops), (1,) * node.ndim)
    return pad(part, (0,) * node.ndim, high)


def _spread_out(x: Node, axes: Sequence[_Axis], positions: Sequence[int]) -> Node:
    """Windows of the zero-padded x, one for every element that the fold gives; the first element
    of a window is what the last one of a fold's window adds."""
    steps, low, high = [1] * x.ndim, [0] * x.ndim, [0] * x.ndim
    for a, at in zip(axes, positions, strict=True):
        steps[at] = a.stride
        low[at] = (a.size - 1) * a.dilation
        high[at] = a.extent - a.spread
    padded = pad(dilate(x, steps), low, high)
    order = sorted(range(len(axes)), key=lambda n: positions[n])
    return window(
        padded,
        [positions[n] for n in order],
        [axes[n].size for n in order],
        None,
        [axes[n].dilation for n in order],
    )


def _fold_contraction(node: Node, x: Node, axes: list[_Axis]) -> Node | None:
    product = _as_contraction(x)
    if product is None:
        return None
    a, left, b, right, out = product
    counted = [out[axis.axis] for axis in axes]
    inside = list(out[node.ndim :])
    if _only_in(counted, right, left) and _only_in(inside, left, right):
        a, left, b, right = b, right, a, left
    elif not (_only_in(counted, left, right) and _only_in(inside, right, left)):
        return None
    positions = [left.index(c) for c in counted]
    thin = [axis.unstrided if axis.is_split else axis for axis in axes]
    windows = _spread_out(a, thin, positions)
    order = sorted(range(len(axes)), key=lambda n: positions[n])
    kernel, right = _split_kernel(b, right, inside, axes)
    result = out[: node.ndim]
    for axis, c in zip(axes, inside, strict=True):
        if axis.is_split:
            at = result.index(out[axis.axis]) + 1
            result = result[:at] + c.upper() + result[at:]
    spec = f"{left}{''.join(inside[n] for n in order)},{right}->{result}"
    return _merge_remainders(contract(windows, kernel, spec), node, axes)


def _split_kernel(
    kernel: Node, letters: str, inside: list[str], axes: list[_Axis]
) -> tuple[Node, str]:
    """The mirrored kernel; an axis that is split becomes (1, remainder), the remainder's letter in
    capitals:  [a b], stride 3  ->  [[a b 0]]"""
    high = [0] * kernel.ndim
    shape: list[Dim] = []
    split = ""
    flipped: list[int] = []
    known = dict(zip(inside, axes, strict=True))
    for at, c in enumerate(letters):
        axis = known.get(c)
        if axis is not None:
            flipped.append(len(shape))
        if axis is not None and axis.is_split:
            high[at] = axis.stride - axis.size
            shape += [1, axis.stride]
            split += c + c.upper()
        else:
            shape.append(kernel.shape[at])
            split += c
    whole = pad(kernel, (0,) * kernel.ndim, high)
    return flip(reshape(whole, shape), flipped), split


def _merge_remainders(y: Node, node: Node, axes: list[_Axis]) -> Node:
    """Quotient and remainder as one axis again, cut to its extent."""
    shape = list(node.shape)
    for axis in axes:
        if axis.is_split:
            shape[axis.axis] = -(-axis.extent // axis.stride) * axis.stride
    whole = reshape(y, shape)
    return slice_(whole, (0,) * node.ndim, node.shape, (1,) * node.ndim)


def _only_in(letters: list[str], here: str, not_here: str) -> bool:
    return all(c in here and c not in not_here for c in letters)


def _as_contraction(x: Node) -> tuple[Node, str, Node, str, str] | None:
    """(a, its letters, b, its letters, the result's letters) of a contraction, or of a product of
    two broadcasts, which is a contraction that sums over nothing."""
    if x.op.name == "contract":
        left, right, out = parse_spec(x.attrs["spec"])
        return x.inputs[0], left, x.inputs[1], right, out
    if x.op.name == "mul":
        out = LETTERS[: x.ndim]
        (a, left), (b, right) = (_letters(i, out) for i in x.inputs)
        return a, left, b, right, out
    return None


def _letters(x: Node, out: str) -> tuple[Node, str]:
    if x.op.name != "broadcast":
        return x, out
    return x.inputs[0], "".join(out[a] for a in x.attrs["axes"])


def _fold_repeated(node: Node, x: Node, axes: list[_Axis]) -> Node | None:
    """A value that is the same all over each window."""
    if x.op.name != "broadcast" or x.attrs["axes"] != tuple(range(node.ndim)):
        return None
    windows = _spread_out(x.inputs[0], axes, [a.axis for a in axes])
    return make("sum", windows, axes=tuple(range(node.ndim, windows.ndim)))


def _fold_disjoint(node: Node, x: Node, axes: list[_Axis]) -> Node | None:
    """Windows that lie side by side: nothing is added up."""
    if any(a.stride != a.size or a.dilation != 1 for a in axes):
        return None
    number = {a.axis: node.ndim + n for n, a in enumerate(axes)}
    perm: list[int] = []
    shape: list[Dim] = list(node.shape)
    high = [0] * node.ndim
    for axis in range(node.ndim):
        perm += [axis, number[axis]] if axis in number else [axis]
    for a in axes:
        shape[a.axis] = a.count * a.size
        high[a.axis] = a.extent - a.count * a.size
    return pad(reshape(transpose(x, perm), shape), (0,) * node.ndim, high)


def _fold_any(node: Node, x: Node, axes: list[_Axis]) -> Node:
    """Every window's element k is read by the window of the element that it is added to."""
    rank, last = node.ndim, node.ndim + len(axes)
    y = _spread_out(flip(x, range(rank, last)), axes, [a.axis for a in axes])
    for number in range(len(axes)):
        # the axes of the pairs that are left stand first, diagonals go to the end
        y = diagonal(y, rank, last - number)
    return make("sum", y, axes=tuple(range(rank, last)))


# --------------------------------------------------------------------------- slices


def slice_of_view(node: Node) -> Node | None:
    """slice(pad(x)) -> pad(slice(x)),  slice(window(x)) -> window(slice(x)), steps of 1

    slice(contract(window(x), W))  ->  contract(slice(window(x)), W)  along axes of the windows
    """
    if node.op.name != "slice" or any(s != 1 for s in node.attrs["steps"]):
        return None
    (x,) = node.inputs
    match x.op.name:
        case "pad":
            return _slice_of_pad(node, x)
        case "window":
            return _slice_of_window(node, x)
        case "contract":
            return _slice_of_contraction(node, x)
    return None


def _slice_of_pad(node: Node, view: Node) -> Node | None:
    x = view.inputs[0]
    starts, stops, low, high = list[int](), list[Dim](), list[int](), list[int]()
    for axis, dim in enumerate(x.shape):
        first = node.attrs["starts"][axis] - view.attrs["low"][axis]
        last: Dim = dim
        if isinstance(dim, int):
            end = node.attrs["stops"][axis] - view.attrs["low"][axis]
            last = min(end, dim)
            if max(first, 0) >= last:
                return None
        starts.append(max(first, 0))
        stops.append(last)
        low.append(max(-first, 0))
        high.append(max(end - dim, 0) if isinstance(dim, int) else 0)
    part = slice_(x, starts, tuple(stops), (1,) * x.ndim)
    return pad(part, low, high, view.attrs["value"])


def _slice_of_window(node: Node, view: Node) -> Node | None:
    x = view.inputs[0]
    if node.shape[x.ndim :] != view.shape[x.ndim :] or 0 in node.shape:
        return None
    axes = _axes_of(x, view, view)
    starts, stops = list(node.attrs["starts"][: x.ndim]), list(node.attrs["stops"][: x.ndim])
    for a in axes:
        starts[a.axis] = starts[a.axis] * a.stride
        stops[a.axis] = (stops[a.axis] - 1) * a.stride + (a.size - 1) * a.dilation + 1
    return _window(slice_(x, starts, tuple(stops), (1,) * x.ndim), axes)


def _slice_of_contraction(node: Node, product: Node) -> Node | None:
    left, right, out = parse_spec(product.attrs["spec"])
    cut = {c for c, a, b in zip(out, node.shape, product.shape, strict=True) if a != b}
    moving: set[str] = set()
    for operand, letters in zip(product.inputs, (left, right), strict=True):
        if operand.op.name == "window":
            moving |= {letters[a] for a in operand.attrs["axes"]}
    if not cut <= moving:
        return None
    operands = []
    for operand, letters in zip(product.inputs, (left, right), strict=True):
        starts, stops = [0] * operand.ndim, list(operand.shape)
        for axis, c in enumerate(letters):
            if c in cut:
                starts[axis] = node.attrs["starts"][out.index(c)]
                stops[axis] = node.attrs["stops"][out.index(c)]
        operands.append(slice_(operand, starts, tuple(stops), (1,) * operand.ndim))
    return make("contract", *operands, spec=product.attrs["spec"])


RULES = (window_of_one, fold, slice_of_view)
