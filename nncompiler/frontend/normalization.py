"""Takes values and a layer's site, gives them normalized: batch, layer, RMS, group, instance norm.

All are (x - mean) / sqrt(variance + epsilon) * scale + shift with the variance of the numbers that
share a mean; they differ in which numbers those are. Channels stand on axis 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ir import ops
from ir.graph import Node
from ir.types import multiply
from nncompiler.frontend.common import Activated
from nncompiler.frontend.kinds import count, kind
from nncompiler.frontend.layers import activate
from nncompiler.frontend.site import Site

SCALED = Activated(initializer="ones")


@kind
def batch_norm(
    site: Site,
    x: Node,
    *,
    momentum: float = 0.1,
    epsilon: float = 1e-5,
    given: Activated = SCALED,
) -> Node:
    """Each channel with the mean and variance of the batch (Ioffe and Szegedy 2015).

    At inference the running ones are taken, the states `mean` and `variance` (channels). A training
    step moves them: running = (1 - momentum) running + momentum batch, with the unbiased variance.
    """
    _check_rank(x, 2)
    epsilon, momentum = _number("epsilon", epsilon), _number("momentum", momentum, high=1.0)
    channels = _channels(x)
    mean = site.state("mean", np.zeros(channels))
    variance = site.state("variance", np.ones(channels))
    if site.program.training:
        axes = tuple(a for a in range(x.ndim) if a != 1)
        batch_mean = site.call_it(ops.mean(x, axes), "batch_mean")
        centred = x - _per_channel(batch_mean, x)
        squares = ops.sum(centred * centred, axes)
        number = ops.extent(multiply(x.shape[a] for a in axes), x.dtype)
        unbiased = squares / ops.maximum(number - 1.0, 1.0)
        site.advance(mean, lambda old: (1.0 - momentum) * old + momentum * batch_mean)
        site.advance(variance, lambda old: (1.0 - momentum) * old + momentum * unbiased)
        used = site.call_it(squares / number, "batch_variance")
    else:
        centred, used = x - _per_channel(mean, x), variance
    factor = ops.rsqrt(used + epsilon)
    scale, shift = _affine(site, (channels,), given)
    y = centred * _per_channel(factor * scale, x)
    return activate(site, y if shift is None else y + _per_channel(shift, x), given.activation)


@kind
def layer_norm(
    site: Site,
    x: Node,
    *,
    axes: int | Sequence[int] = -1,
    epsilon: float = 1e-5,
    given: Activated = SCALED,
) -> Node:
    """Each row over `axes` (which count the batch's) with its own mean and variance."""
    chosen = _axes(x, axes)
    scale, shift = _affine(site, _kept(x, chosen), given)
    y = _standardize(x, chosen, _number("epsilon", epsilon)) * _along(scale, x, chosen)
    return activate(site, y if shift is None else y + _along(shift, x, chosen), given.activation)


@kind
def rms_norm(
    site: Site,
    x: Node,
    *,
    axes: int | Sequence[int] = -1,
    epsilon: float = 1e-5,
    given: Activated = SCALED,
) -> Node:
    """x / sqrt(mean of x^2 + epsilon) over `axes`, scaled and shifted (Zhang and Sennrich 2019)."""
    chosen = _axes(x, axes)
    scale, shift = _affine(site, _kept(x, chosen), given)
    power = ops.mean(x * x, chosen, keepdims=True)
    y = x * ops.rsqrt(power + _number("epsilon", epsilon)) * _along(scale, x, chosen)
    return activate(site, y if shift is None else y + _along(shift, x, chosen), given.activation)


@kind
def group_norm(
    site: Site,
    x: Node,
    *,
    groups: int,
    epsilon: float = 1e-5,
    given: Activated = SCALED,
) -> Node:
    """Each example's channels in `groups` equal groups, each with its mean and variance."""
    _check_rank(x, 2)
    groups, channels = count("groups", groups), _channels(x)
    if channels % groups:
        raise ValueError(f"{channels} channels cannot be split into {groups} equal groups")
    scale, shift = _affine(site, (channels,), given)
    split = ops.reshape(x, (x.shape[0], groups, channels // groups, *x.shape[2:]))
    inner = tuple(range(2, split.ndim))
    normal = ops.reshape(_standardize(split, inner, _number("epsilon", epsilon)), x.shape)
    y = normal * _per_channel(scale, x)
    return activate(site, y if shift is None else y + _per_channel(shift, x), given.activation)


@kind
def instance_norm(
    site: Site,
    x: Node,
    *,
    epsilon: float = 1e-5,
    given: Activated = SCALED,
) -> Node:
    """Each channel of each example with its own mean and variance over space."""
    _check_rank(x, 3)
    scale, shift = _affine(site, (_channels(x),), given)
    normal = _standardize(x, tuple(range(2, x.ndim)), _number("epsilon", epsilon))
    y = normal * _per_channel(scale, x)
    return activate(site, y if shift is None else y + _per_channel(shift, x), given.activation)


# --------------------------------------------------------------------------- parts


def _standardize(x: Node, axes: tuple[int, ...], epsilon: float) -> Node:
    centred = x - ops.mean(x, axes, keepdims=True)
    variance = ops.mean(centred * centred, axes, keepdims=True)
    return centred * ops.rsqrt(variance + epsilon)


def _affine(
    site: Site,
    shape: Sequence[int],
    given: Activated,
) -> tuple[Node, Node | None]:
    """The parameters `scale` and `shift`; the model's regularizer applies to neither."""
    fans = (math.prod(shape), math.prod(shape))
    scale = given.weight(site, "scale", shape, fans=fans, is_weight=False)
    return scale, given.bias(site, "shift", shape, fans=fans) if given.use_bias else None


def _per_channel(values: Node, x: Node) -> Node:
    """(channels,) so that it meets axis 1 of x."""
    return ops.reshape(values, (*values.shape, *(1 for _ in x.shape[2:])))


def _along(values: Node, x: Node, axes: tuple[int, ...]) -> Node:
    """Values of the extents of `axes`, so that they meet those axes of x."""
    return ops.reshape(values, tuple(d if a in axes else 1 for a, d in enumerate(x.shape)))


def _axes(x: Node, axes: Any) -> tuple[int, ...]:
    """The axes counted from 0, ascending; never the first, which is the batch's."""
    given = [axes] if isinstance(axes, (int, np.integer)) else list(axes)
    for axis in given:
        if isinstance(axis, bool) or not isinstance(axis, (int, np.integer)):
            raise TypeError(f"axes are whole numbers, not {axis!r}")
        if not -x.ndim <= axis < x.ndim or axis % x.ndim == 0:
            raise ValueError(f"axis {axis} is not one of the axes 1 to {x.ndim - 1} of {x.type}")
    chosen = tuple(sorted({int(a) % x.ndim for a in given}))
    if not chosen or len(chosen) < len(given):
        raise ValueError(f"axes {tuple(given)} of {x.type}: give each axis once, at least one")
    return chosen


def _kept(x: Node, axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(d for a, d in enumerate(x.shape) if a in axes and isinstance(d, int))


def _check_rank(x: Node, least: int) -> None:
    if x.ndim < least:
        space = ", channels" if least == 2 else ", channels, space..."
        raise ValueError(f"a value of shape (batch{space}) is needed, not {x.type}")


def _channels(x: Node) -> int:
    assert isinstance(x.shape[1], int)
    return x.shape[1]


def _number(name: str, value: Any, high: float = math.inf) -> float:
    if isinstance(value, bool) or not 0.0 <= value <= high:
        raise ValueError(f"{name} has to be in [0, {high}], not {value!r}")
    return float(value)
