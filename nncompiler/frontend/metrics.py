"""Takes predictions and targets, gives the scalars that are reported beside the loss."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ir import ops
from ir.graph import Node
from ir.types import DType, boolean, i32
from nncompiler.errors import call_user
from nncompiler.frontend.losses import LABELS, Loss, one_over
from nncompiler.frontend.names import suggest
from nncompiler.frontend.rankings import RANKINGS, Ranking


@dataclass(frozen=True)
class Result:
    """What a metric sees: an output, the scores behind it that the loss takes, and the target."""

    prediction: Node
    scores: Node
    target: Node
    kind: str
    loss: Loss


Metric = Callable[[Result], Node]


def accuracy(r: Result) -> Node:
    """The share of right decisions: the largest score, or the right side of the threshold.

    The threshold of a single or non-categorical output is 0 for scores (binary cross-entropy and
    hinge) and 1/2 for probabilities.
    """
    y, t = r.scores, r.target
    if r.kind == LABELS:
        right = ops.eq(ops.cast(ops.argmax(y, -1), i32), ops.cast(t, i32))
    elif r.loss.logits == "softmax" or (r.loss.logits == "" and _is_wide(y)):
        right = ops.eq(ops.argmax(y, -1), ops.argmax(t, -1))
    else:
        signs = r.loss.name == "hinge"
        border = 0.0 if signs or r.loss.logits == "sigmoid" else 0.5
        right = ops.eq(y > border, t > (0.0 if signs else 0.5))
    return _mean(ops.cast(right, y.dtype))


def mean_squared_error(r: Result) -> Node:
    error = _error(r, "mse")
    return _mean(error * error)


def root_mean_squared_error(r: Result) -> Node:
    return ops.sqrt(mean_squared_error(r))


def mean_absolute_error(r: Result) -> Node:
    return _mean(abs(_error(r, "mae")))


def top(k: int) -> Metric:
    """The share of rows whose class is among the k largest scores (earlier ones win ties)."""

    def among_top(r: Result) -> Node:
        y, t = r.scores, r.target
        if not _is_wide(y):
            raise ValueError(f"top_{k} needs a score for every class, not {y.type}")
        label = ops.cast(t, i32) if r.kind == LABELS else ops.argmax(t, -1)
        places = ops.iota(y.shape, y.ndim - 1, i32)
        label = ops.reshape(label, (*label.shape, 1))
        own = ops.sum(ops.where(ops.eq(places, label), y, 0.0), -1, keepdims=True)
        ahead = ops.or_(y > own, ops.and_(ops.eq(y, own), places < label))
        rank = ops.sum(ops.cast(ahead, i32), -1)
        return _mean(ops.cast(rank < k, y.dtype))

    return among_top


METRICS: Mapping[str, Metric] = {
    "accuracy": accuracy,
    "mse": mean_squared_error,
    "rmse": root_mean_squared_error,
    "mae": mean_absolute_error,
}


def make_metric(value: object) -> tuple[str, Metric | Ranking]:
    """(name, metric) from a name or a function (prediction, target) -> value.

    "top_3" is the accuracy among the three largest scores, of any number.
    """
    match value:
        case str(name) if found := re.fullmatch(r"top_([1-9]\d*)", name):
            return name, top(int(found[1]))
        case str(name) if name in RANKINGS:
            return name, RANKINGS[name]
        case str(name):
            if name not in METRICS:
                raise ValueError(
                    f"unknown metric '{name}'; {suggest(name, (*METRICS, *RANKINGS, 'top_5'))}"
                )
            return name, METRICS[name]
        case _ if callable(value):
            return getattr(value, "__name__", "metric"), lambda r: _scalar(
                call_user("the metric function", value, r.prediction, r.target), r.prediction.dtype
            )
    raise ValueError(f"a metric is a name or a function (prediction, target), not {value!r}")


def _is_wide(y: Node) -> bool:
    return y.ndim > 1 and y.shape[-1] != 1


def _error(r: Result, name: str) -> Node:
    if r.kind == LABELS:
        raise ValueError("it needs values as targets, not class numbers")
    return r.prediction - r.target


def _mean(x: Node) -> Node:
    return ops.sum(x) * one_over(x.shape, x.dtype)


def _scalar(value: object, dtype: DType) -> Node:
    """The mean of a symbolic value; of booleans the share that is true."""
    if isinstance(value, Node) and value.dtype == boolean:
        value = ops.cast(value, dtype)
    if not isinstance(value, Node) or not value.dtype.is_float:
        raise ValueError(f"a metric has to give a symbolic value of float dtype, not {value!r}")
    return _mean(value) if value.shape else value
