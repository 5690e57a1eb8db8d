"""Takes numbers of words and a layer's site, gives their vectors; adds positions to vectors."""

from __future__ import annotations

from typing import Any

import numpy as np

from ir import ops
from ir.graph import Node
from nncompiler.frontend.common import Drawn
from nncompiler.frontend.initializers import Array
from nncompiler.frontend.kinds import count, kind
from nncompiler.frontend.layers import activate
from nncompiler.frontend.site import Site

NORMAL = Drawn(initializer="normal")


@kind
def embedding(
    site: Site,
    indices: Node,
    *,
    num_embeddings: int,
    embedding_dim: int,
    activation: object = None,
    given: Drawn = NORMAL,
) -> Node:
    """Rows of `weight` (num_embeddings, embedding_dim): indices.shape + (embedding_dim,)."""
    table = _table(site, num_embeddings, embedding_dim, given)
    _check_indices(site, indices, num_embeddings)
    return activate(site, ops.gather(table, indices), activation)


@kind
def embedding_bag(
    site: Site,
    indices: Node,
    weights: Node | None = None,
    *,
    num_embeddings: int,
    embedding_dim: int,
    mode: str = "mean",
    padding_index: int | None = None,
    activation: object = None,
    given: Drawn = NORMAL,
) -> Node:
    """The sum or mean of the rows of every bag: indices (batch, bag) -> (batch, embedding_dim).

    Entries equal to `padding_index` do not count, so that bags may differ in length; a bag without
    entries gives zeros. The slot `weights` (batch, bag) weighs the entries of a sum.
    """
    if mode not in ("sum", "mean"):
        raise ValueError(f"mode is 'sum' or 'mean', not {mode!r}")
    if indices.ndim != 2:
        raise ValueError("embedding_bag needs indices of shape (batch, bag)")
    if weights is not None and (mode != "sum" or weights.shape != indices.shape):
        raise ValueError("weights go with mode='sum' and have the shape of the indices")
    table = _table(site, num_embeddings, embedding_dim, given)
    _check_indices(site, indices, num_embeddings)
    rows = ops.gather(table, indices)
    kept = None
    if padding_index is not None:
        kept = ops.cast(ops.ne(indices, _index(padding_index, num_embeddings)), rows.dtype)
        weights = kept if weights is None else weights * kept
    if weights is not None:
        rows = rows * ops.reshape(weights, (*weights.shape, 1))
    total = ops.sum(rows, 1)
    if mode == "mean" and kept is not None:
        total = total / ops.maximum(ops.sum(kept, 1, keepdims=True), 1.0)
    elif mode == "mean":
        bag = indices.shape[1]
        assert isinstance(bag, int)
        total = total * (1.0 / max(bag, 1))
    return activate(site, total, activation)


@kind
def positional_encoding(
    site: Site,
    x: Node,
    *,
    mode: str = "sinusoidal",
    base: float = 10000.0,
    given: Drawn = NORMAL,
) -> Node:
    """x (batch, time, features) plus a vector for every time.

    "sinusoidal": sin(t / base^(2i / features)) at feature 2i and cos of the same at 2i + 1
    (Vaswani et al. 2017); "learned": the parameter `weight` (time, features).
    """
    if x.ndim < 3:
        raise ValueError("positional_encoding needs a value of shape (batch, time, features)")
    time, features = (d for d in x.shape[-2:] if isinstance(d, int))
    if mode == "sinusoidal":
        return x + ops.constant(sinusoids(time, features, base), x.dtype)
    if mode != "learned":
        raise ValueError(f"mode is 'sinusoidal' or 'learned', not {mode!r}")
    return x + given.weight(site, "weight", (time, features), fans=(time, features))


def sinusoids(time: int, features: int, base: float = 10000.0) -> Array:
    """(time, features) of sines and cosines, whose wave lengths grow from 2 pi to 2 pi base."""
    if isinstance(base, bool) or not base > 0.0:
        raise ValueError(f"base has to be above 0, not {base!r}")
    angles = np.arange(time)[:, None] / base ** (2 * (np.arange(features) // 2) / max(features, 1))
    return np.where(np.arange(features) % 2 == 0, np.sin(angles), np.cos(angles))


# --------------------------------------------------------------------------- parts


def _table(site: Site, size: Any, width: Any, given: Drawn) -> Node:
    size, width = count("num_embeddings", size), count("embedding_dim", width)
    return given.weight(site, "weight", (size, width), fans=(size, width), is_table=True)


def _check_indices(site: Site, indices: Node, size: int) -> None:
    """Whole numbers; those that come from outside are checked to be in 0 .. size - 1."""
    if indices.dtype.kind not in ("int", "uint"):
        raise ValueError(
            f"the indices have to be whole numbers, not {indices.type}; give the input node "
            "dtype='int32'"
        )
    source = indices
    while source.op.name in ("reshape", "transpose"):
        (source,) = source.inputs
    if source.op.name == "input":
        site.check_range(source, 0, size)


def _index(value: Any, size: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"padding_index has to be a whole number, not {value!r}")
    if not 0 <= value < size:
        raise ValueError(f"padding_index has to be in 0 to {size - 1}, not {value}")
    return int(value)
