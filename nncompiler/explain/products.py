"""Takes a value, gives the factors of its product or the terms of its sum, and back."""

from __future__ import annotations

import math
from collections.abc import Container
from dataclasses import dataclass, field
from fractions import Fraction

from ir.graph import Node
from ir.ops.core import full_like, uniform_value


@dataclass
class Product:
    """constant * above / below"""

    constant: float = 1.0
    above: list[Node] = field(default_factory=list)
    below: list[Node] = field(default_factory=list)

    @staticmethod
    def of(node: Node, whole: Container[Node] = ()) -> Product:
        """The factors of a value, through products, quotients and signs (but for those of `whole`),
        in their order."""
        result = Product()
        stack = [(node, True)]
        while stack:
            factor, above = stack.pop()
            value = uniform_value(factor) if factor.dtype.is_float else None
            if value is not None and (above or value):
                result.constant *= value if above else 1 / value
                continue
            match factor.op.name:
                case _ if factor in whole:
                    (result.above if above else result.below).append(factor)
                case "mul":
                    stack += [(i, above) for i in reversed(factor.inputs)]
                case "div":
                    stack += [(factor.inputs[1], not above), (factor.inputs[0], above)]
                case "neg":
                    result.constant *= -1.0
                    stack.append((factor.inputs[0], above))
                case _:
                    (result.above if above else result.below).append(factor)
        result.constant = _rounded(result.constant)
        return result

    def build(self, like: Node) -> Node:
        """The product again; a constant in front of a single factor or more."""
        if self.constant == 0.0:
            return full_like(like, 0.0)
        value = _times(self.above)
        if value is None:
            value = full_like(like, self.constant)
        elif self.constant == -1.0:
            value = -value
        elif self.constant != 1.0:
            value = value * self.constant
        divisor = _times(self.below)
        return value if divisor is None else value / divisor


def _rounded(value: float) -> float:
    """The simple fraction that a product of constants missed by a rounding."""
    simple = float(Fraction(value).limit_denominator(12)) if math.isfinite(value) else value
    return simple if abs(simple - value) <= 4e-16 * abs(value) else value


def _times(factors: list[Node]) -> Node | None:
    result: Node | None = None
    for factor in factors:
        result = factor if result is None else result * factor
    return result


def terms_of(node: Node, whole: Container[Node] = ()) -> list[tuple[float, Node]]:
    """The terms of a sum (but for those of `whole`) with their signs, in their order."""
    result: list[tuple[float, Node]] = []
    stack = [(1.0, node)]
    while stack:
        sign, term = stack.pop()
        match term.op.name:
            case _ if term in whole:
                result.append((sign, term))
            case "add":
                stack += [(sign, i) for i in reversed(term.inputs)]
            case "sub":
                stack += [(-sign, term.inputs[1]), (sign, term.inputs[0])]
            case "neg":
                stack.append((-sign, term.inputs[0]))
            case _:
                result.append((sign, term))
    return result


def sum_of(terms: list[tuple[float, Node]], like: Node) -> Node:
    """The sum of terms, as additions and subtractions from left to right."""
    if not terms:
        return full_like(like, 0.0)
    sign, total = terms[0]
    total = -total if sign < 0 else total
    for sign, term in terms[1:]:
        total = total - term if sign < 0 else total + term
    return total
