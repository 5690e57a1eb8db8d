"""Takes a layer's site and a shape, gives its weight: as it is, or divided by one of its norms."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ir import ops
from ir.graph import Node
from ir.types import DType
from nncompiler.frontend.common import Weighted
from nncompiler.frontend.initializers import Array, Fans, Initializer, make_initializer
from nncompiler.frontend.site import Site

TINY = 1e-12  # vectors shorter than this are not scaled to length one


def make_weight(
    site: Site,
    shape: Sequence[int],
    *,
    units: int,
    fans: Fans,
    given: Weighted,
) -> Node:
    """The parameter `weight`, whose axis `units` counts the outputs.

    spectral_norm   weight / its largest singular value (Miyato et al. 2018), found by one step of
                    the power iteration per training step; the state `v` is its vector
    weight_norm     each output's part of `weight` scaled to the length that the parameter
                    `weight_scale` (outputs) holds (Salimans and Kingma 2016); it starts as drawn
    """
    weight = given.weight(site, "weight", shape, fans=fans)
    if given.spectral_norm and given.weight_norm:
        raise ValueError("spectral_norm and weight_norm exclude each other")
    if given.spectral_norm:
        return site.call_it(_divide_by_spectral_norm(site, weight, units), "normal_weight")
    if not given.weight_norm:
        return weight
    own = given.initializer
    drawn = site.program.initializer if own is None else make_initializer(own)
    rest = tuple(a for a in range(len(shape)) if a != units)
    scale = site.parameter(
        "weight_scale",
        (shape[units],),
        fans=fans,
        initializer=Lengths(drawn, tuple(shape), rest),
        trainable=given.trainable,
        is_weight=False,
        stream="weight",
    )
    length = _length(weight, rest)
    along = tuple(d if a == units else 1 for a, d in enumerate(shape))
    return site.call_it(weight * ops.reshape(scale / length, along), "normal_weight")


@dataclass(frozen=True)
class Lengths:
    """Draws a weight of `shape` and gives its lengths over the axes `rest`."""

    initializer: Initializer
    shape: tuple[int, ...]
    rest: tuple[int, ...]

    def draw(
        self, rng: np.random.Generator, shape: Sequence[int], fans: Fans, dtype: DType
    ) -> Array:
        weight = self.initializer.draw(rng, self.shape, fans, dtype).astype(np.float64)
        return np.asarray(np.sqrt(np.sum(weight * weight, axis=self.rest)), dtype.numpy)


def _divide_by_spectral_norm(site: Site, weight: Node, units: int) -> Node:
    """With m the weight as a matrix (rest, outputs): u = m'v / |m'v|, v = m u / |m u|.

    The singular value is v m u with u and v taken as constants; at inference |m'v|.
    """
    order = (*(a for a in range(weight.ndim) if a != units), units)
    outputs = weight.shape[units]
    m = ops.reshape(ops.transpose(weight, order), (-1, outputs))
    rows = m.shape[0]
    assert isinstance(rows, int)
    rng = np.random.default_rng(zlib.crc32(f"{site.owner}.v".encode()))
    start = rng.normal(size=rows)
    state = site.state("v", start / math.sqrt(start @ start))
    fixed = ops.stop_gradient(m)
    if not site.program.training:
        return weight / _length(state @ fixed)
    v = site.latest(state)
    u = _unit(v @ fixed)
    new = _unit(fixed @ u)
    site.advance(state, lambda _: new)
    return weight / site.call_it(ops.sum(new * (m @ u)), "sigma")


def _length(x: Node, axes: tuple[int, ...] = (0,)) -> Node:
    """The Euclidean length, whose derivative is 0 where it is."""
    return ops.sqrt(ops.maximum(ops.sum(x * x, axes), TINY**2))


def _unit(x: Node) -> Node:
    return x / _length(x)
