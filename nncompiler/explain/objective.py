"""Takes a loss and a prediction, gives its derivative for one example, and what it is made of.

cross_entropy, y (batch, 3), t class numbers   ->   softmax(y) - [t = 0, 1, 2]
"""

from __future__ import annotations

from dataclasses import dataclass

from ir import ops
from ir.graph import Node, make, topological
from nncompiler.autodiff import differentiate
from nncompiler.explain.forms import replaced, tidy
from nncompiler.explain.products import Product
from nncompiler.frontend.losses import Loss, mean_loss


@dataclass(frozen=True)
class Seed:
    """`value` is L_n of an example (batch,), or L of the batch (); `slope` its derivative by the
    prediction. In them stand `softmax` for softmax(prediction), `top` for the row's maximum."""

    value: Node
    slope: Node
    softmax: Node
    top: Node


def is_per_example(loss: Loss, y: Node, t: Node) -> bool:
    """Whether the loss of a batch is the mean of a loss of every example."""
    terms = loss.terms(y, t)
    return bool(terms.shape) and terms.shape[0] == y.shape[0]


def seed_of(loss: Loss, y: Node, t: Node, weight: float, per_example: bool) -> Seed:
    """The loss and its derivative by `y`."""
    value = example_loss(loss, y, t) if per_example else mean_loss(loss, y, t)
    value = value if weight == 1.0 else value * weight
    (slope,) = differentiate(value, [y], ops.full_like(value, 1.0))
    share = ops.input(f"softmax:{y.attrs['id']}", y.dtype, y.shape)
    top = ops.input(f"top:{y.attrs['id']}", y.dtype, y.shape[:1])
    short, whole = tidy(slope, value)
    tops = {make("max", y, axes=(1,)): top} if y.ndim == 2 else {}
    (short,) = tidy(replaced(_with_softmax(short, y, share), tops))
    return Seed(replaced(whole, tops), short, share, top)


def example_loss(loss: Loss, y: Node, t: Node) -> Node:
    """The loss of every example, of shape (batch,)."""
    terms = loss.terms(y, t)
    axes = tuple(range(1, terms.ndim))
    total = ops.sum(terms, axes) if axes else terms
    count = 1
    for dim in terms.shape[1:]:
        assert isinstance(dim, int)
        count *= dim
    return total * (1.0 / count) if loss.average and count > 1 else total


def _with_softmax(slope: Node, y: Node, stand_in: Node) -> Node:
    """e^(y - max y) / sum e^(y - max y) as one value, softmax(y), wherever it stands."""
    known: dict[Node, Node] = {}
    for node in topological([slope]):
        product = Product.of(node) if node.op.name in ("mul", "div") else None
        place = None if product is None else _normalized(product, y)
        if product is not None and place is not None:
            rest, exponential = place
            product.above = [f for f in product.above if f not in (rest, exponential)]
            weight = _spread_numerator(rest)
            product.above += [stand_in] if weight is None else [weight, stand_in]
            known[node] = product.build(node)
    return replaced(slope, known)


def _normalized(product: Product, y: Node) -> tuple[Node, Node] | None:
    """(broadcast(q / sum e), e) among the factors, e the exponential of y - max y."""
    for e in product.above:
        if e.op.name != "exp" or not _is_shifted(e.inputs[0], y):
            continue
        for rest in product.above:
            if rest.op.name == "broadcast" and rest.inputs[0].op.name == "div":
                below = rest.inputs[0].inputs[1]
                if below.op.name == "sum" and below.inputs[0] is e:
                    return rest, e
    return None


def _is_shifted(x: Node, y: Node) -> bool:
    """y - max y, in the normal form of simplify"""
    if x.op.name != "sub" or x.inputs[0] is not y or x.inputs[1].op.name != "broadcast":
        return False
    top = x.inputs[1].inputs[0]
    return top.op.name == "max" and top.inputs[0] is y


def _spread_numerator(rest: Node) -> Node | None:
    """q of broadcast(q / sum e), None where it is 1"""
    q = rest.inputs[0].inputs[0]
    if ops.uniform_value(q) == 1:
        return None
    return ops.broadcast_to(ops.reshape(q, (*q.shape, 1)), rest.shape)
