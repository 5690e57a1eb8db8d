"""Takes predictions and targets, gives the loss of every entry; `mean_loss` gives their average.

A loss is a function (prediction, target) -> terms, one per entry or per row, and a factor. The loss
of an example is factor * sum of its terms, and the loss of a batch the mean over its examples, each
times its `sample_weight` where there is one.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ir import ops
from ir.graph import Node
from ir.types import Dim, DType, Shape, i32, multiply
from nncompiler.errors import call_user
from nncompiler.frontend.activations import softplus
from nncompiler.frontend.names import suggest

LABELS = "labels"  # integer class numbers
DENSE = "dense"  # values of the model's dtype, one per entry of the prediction


@dataclass(frozen=True)
class Loss:
    """`terms(prediction, target)` with the batch as leading axis.

    `average` divides by the number of an example's terms; `logits` tells which last activation of
    the network the loss undoes to stay stable ("softmax", "sigmoid" or "").
    """

    name: str
    terms: Callable[[Node, Node], Node]
    average: bool = True
    logits: str = ""
    takes_labels: bool = False


def mse(y: Node, t: Node) -> Node:
    """(y - t)^2, mean over all elements."""
    return (y - t) * (y - t)


def sse(y: Node, t: Node) -> Node:
    """1/2 the sum of (y - t)^2 over an example's entries."""
    return 0.5 * ((y - t) * (y - t))


def mae(y: Node, t: Node) -> Node:
    """|y - t|."""
    return abs(y - t)


def huber(y: Node, t: Node, delta: float = 1.0) -> Node:
    """(y - t)^2 / 2 within delta, delta (|y - t| - delta / 2) outside."""
    error = y - t
    size = abs(error)
    return ops.where(size <= delta, 0.5 * (error * error), delta * (size - 0.5 * delta))


def cross_entropy(y: Node, t: Node) -> Node:
    """-sum t log softmax(y) per row; y are scores, t class numbers or rows of probabilities.

    Written as log(sum e^s) - s_t with s = y - max y, so that the gradient is softmax(y) - e(t).
    """
    shifted = y - ops.stop_gradient(ops.max(y, -1, keepdims=True))
    log_sum = ops.log(ops.sum(ops.exp(shifted), -1))
    if t.dtype.is_float:
        # log_sum stands once per unit of probability: rows need not sum to 1
        return log_sum * ops.sum(t, -1) - ops.sum(_weighted(t, shifted), -1)
    return log_sum - ops.sum(ops.where(is_label(y, t), shifted, 0.0), -1)


def _weighted(t: Node, shifted: Node) -> Node:
    """t s, and 0 where t is 0 even if the score is minus infinity."""
    return ops.where(ops.eq(t, ops.full_like(t, 0.0)), 0.0, t * shifted)


def binary_cross_entropy(y: Node, t: Node) -> Node:
    """-t log p - (1 - t) log(1 - p) with p = sigmoid(y), as softplus(y) - t y."""
    return softplus(y) - t * y


def hinge(y: Node, t: Node) -> Node:
    """max(0, 1 - t y) with targets -1 and 1."""
    return ops.relu(1.0 - t * y)


LOSSES: Mapping[str, Loss] = {
    loss.name: loss
    for loss in (
        Loss("mse", mse),
        Loss("sse", sse, average=False),
        Loss("mae", mae),
        Loss("huber", huber),
        Loss("cross_entropy", cross_entropy, logits="softmax", takes_labels=True),
        Loss("binary_cross_entropy", binary_cross_entropy, logits="sigmoid"),
        Loss("hinge", hinge),
    )
}


def make_loss(value: object) -> Loss:
    """A loss from a name, (name, {parameters}) or a function (prediction, target) of values.

    The function gives a scalar, a value per example or one per entry (their mean is taken).
    """
    match value:
        case Loss():
            return value
        case str(name):
            return _named(name, {})
        case (str(name), dict(parameters)):
            return _named(name, parameters)
        case _ if callable(value):
            name = getattr(value, "__name__", "loss")
            return Loss(name, functools.partial(_checked, value), takes_labels=True)
    raise ValueError(f"a loss is a name or a function (prediction, target), not {value!r}")


def _named(name: str, parameters: Mapping[str, Any]) -> Loss:
    if name not in LOSSES:
        raise ValueError(f"unknown loss '{name}'; {suggest(name, LOSSES)}")
    loss = LOSSES[name]
    known = list(inspect.signature(loss.terms).parameters)[2:]
    for key in parameters:
        if key not in known:
            raise ValueError(f"loss '{name}' has no parameter '{key}'; {suggest(key, known)}")
    if not parameters:
        return loss
    terms = functools.partial(loss.terms, **parameters)
    return Loss(name, terms, loss.average, loss.logits, loss.takes_labels)


def _checked(function: Callable[[Node, Node], Any], y: Node, t: Node) -> Node:
    terms = call_user("the loss function", function, y, t)
    if not isinstance(terms, Node) or not terms.dtype.is_float:
        raise ValueError(f"the loss function gave {terms!r}, not a symbolic value of float dtype")
    return terms


def mean_loss(loss: Loss, y: Node, t: Node, weight: Node | None = None) -> Node:
    """The scalar loss of a batch; `weight` is (batch,) and scales each example's loss."""
    terms = loss.terms(y, t)
    if not terms.shape:
        if weight is not None:
            raise ValueError(
                f"the loss '{loss.name}' gives one number for the whole batch, so it cannot take "
                "sample_weight; let it give one value per example"
            )
        return terms
    if weight is not None:
        if terms.shape[0] != weight.shape[0]:
            raise ValueError(
                f"the loss '{loss.name}' gives {terms.type}: its first axis has to be the batch "
                "where sample_weight is used"
            )
        terms = terms * ops.reshape(weight, (weight.shape[0], *([1] * (terms.ndim - 1))))
    counted = terms.shape if loss.average else terms.shape[:1]
    return ops.sum(terms) * one_over(counted, terms.dtype)


def one_over(shape: Shape, dtype: DType) -> Node:
    """1 / number of elements, a scalar of the program where the batch is symbolic."""
    size: Dim = multiply(shape)
    if isinstance(size, int):
        return ops.constant(1.0 / size if size else np.nan, dtype)
    return 1.0 / ops.extent(size, dtype)


def is_label(y: Node, labels: Node) -> Node:
    """bool[..., classes]: whether a class number is the row's label; fuses into loops over rows."""
    # 32 bits, so that a vector holds as many class numbers as scores
    classes = ops.iota(y.shape, y.ndim - 1, i32)
    column = ops.reshape(ops.cast(labels, i32), (*labels.shape, 1))
    return ops.eq(classes, ops.broadcast_to(column, y.shape))


# --------------------------------------------------------------------------- targets


def target_kind(loss: Loss, prediction: Node, *, integer: bool, rank: int) -> str:
    """LABELS where the data are class numbers for this loss, else DENSE."""
    same_column = prediction.ndim == 2 and prediction.shape[1] == 1 and not loss.logits
    if loss.takes_labels and integer and rank == prediction.ndim - 1 and not same_column:
        return LABELS
    return DENSE


def target_shape(kind: str, prediction: Node) -> Shape:
    """The shape that a target has to have (data of shape (batch,) serve (batch, 1) as well)."""
    return prediction.shape[:-1] if kind == LABELS else prediction.shape
