"""Takes images, gives smaller or larger ones: pooling over windows or everything, upsampling.

Padding takes no part: it is never the largest value and is not counted in an average.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ir import ops
from ir.graph import Node
from nncompiler.frontend.convolution import Ints, Pairs, image_extents, paddings, per_axis, sliding
from nncompiler.frontend.kinds import kind
from nncompiler.frontend.site import Site


@kind
def max_pool(
    site: Site, x: Node, *, pool_size: Any, strides: Any = None, padding: Any = "valid"
) -> Node:
    """The largest of each window; its derivative is that of the first largest."""
    sizes, steps, pads = _windows(x, pool_size, strides, padding)
    windows = sliding(x, sizes, steps, pads, (1,) * len(sizes), -math.inf)
    return ops.first_max(windows, range(x.ndim, windows.ndim))


@kind
def avg_pool(
    site: Site, x: Node, *, pool_size: Any, strides: Any = None, padding: Any = "valid"
) -> Node:
    """The mean of each window, of the elements that are there."""
    sizes, steps, pads = _windows(x, pool_size, strides, padding)
    windows = sliding(x, sizes, steps, pads, (1,) * len(sizes), 0.0)
    total = ops.sum(windows, tuple(range(x.ndim, windows.ndim)))
    if not any(low or high for low, high in pads):
        return total * (1.0 / math.prod(sizes))
    counts = _counts(image_extents(x), sizes, steps, pads)
    return total * ops.constant(1.0 / counts, x.dtype)


def _windows(x: Node, pool_size: Any, strides: Any, padding: Any) -> tuple[Ints, Ints, Pairs]:
    extents = image_extents(x)
    sizes = per_axis("pool_size", pool_size, len(extents))
    steps = sizes if strides is None else per_axis("strides", strides, len(extents))
    pads = paddings(padding, extents, sizes, steps, (1,) * len(extents))
    for size, pair in zip(sizes, pads, strict=True):
        if max(pair) >= size:
            raise ValueError(f"padding {pair} leaves windows of {size} without an element")
    return sizes, steps, pads


def _counts(extents: Ints, sizes: Ints, strides: Ints, pads: Pairs) -> Any:
    """How many elements of the data each window holds."""
    result = np.ones((1,) * len(extents))
    for axis, (extent, size, step) in enumerate(zip(extents, sizes, strides, strict=True)):
        low, high = pads[axis]
        starts = np.arange(0, extent + low + high - size + 1, step) - low
        held = np.minimum(starts + size, extent) - np.maximum(starts, 0)
        shape = [1] * len(extents)
        shape[axis] = -1
        result = result * held.reshape(shape)
    return result


# --------------------------------------------------------------------------- the whole image


@kind
def global_avg_pool(site: Site, x: Node) -> Node:
    """The mean over the spatial axes: (n, c)."""
    image_extents(x)
    return ops.mean(x, tuple(range(2, x.ndim)))


@kind
def global_max_pool(site: Site, x: Node) -> Node:
    """The largest over the spatial axes, its derivative that of the first largest: (n, c)."""
    image_extents(x)
    return ops.first_max(x, range(2, x.ndim))


@kind
def adaptive_avg_pool(site: Site, x: Node, *, output_size: Any) -> Node:
    """The means of output_size bins, which overlap where the extent does not divide, as torch."""
    return _adaptive(x, output_size, lambda part, axis: ops.mean(part, axis, keepdims=True))


@kind
def adaptive_max_pool(site: Site, x: Node, *, output_size: Any) -> Node:
    """The largest of output_size bins, which overlap where the extent does not divide, as torch."""

    def largest(part: Node, axis: int) -> Node:
        return ops.expand_dims(ops.first_max(part, (axis,)), axis)

    return _adaptive(x, output_size, largest)


def _adaptive(x: Node, output_size: Any, combine: Any) -> Node:
    """Axis after axis: bin i holds the elements floor(i e / n) up to ceil((i + 1) e / n)."""
    extents = image_extents(x)
    sizes = per_axis("output_size", output_size, len(extents))
    for axis, (extent, size) in enumerate(zip(extents, sizes, strict=True), 2):
        bins = [(i * extent // size, -(-(i + 1) * extent // size)) for i in range(size)]
        parts = [combine(ops.slice_axis(x, axis, *ends), axis) for ends in bins]
        x = ops.concatenate(parts, axis)
    return x


# --------------------------------------------------------------------------- larger images


@kind
def upsample(site: Site, x: Node, *, scale: Any, mode: str = "nearest") -> Node:
    """Every spatial axis `scale` times as long: elements repeated, or mixed with the next one."""
    extents = image_extents(x)
    scales = per_axis("scale", scale, len(extents))
    if mode not in ("nearest", "bilinear"):
        raise ValueError(f"mode is 'nearest' or 'bilinear', not {mode!r}")
    for axis, (extent, factor) in enumerate(zip(extents, scales, strict=True), 2):
        if factor > 1:
            x = _repeat(x, axis, factor) if mode == "nearest" else _mix(x, axis, extent, factor)
    return x


def _repeat(x: Node, axis: int, factor: int) -> Node:
    longer = (*x.shape[: axis + 1], factor, *x.shape[axis + 1 :])
    spread = ops.broadcast_to(ops.expand_dims(x, axis + 1), longer)
    return ops.reshape(spread, (*x.shape[:axis], x.shape[axis] * factor, *x.shape[axis + 1 :]))


def _mix(x: Node, axis: int, extent: int, factor: int) -> Node:
    """Linear interpolation between the centres of elements, as a contraction with its weights."""
    centres = np.clip((np.arange(extent * factor) + 0.5) / factor - 0.5, 0, extent - 1)
    weights = np.maximum(0.0, 1.0 - np.abs(np.arange(extent)[:, None] - centres))
    letters = "abcde"[: x.ndim]
    spec = f"{letters},{letters[axis]}z->{letters.replace(letters[axis], 'z')}"
    return ops.contract(x, ops.constant(weights, x.dtype), spec)
