"""Takes queries, keys and values, gives what every query attends to (Vaswani et al. 2017)."""

from __future__ import annotations

import math
from functools import partial

from ir import ops
from ir.graph import Node
from ir.types import Extent, boolean
from nncompiler.frontend.common import ACTIVATED, Activated
from nncompiler.frontend.kinds import count, kind
from nncompiler.frontend.layers import activate
from nncompiler.frontend.site import Site


@kind
def attention(
    site: Site,
    query: Node,
    key: Node | None = None,
    value: Node | None = None,
    mask: Node | None = None,
    *,
    heads: int,
    causal: bool = False,
    given: Activated = ACTIVATED,
) -> Node:
    """softmax(q k' / sqrt(width)) v in `heads` heads, projected: (batch, time, features).

    query (batch, time, features); key, value (batch, other time, any features); a missing key is
    the query, a missing value the key. `mask` is True where a query may attend, of shape (batch,
    other time), (time, other time), (batch, time, other time) or (batch, heads or 1, time, other
    time). A query that may attend to nothing gets the value 0. With `causal` no query sees beyond
    its own time. Parameters: `query key value output`, each `.weight` (inputs, features) and
    `.bias`.
    """
    key = query if key is None else key
    value = key if value is None else value
    features = _check_shapes(query, key, value)
    heads = count("heads", heads)
    if features % heads:
        raise ValueError(f"{features} features cannot be split into {heads} equal heads")
    project = partial(_project, site, features, given)
    width = features // heads
    q = _split(project(query, "query"), heads)
    k = _split(project(key, "key"), heads)
    v = _split(project(value, "value"), heads)
    scores = ops.einsum("bqhd,bkhd->bhqk", q, k) * (1.0 / math.sqrt(width))
    allowed = _allowed(scores, mask, causal)
    weights = site.call_it(_softmax(scores, allowed, mask is not None), "weights")
    mixed = ops.einsum("bhqk,bkhd->bqhd", weights, v)
    joined = ops.reshape(mixed, (*query.shape[:2], features))
    return activate(site, project(joined, "output"), given.activation)


def _project(site: Site, features: int, given: Activated, x: Node, name: str) -> Node:
    """One of the four dense maps of an attention layer."""
    inputs = x.shape[-1]
    assert isinstance(inputs, int)
    fans = (inputs, features)
    z = x @ given.weight(site, f"{name}.weight", fans, fans=fans)
    if given.use_bias:
        z = z + given.bias(site, f"{name}.bias", (features,), fans=fans)
    return z if name == "output" else site.call_it(z, name)


def _check_shapes(query: Node, key: Node, value: Node) -> int:
    """The number of features; ValueError where the three do not fit."""
    for name, x in (("query", query), ("key", key), ("value", value)):
        if x.ndim != 3 or not isinstance(x.shape[2], int):
            raise ValueError(f"{name} has to have the shape (batch, time, features), not {x.type}")
        if x.shape[0] != query.shape[0]:
            raise ValueError(f"{name} has the batch {x.shape[0]}, query {query.shape[0]}")
    if key.shape[1] != value.shape[1]:
        raise ValueError(f"key has {key.shape[1]} times, value {value.shape[1]}")
    assert isinstance(query.shape[2], int)
    return query.shape[2]


def _split(x: Node, heads: int) -> Node:
    batch, time, features = x.shape
    assert isinstance(features, int)
    return ops.reshape(x, (batch, time, heads, features // heads))


def _allowed(scores: Node, mask: Node | None, causal: bool) -> Node | None:
    """True where a query may attend, in a shape that meets the scores; None: everywhere."""
    allowed = None if mask is None else _meet(ops.cast(mask, boolean), scores)
    if causal:
        times = scores.shape[2:]
        past = ops.iota(times, 0, "i32") >= ops.iota(times, 1, "i32")
        allowed = past if allowed is None else ops.and_(allowed, past)
    return allowed


def _meet(mask: Node, scores: Node) -> Node:
    """The mask with axes of length one where the scores (batch, heads, time, time) have more."""
    batch, _, queries, keys = scores.shape
    if mask.shape == (batch, keys) and (isinstance(batch, Extent) or batch != queries):
        return ops.reshape(mask, (batch, 1, 1, keys))
    if mask.shape == (queries, keys) or mask.ndim == 4:
        return mask
    if mask.shape == (batch, queries, keys):
        return ops.reshape(mask, (batch, 1, queries, keys))
    raise ValueError(
        f"the mask has shape {mask.type}; it needs ({batch}, {keys}), ({queries}, {keys}), "
        f"({batch}, {queries}, {keys}) or ({batch}, heads, {queries}, {keys})"
    )


def _softmax(scores: Node, allowed: Node | None, may_be_empty: bool) -> Node:
    """Over the last axis, among what is allowed; zeros where nothing is."""
    if allowed is None:
        return ops.softmax(scores, -1)
    weights = ops.softmax(ops.where(allowed, scores, -1e30), -1)
    return ops.where(allowed, weights, 0.0) if may_be_empty else weights
