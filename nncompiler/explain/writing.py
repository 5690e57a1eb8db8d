"""Takes the value of a formula, gives how it is written, in the names of the values it is made of.

What is a record of its own in the graph stays one on paper: an op that has no notation of its own
is written as a function of its operands, so nothing is ever left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from ir import ops
from ir.graph import Node
from ir.op import Lowering
from ir.types import Extent
from nncompiler.explain.forms import softplus_of
from nncompiler.explain.notation import ATOM, POWER, PRODUCT, SUM, Notation
from nncompiler.explain.products import Product, terms_of
from nncompiler.explain.tensors import rank, tensor_text

LONG, SHOWN = 12, 3  # a sum of more terms is written with its first ones and its last one
NEGATED = {"lt": "ge", "le": "gt", "eq": "ne", "ne": "eq"}
MIRRORED = {"lt": "gt", "le": "ge", "gt": "lt", "ge": "le", "eq": "eq", "ne": "ne"}
TRUTH = {"and": "and", "or": "or", "xor": "xor"}


@dataclass(frozen=True)
class Call:
    """A value that is written as a function of others: softplus(a_3)."""

    name: str
    arguments: tuple[Node, ...]
    options: tuple[str, ...] = ()


class Writer:
    """`names` are the texts of values, `calls` those that are written as functions of others."""

    def __init__(
        self, notation: Notation, names: Mapping[Node, str], calls: Mapping[Node, Call]
    ) -> None:
        self.notation = notation
        self.names = names
        self.calls = calls
        self._known: dict[Node, tuple[str, int]] = {}

    def __contains__(self, node: object) -> bool:
        """Whether a value is written as a whole, whatever it is made of."""
        return node in self.names or node in self.calls or softplus_of(cast(Node, node)) is not None

    def __call__(self, node: Node, least: int = SUM) -> str:
        """The text; in parentheses where it holds together less tightly than `least`."""
        text, level = self.leveled(node)
        return text if level >= least else self.notation.group(text)

    def leveled(self, node: Node) -> tuple[str, int]:
        """The text, and how tightly it holds together."""
        if node not in self._known:
            self._known[node] = self._write(node)
        return self._known[node]

    def _write(self, node: Node) -> tuple[str, int]:
        if node in self.names:
            return self.names[node], ATOM
        if node in self.calls:
            call = self.calls[node]
            arguments = [*(self(a) for a in call.arguments), *call.options]
            return self.notation.call(call.name, arguments), ATOM
        inner = softplus_of(node)
        if inner is not None:
            return self.notation.call("softplus", [self(inner)]), ATOM
        value = ops.uniform_value(node)
        if value is not None:
            text = self.notation.number(float(value))
            return text, SUM if value < 0 else PRODUCT if "/" in text else ATOM
        match node.op.name:
            case "extent":
                return self._extent(node.attrs["dim"])
            case "add" | "sub" | "neg":
                return self._sum(node)
            case "mul" | "div":
                return self._product(node)
            case "where":
                return self._choice(node)
            case "maximum" | "minimum":
                return self._extreme(node)
            case "pow":
                return self.notation.power(
                    self(node.inputs[0], ATOM), self(node.inputs[1], ATOM)
                ), POWER
            case "rsqrt":
                root = self.notation.call("sqrt", [self(node.inputs[0])])
                return self.notation.quotient(self.notation.number(1.0), root), PRODUCT
        if node.dtype.kind == "bool":
            return self.condition(node), ATOM
        return self._other(node)

    def _other(self, node: Node) -> tuple[str, int]:
        if passes_through(node):
            (x,) = node.inputs
            if x.dtype.kind == "bool":
                return self.notation.truth(self.condition(x)), ATOM
            return self._write(x)
        if node.op.lowering is Lowering.MAP:
            return self.notation.call(node.op.name, [self(i) for i in node.inputs]), ATOM
        return tensor_text(self, node)

    def _extent(self, dim: Extent) -> tuple[str, int]:
        count = self.notation.count
        if dim.coefficient == 1:
            return count, ATOM
        return self.notation.product([str(dim.coefficient), count]), PRODUCT

    # ------------------------------------------------------------------ sums

    def _sum(self, node: Node) -> tuple[str, int]:
        terms = terms_of(node, self)
        first = next((i for i, term in enumerate(terms) if not self._is_negative(*term)), 0)
        terms = [terms[first], *terms[:first], *terms[first + 1 :]]
        texts = [self._signed(sign, term) for sign, term in terms]
        if len(texts) > LONG:
            texts = [*texts[:SHOWN], (False, self.notation.dots), texts[-1]]
        (negative, text), *rest = texts
        result = f"{self.notation.minus}{text}" if negative else text
        for negative, text in rest:
            result += f" {self.notation.minus if negative else '+'} {text}"
        return result, SUM

    def _signed(self, sign: float, term: Node) -> tuple[bool, str]:
        """(is negative, text of its size)"""
        value = ops.uniform_value(term)
        if value is not None:
            return sign * value < 0, self.notation.number(abs(float(value)))
        if term not in self and term.op.name in ("mul", "div"):
            product = Product.of(term, self)
            negative = sign * product.constant < 0
            product.constant = abs(product.constant)
            return negative, self._factors(product, term)[0]
        return sign < 0, self(term, PRODUCT)

    def _is_negative(self, sign: float, term: Node) -> bool:
        value = ops.uniform_value(term)
        if value is not None:
            return sign * value < 0
        return sign * Product.of(term, self).constant < 0

    # ------------------------------------------------------------------ products

    def _product(self, node: Node) -> tuple[str, int]:
        product = Product.of(node, self)
        if product.constant >= 0:
            return self._factors(product, node)
        product.constant = -product.constant
        return f"{self.notation.minus}{self._factors(product, node)[0]}", SUM

    def _factors(self, product: Product, node: Node) -> tuple[str, int]:
        """A product whose constant is positive."""
        counts = Counter(product.above)
        scalars = self._powers([f for f in product.above if not rank(f)])
        arrays = [f for f in product.above if rank(f)]
        several = len(set(arrays)) > 1  # matrix products are put in parentheses then
        texts = self._powers(arrays, POWER if several else PRODUCT)
        if product.constant != 1.0 or not counts:
            scalars.insert(0, self.notation.number(product.constant))
        above = self.notation.product(texts, pointwise=True)
        if scalars:
            above = self.notation.product([*scalars, above] if texts else scalars)
        below = [f for f in product.below if not _is_count(f)]
        number = len(product.below) - len(below)
        if below:
            parts = self._powers(below)
            if len(parts) > 1:
                parts = [self.notation.group(self.notation.product(parts))]
            elif len(below) == 1:
                parts = [self(below[0], ATOM)]
            above = self.notation.quotient(above, parts[0])
        for _ in range(number):
            above = self.notation.mean(above)
        single = len(counts) == 1 and not product.below and product.constant == 1.0
        return above, POWER if single and len(product.above) > 1 else PRODUCT

    def _powers(self, factors: Sequence[Node], least: int = PRODUCT) -> list[str]:
        """The factors, equal ones as a power."""
        texts = []
        for factor, count in Counter(factors).items():
            base = self(factor, least if count == 1 else ATOM)
            texts.append(base if count == 1 else self.notation.power(base, str(count)))
        return texts

    # ------------------------------------------------------------------ choices

    def _choice(self, node: Node) -> tuple[str, int]:
        condition, a, b = node.inputs
        for branch, other, negate in ((a, b, False), (b, a, True)):
            if ops.uniform_value(other) == 0:
                truth = self.notation.truth(self.condition(condition, negate))
                if ops.uniform_value(branch) == 1:
                    return truth, ATOM
                return self.notation.product([truth, self(branch, PRODUCT)]), PRODUCT
        return self.notation.choice(self.condition(condition), self(a), self(b)), ATOM

    def condition(self, node: Node, negate: bool = False) -> str:
        """A truth value."""
        if node in self.names or node in self.calls:
            text = self(node, ATOM)
            return self.notation.call("not", [text]) if negate else text
        if node.op.name == "not":
            return self.condition(node.inputs[0], not negate)
        if passes_through(node):
            return self.condition(node.inputs[0], negate)
        if node.op.name in NEGATED:
            a, b = node.inputs
            name = NEGATED[node.op.name] if negate else node.op.name
            if ops.uniform_value(a) is not None or a.op.name == "iota":
                a, b, name = b, a, MIRRORED[name]
            return self.notation.compare(name, self(a), self(b))
        if node.op.name in TRUTH:
            texts = [self.condition(i) for i in node.inputs]
            name = f"not {node.op.name}" if negate else node.op.name
            return self.notation.call(name, texts)
        text = self._other(node)[0]
        return self.notation.call("not", [text]) if negate else text

    def _extreme(self, node: Node) -> tuple[str, int]:
        operands: list[Node] = []
        stack = [node]
        while stack:
            part = stack.pop()
            if part.op is node.op and part not in self.names and part not in self.calls:
                stack += reversed(part.inputs)
            else:
                operands.append(part)
        return self.notation.call(node.op.name[:3], [self(o) for o in operands]), ATOM


def passes_through(node: Node) -> bool:
    """Ops that leave no trace on paper: a value for every example, another dtype."""
    if node.op.name in ("cast", "stop_gradient"):
        return True
    return node.op.name in ("broadcast", "reshape") and rank(node) == rank(node.inputs[0]) == 0


def _is_count(node: Node) -> bool:
    """The number of examples, at every point."""
    while node.op.name == "broadcast":
        node = node.inputs[0]
    return node.op.name == "extent"
