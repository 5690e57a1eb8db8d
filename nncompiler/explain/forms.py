"""Takes the derivative of a formula, gives it as a person writes it: the same number, shorter.

    where(c, 0, x e / (1 + e)) + where(c, x / (1 + e), 0), e = exp(..)  ->  x sigmoid(a)
    0.5 d + 0.5 d                                                      ->  d

Unlike the rules of simplify these may change the rounding, and the value at infinities: they serve
what is read, not what is compiled. Everything here is about values at every point alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from ir import ops
from ir.graph import Graph, Node, rebuild, rewrite, topological
from ir.op import Lowering
from ir.ops.core import full_like, uniform_value
from nncompiler.explain.products import Product, sum_of, terms_of
from nncompiler.frontend.activations import softplus
from nncompiler.simplify import simplify

Bag = frozenset[tuple[Node, int]]  # factors and how often each stands

MANY_TERMS = 40  # a longer sum is left as it is: its terms are compared with each other
ROUNDS = 12  # more than any formula has needed; each one makes it shorter


def tidy(*nodes: Node) -> tuple[Node, ...]:
    """The values as short formulas; softplus(x) stays one value, as it is in the network."""
    kept = {
        n: ops.input(f"softplus:{i}", n.dtype, n.shape)
        for i, n in enumerate(topological(nodes))
        if softplus_of(n) is not None
    }
    short = _tidy([replaced(n, kept) for n in nodes])
    back = {leaf: node for node, leaf in kept.items()}
    return tuple(_put_back(n, back) for n in short)


def _put_back(node: Node, back: dict[Node, Node]) -> Node:
    """The node with the values for which others stand in, also inside of each other."""
    while any(n in back for n in topological([node])):
        node = replaced(node, back)
    return node


def softplus_of(node: Node) -> Node | None:
    """x, where the node is softplus(x) as activations.py writes it."""
    if node.op.name != "add" or node.inputs[0].op.name != "where":
        return None
    x = node.inputs[0].inputs[1]
    return x if node is softplus(x) else None


def _tidy(nodes: Sequence[Node]) -> tuple[Node, ...]:
    graph = Graph("formula", (), {str(i): n for i, n in enumerate(nodes)})
    for _ in range(ROUNDS):
        before = tuple(graph.outputs.values())
        graph = rewrite(simplify(graph), _shorten)
        if all(a is b for a, b in zip(before, graph.outputs.values(), strict=True)):
            break
    return tuple(graph.outputs.values())


def replaced(node: Node, known: dict[Node, Node]) -> Node:
    """The node with some of its parts replaced, wherever they stand in it."""
    new: dict[Node, Node] = {}
    for n in topological([node]):
        new[n] = known[n] if n in known else rebuild(n, tuple(new[i] for i in n.inputs))
    return new[node]


def _shorten(node: Node, inputs: tuple[Node, ...]) -> Node:
    current = rebuild(node, inputs)
    if current.op.lowering is not Lowering.MAP:
        return current
    for rule in RULES:
        better = rule(current)
        if better is not None and better is not current:
            return better
    return current


# --------------------------------------------------------------------------- rules


def truth_of(node: Node) -> Node | None:
    """A truth value as a number -> where(c, 1, 0)"""
    if node.op.name != "cast" or node.inputs[0].dtype.kind != "bool" or not node.dtype.is_float:
        return None
    one = ops.full(node.shape, 1.0, node.dtype)
    return ops.where(node.inputs[0], one, full_like(one, 0.0))


def bounds(node: Node) -> Node | None:
    """relu(x) > 0 -> x > 0;  max(x, c) < d -> x < d and max(x, c) = d -> x = d where c < d"""
    if node.op.name not in ("lt", "eq"):
        return None
    a, b = node.inputs
    if node.op.name == "lt" and b.op.name == "relu" and uniform_value(a) == 0:
        return ops.lt(a, b.inputs[0])
    if a.op.name == "maximum":
        low, high = uniform_value(a.inputs[1]), uniform_value(b)
        if low is not None and high is not None and low < high:
            return (ops.lt if node.op.name == "lt" else ops.eq)(a.inputs[0], b)
    return None


def known_condition(node: Node) -> Node | None:
    """where(c, .. where(c, x, y) .., z) -> where(c, .. x .., z), and in the other branch"""
    if node.op.name != "where":
        return None
    condition, a, b = node.inputs
    a = _under(condition, a, 1)
    b = _under(condition, b, 2)
    if condition.op.name == "eq" and uniform_value(b) is None and a.op.name != "where":
        x, value = condition.inputs
        if uniform_value(a) == 0 and uniform_value(value) == 0:
            product = Product.of(b)
            if x in product.above:  # where(x = 0, 0, x y) is x y
                return b
    return ops.where(condition, a, b)


def _under(condition: Node, branch: Node, side: int) -> Node:
    """The branch where the condition is known; only values at the same point share it."""
    known: dict[Node, Node] = {}
    waiting = [branch]
    while waiting:
        node = waiting.pop()
        if node.op.lowering is not Lowering.MAP:
            continue
        if node.op.name == "where" and node.inputs[0] is condition:
            known[node] = node.inputs[side]
        else:
            waiting.extend(node.inputs)
    return _replaced_at_point(branch, known) if known else branch


def _replaced_at_point(node: Node, known: dict[Node, Node]) -> Node:
    """As `replaced`, but for what lies behind an op that is not elementwise."""
    new: dict[Node, Node] = {}
    for n in topological([node]):
        if n in known:
            new[n] = known[n]
        elif n.op.lowering is Lowering.MAP:
            new[n] = rebuild(n, tuple(new[i] for i in n.inputs))
        else:
            new[n] = n
    return new[node]


def products(node: Node) -> Node | None:
    """Constants in one factor; where(c, x, 0) y -> where(c, x y, 0);  e^x / (1 + e^x) -> sigmoid"""
    if node.op.name not in ("mul", "div", "neg") or not node.dtype.is_float:
        return None
    product = Product.of(node)
    for i, factor in enumerate(product.above):
        if factor.op.name == "where":
            rest = Product(product.constant, [*product.above], product.below)
            del rest.above[i]
            better = _into(factor, rest)
            if better is not None:
                return better
    for i, below in enumerate(product.below):
        slope = _logistic(product, below)
        if slope is not None:
            product.above.append(slope)
            del product.below[i]
            return product.build(node)
    if _mirrored(product):
        return product.build(node)
    numbers = sum(uniform_value(i) is not None for i in node.inputs)
    deep = any(i.op.name in ("mul", "div", "neg") for i in node.inputs)
    nested = any(_has_constant(i) for i in node.inputs if i.op.name in ("mul", "div", "neg"))
    return product.build(node) if nested and (numbers or deep) else None


def _has_constant(node: Node) -> bool:
    return any(uniform_value(i) is not None for i in node.inputs)


def _into(choice: Node, rest: Product) -> Node | None:
    """A product with where(c, x, y): all but a constant goes into where(c, x, 0), a constant alone
    into a choice of two."""
    condition, a, b = choice.inputs
    zero = 0 in (uniform_value(a), uniform_value(b))
    outside = rest.constant if zero else 1.0
    if rest.constant == outside and not rest.above and not rest.below:
        return None
    if not zero and (rest.above or rest.below):
        return None
    inside = Product(rest.constant / outside, rest.above, rest.below)
    branches = [_scaled(branch, inside) for branch in (a, b)]
    return Product(outside, [ops.where(condition, *branches)]).build(choice)


def _scaled(branch: Node, by: Product) -> Node:
    if uniform_value(branch) == 0:
        return branch
    own = Product.of(branch)
    whole = Product(own.constant * by.constant, own.above + by.above, own.below + by.below)
    return whole.build(branch)


def constants_outside(node: Node) -> Node | None:
    """where(c, 3 x, 0) -> 3 where(c, x, 0)"""
    if node.op.name != "where" or not node.dtype.is_float:
        return None
    condition, a, b = node.inputs
    if 0 not in (uniform_value(a), uniform_value(b)):
        return None
    branch, first = (b, False) if uniform_value(a) == 0 else (a, True)
    product = Product.of(branch)
    if product.constant in (0.0, 1.0):
        return None
    rest = Product(1.0, product.above, product.below).build(branch)
    chosen = ops.where(condition, rest, b) if first else ops.where(condition, a, rest)
    return Product(product.constant, [chosen]).build(node)


def _mirrored(product: Product) -> bool:
    """sigmoid(x) e^-x among the factors becomes sigmoid(-x)."""
    for factor in product.above:
        if factor.op.name != "sigmoid":
            continue
        x = factor.inputs[0]
        opposite = x.inputs[0] if x.op.name == "neg" else -x
        if ops.exp(opposite) in product.above:
            product.above.remove(ops.exp(opposite))
            product.above[product.above.index(factor)] = ops.sigmoid(opposite)
            return True
    return False


def _logistic(product: Product, below: Node) -> Node | None:
    """sigmoid(x) for e^x / (1 + e^x), whose e^x is taken out of `above`; sigmoid(-x) for
    1 / (1 + e^x)"""
    if below.op.name != "add" or uniform_value(below.inputs[1]) != 1:
        return None
    e = below.inputs[0]
    if e.op.name != "exp":
        return None
    if e in product.above:
        product.above.remove(e)
        return ops.sigmoid(e.inputs[0])
    return ops.sigmoid(-e.inputs[0])


def sums(node: Node) -> Node | None:
    """x + x -> 2 x;  2 x - 2 y -> 2 (x - y)

    where(c, a, b) + where(c, p, q) -> where(c, a + p, b + q)
    y - y sigmoid(-x) -> y sigmoid(x);  y expm1(x) + y -> y e^x
    """
    if node.op.name not in ("add", "sub") or not node.dtype.is_float:
        return None
    terms = terms_of(node)
    if len(terms) > MANY_TERMS:
        return None
    for rule in (_choices, _alike, _complement, _common):
        better = rule(terms, node)
        if better is not None:
            return better
    return None


def _choices(terms: list[tuple[float, Node]], like: Node) -> Node | None:
    by_condition: dict[Node, list[int]] = {}
    products = [Product.of(term) for _, term in terms]
    for i, product in enumerate(products):
        if len(product.above) == 1 and not product.below and product.above[0].op.name == "where":
            by_condition.setdefault(product.above[0].inputs[0], []).append(i)
    for condition, places in by_condition.items():
        if len(places) < 2:
            continue
        joined = []
        for side in (1, 2):
            parts = []
            for i in places:
                scale = Product(terms[i][0] * products[i].constant)
                parts.append((1.0, _scaled(products[i].above[0].inputs[side], scale)))
            joined.append(sum_of(parts, like))
        rest = [t for i, t in enumerate(terms) if i not in places]
        return sum_of([(1.0, ops.where(condition, *joined)), *rest], like)
    return None


def _alike(terms: list[tuple[float, Node]], like: Node) -> Node | None:
    """Terms that differ by a constant factor, and constants, counted together."""
    counts: dict[tuple[Bag, Bag], float] = {}
    first: dict[tuple[Bag, Bag], Product] = {}
    for sign, term in terms:
        product = Product.of(term)
        key = (_bag(product.above), _bag(product.below))
        counts[key] = counts.get(key, 0.0) + sign * product.constant
        first.setdefault(key, product)
    if len(counts) == len(terms):
        return None
    found = []
    for key, count in counts.items():
        product = first[key]
        if count:
            size = Product(abs(count), product.above, product.below)
            found.append((math.copysign(1.0, count), size.build(like)))
    return sum_of(found, like)


def _common(terms: list[tuple[float, Node]], like: Node) -> Node | None:
    products = [Product.of(term) for _, term in terms]
    size = abs(products[0].constant)
    if size in (0.0, 1.0) or any(abs(p.constant) != size for p in products):
        return None
    found = []
    for (sign, _), product in zip(terms, products, strict=True):
        whole = Product(1.0, product.above, product.below)
        found.append((math.copysign(sign, sign * product.constant), whole.build(like)))
    return Product(size, [sum_of(found, like)]).build(like)


def _bag(factors: list[Node]) -> Bag:
    return frozenset((f, factors.count(f)) for f in factors)


def _complement(terms: list[tuple[float, Node]], like: Node) -> Node | None:
    for i, (sign, whole) in enumerate(terms):
        for k, (other, part) in enumerate(terms):
            better = None if i == k else _with_whole(sign, Product.of(whole), other, part)
            if better is not None:
                rest = [t for j, t in enumerate(terms) if j not in (i, k)]
                return sum_of([(sign, better), *rest], like)
    return None


def _with_whole(sign: float, whole: Product, other: float, term: Node) -> Node | None:
    """R - R sigmoid(-x) as R sigmoid(x);  R + R expm1(x) as R e^x"""
    part = Product.of(term)
    same = sign * whole.constant == other * part.constant
    if not same and sign * whole.constant != -other * part.constant:
        return None
    for factor in part.above:
        x = factor.inputs[0] if factor.inputs else factor
        if factor.op.name == "sigmoid" and x.op.name == "neg" and not same:
            better = ops.sigmoid(x.inputs[0])
        elif factor.op.name == "expm1" and same:
            better = ops.exp(x)
        else:
            continue
        rest = [f for f in part.above if f is not factor]
        if _bag(rest) == _bag(whole.above) and _bag(part.below) == _bag(whole.below):
            return Product(whole.constant, [*rest, better], whole.below).build(term)
    return None


RULES: tuple[Callable[[Node], Node | None], ...] = (
    truth_of,
    bounds,
    known_condition,
    constants_outside,
    products,
    sums,
)
