"""Takes images and a layer's site, gives convolutions of them: conv and conv_transpose, 1-D to 3-D.

    y[n,f,h] = bias[f] + sum over c, i of x[n, c, h*stride + i*dilation - pad] * weight[f,c,i]

Layouts are channels-first. Both are contractions over windows; nothing here says how to loop.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ir import ops
from ir.graph import Node
from ir.types import Dim
from nncompiler.frontend.common import WEIGHTED, Weighted
from nncompiler.frontend.kinds import count, kind
from nncompiler.frontend.layers import activate
from nncompiler.frontend.site import Site
from nncompiler.frontend.weights import make_weight

Ints = tuple[int, ...]
Pairs = tuple[tuple[int, int], ...]
SPATIAL, KERNEL = "hwd", "ijk"  # letters of contractions; n batch, g group, c channel, f filter
MODES = ("correlation", "convolution")


@kind
def conv(
    site: Site,
    x: Node,
    *,
    filters: int,
    kernel_size: Any,
    strides: Any = 1,
    padding: Any = "valid",
    dilation: Any = 1,
    groups: int = 1,
    mode: str = "correlation",
    given: Weighted = WEIGHTED,
) -> Node:
    """activation(convolution of x with weight + bias), weight (filters, channels / groups, ...).

    mode "correlation" slides the kernel as it is, "convolution" mirrored, as mathematics has it.
    """
    extents = image_extents(x)
    rank = len(extents)
    sizes = per_axis("kernel_size", kernel_size, rank)
    steps = per_axis("strides", strides, rank)
    gaps = per_axis("dilation", dilation, rank)
    channels = _grouped("channels", x.shape[1], groups)
    kernels = _grouped("filters", count("filters", filters), groups) * groups
    weight = make_weight(
        site,
        (kernels, channels, *sizes),
        units=0,
        fans=(channels * math.prod(sizes), kernels * math.prod(sizes)),
        given=given,
    )
    pads = paddings(padding, extents, sizes, steps, gaps)
    z = convolve(x, _kernel(weight, mode), steps, pads, gaps, groups)
    return _finish(site, z, weight, given)


@kind
def conv_transpose(
    site: Site,
    x: Node,
    *,
    filters: int,
    kernel_size: Any,
    strides: Any = 1,
    padding: Any = "valid",
    output_padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    mode: str = "correlation",
    given: Weighted = WEIGHTED,
) -> Node:
    """The adjoint of a convolution: every element of x adds a multiple of the kernel to the result.

    weight (channels, filters / groups, ...); `padding` is what the convolution would have padded,
    so it is cut off; "same" gives extents strides times as large; `output_padding` adds elements
    at the end.
    """
    extents = image_extents(x)
    rank = len(extents)
    sizes = per_axis("kernel_size", kernel_size, rank)
    steps = per_axis("strides", strides, rank)
    gaps = per_axis("dilation", dilation, rank)
    more = per_axis("output_padding", output_padding, rank, least=0)
    channels = _grouped("channels", x.shape[1], groups) * groups
    kernels = _grouped("filters", count("filters", filters), groups)
    weight = make_weight(
        site,
        (channels, kernels, *sizes),
        units=1,
        fans=(channels // groups * math.prod(sizes), kernels * groups * math.prod(sizes)),
        given=given,
    )
    full = tuple(
        max((e - 1) * s + (k - 1) * d + 1, 0) if e else 0
        for e, s, k, d in zip(extents, steps, sizes, gaps, strict=True)
    )
    cuts = _cuts(padding, extents, full, steps)
    z = spread_kernels(x, _kernel(weight, mode), steps, gaps, groups, full)
    z = _cut(z, cuts, more)
    return _finish(site, z, weight, given)


# --------------------------------------------------------------------------- as graphs


def convolve(
    x: Node, weight: Node, strides: Ints, pads: Pairs, dilation: Ints, groups: int
) -> Node:
    """The correlation of x (n, c, ...) with weight (f, c / groups, ...)."""
    rank = x.ndim - 2
    space, kernel = SPATIAL[:rank], KERNEL[:rank]
    windows = sliding(x, weight.shape[2:], strides, pads, dilation, 0.0)
    if groups == 1:
        return ops.contract(windows, weight, f"nc{space}{kernel},fc{kernel}->nf{space}")
    split = (groups, weight.shape[1])
    windows = ops.reshape(windows, (windows.shape[0], *split, *windows.shape[2:]))
    each = int(weight.shape[0]) // groups  # type: ignore[arg-type]
    weight = ops.reshape(weight, (groups, each, *weight.shape[1:]))
    z = ops.contract(windows, weight, f"ngc{space}{kernel},gfc{kernel}->ngf{space}")
    return ops.reshape(z, (z.shape[0], groups * each, *z.shape[3:]))


def spread_kernels(
    x: Node, weight: Node, strides: Ints, dilation: Ints, groups: int, extents: Ints
) -> Node:
    """The adjoint of `convolve` without padding: x (n, c, ...), weight (c, f / groups, ...)."""
    rank = x.ndim - 2
    space, kernel = SPATIAL[:rank], KERNEL[:rank]
    if groups > 1:
        each = int(x.shape[1]) // groups  # type: ignore[arg-type]
        x = ops.reshape(x, (x.shape[0], groups, each, *x.shape[2:]))
        weight = ops.reshape(weight, (groups, each, *weight.shape[1:]))
        spec = f"ngc{space},gcf{kernel}->ngf{space}{kernel}"
    else:
        spec = f"nc{space},cf{kernel}->nf{space}{kernel}"
    spots = ops.contract(x, weight, spec)
    axes = range(x.ndim - rank, x.ndim)
    z = ops.fold(spots, axes, extents, strides, dilation)
    if groups > 1:
        z = ops.reshape(z, (z.shape[0], groups * int(z.shape[2]), *z.shape[3:]))  # type: ignore[arg-type]
    return z


def sliding(
    x: Node, sizes: Sequence[Dim], strides: Ints, pads: Pairs, dilation: Ints, value: float
) -> Node:
    """Windows over the spatial axes of x, padded with `value`."""
    low, high = zip(*pads, strict=True)
    padded = ops.pad(x, (0, 0, *low), (0, 0, *high), value)
    known = tuple(int(s) for s in sizes)  # type: ignore[arg-type]
    windows = ops.window(padded, range(2, x.ndim), known, strides, dilation)
    if 0 in windows.shape[2 : x.ndim] and 0 not in padded.shape:
        raise ValueError(
            f"a kernel of {known} with dilation {dilation} does not fit the padded value of "
            f"extents {padded.shape[2:]}"
        )
    return windows


def _cut(z: Node, cuts: Pairs, more: Ints) -> Node:
    """z without what the padding cut off, and with elements added at the end of every axis."""
    starts, stops, high = [0, 0], list(z.shape[:2]), [0, 0]
    for extent, (low, tail), extra in zip(z.shape[2:], cuts, more, strict=True):
        assert isinstance(extent, int)
        stop = extent - tail + extra
        starts.append(low)
        stops.append(min(stop, extent))
        high.append(max(stop - extent, 0))
        if low >= min(stop, extent):
            raise ValueError(f"padding leaves nothing of a result of extent {extent}")
    part = ops.slice_(z, starts, tuple(stops), (1,) * z.ndim)
    return ops.pad(part, (0,) * z.ndim, high)


def _kernel(weight: Node, mode: str) -> Node:
    if mode not in MODES:
        raise ValueError(f"mode is one of {', '.join(map(repr, MODES))}, not {mode!r}")
    return weight if mode == "correlation" else ops.flip(weight, tuple(range(2, weight.ndim)))


def _finish(site: Site, z: Node, weight: Node, given: Weighted) -> Node:
    """The activation of z and a bias per channel."""
    if not given.use_bias:
        return activate(site, z, given.activation)
    channels = z.shape[1]
    assert isinstance(channels, int)
    receptive = math.prod(int(d) for d in weight.shape[1:] if isinstance(d, int))
    bias = given.bias(site, "bias", (channels,), fans=(receptive, channels))
    z = z + ops.reshape(bias, (channels, *(1,) * (z.ndim - 2)))
    return activate(site, z, given.activation)


# --------------------------------------------------------------------------- attributes


def image_extents(x: Node) -> Ints:
    """The spatial extents of (n, c, ...) with one to three spatial axes."""
    if not 3 <= x.ndim <= 5:
        raise ValueError("the data have to be (batch, channels) and one to three spatial axes")
    extents = []
    for dim in x.shape[1:]:
        if not isinstance(dim, int):
            raise ValueError("only the batch may be symbolic")
        extents.append(dim)
    return tuple(extents[1:])


def per_axis(name: str, value: Any, rank: int, *, least: int = 1) -> Ints:
    """One whole number (1 or more, or `least`) per spatial axis, from a number or a sequence."""
    given: list[Any] = list(value) if isinstance(value, (list, tuple)) else [value] * rank
    if len(given) != rank:
        raise ValueError(f"{name} has to be a number or one for each of {rank} axes, not {value!r}")
    return tuple(count(name, v, least) for v in given)


def paddings(padding: Any, extents: Ints, sizes: Ints, strides: Ints, dilation: Ints) -> Pairs:
    """(before, after) for every spatial axis.

    "same" gives ceil(extent / stride) windows, with the odd element after, as Keras and torch do.
    """
    if isinstance(padding, str):
        if padding == "valid":
            return ((0, 0),) * len(extents)
        if padding != "same":
            raise ValueError(f"padding is 'valid', 'same', a number or pairs, not {padding!r}")
        totals = [
            max((-(-e // s) - 1) * s + (k - 1) * d + 1 - e, 0)
            for e, k, s, d in zip(extents, sizes, strides, dilation, strict=True)
        ]
        return tuple((t // 2, t - t // 2) for t in totals)
    return _explicit(padding, len(extents))


def _explicit(padding: Any, rank: int) -> Pairs:
    """A number for all sides, a number per axis, or a pair per axis."""
    given = list(padding) if isinstance(padding, (list, tuple)) else [padding] * rank
    if len(given) != rank:
        raise ValueError(f"padding has to name each of {rank} axes, not {padding!r}")
    pairs = []
    for entry in given:
        low, high = entry if isinstance(entry, (list, tuple)) else (entry, entry)
        ends = tuple(per_axis("padding", v, 1, least=0)[0] for v in (low, high))
        pairs.append((ends[0], ends[1]))
    return tuple(pairs)


def _cuts(padding: Any, extents: Ints, full: Ints, strides: Ints) -> Pairs:
    """What is cut off at both ends of a transposed convolution; negative where it is extended."""
    if padding == "same":
        totals = [f - e * s for f, e, s in zip(full, extents, strides, strict=True)]
        return tuple((max(t, 0) // 2, t - max(t, 0) // 2) for t in totals)
    return ((0, 0),) * len(full) if padding == "valid" else paddings(padding, extents, (), (), ())


def _grouped(name: str, number: Dim, groups: int) -> int:
    groups = count("groups", groups)
    assert isinstance(number, int)
    if number % groups:
        raise ValueError(f"{number} {name} do not divide into {groups} groups")
    return number // groups
