"""Takes the parts of a formula as text, gives them joined: as plain text, or as LaTeX."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Protocol

# Numbers that activations are made of: (value, plain text, LaTeX)
ROOTS = (
    (math.sqrt(0.5), "sqrt(1/2)", r"\sqrt{\frac{1}{2}}"),
    (2 / math.sqrt(math.pi), "2/sqrt(pi)", r"\frac{2}{\sqrt{\pi}}"),
    (1 / math.sqrt(2 * math.pi), "1/sqrt(2 pi)", r"\frac{1}{\sqrt{2 \pi}}"),
    (math.sqrt(2 / math.pi), "sqrt(2/pi)", r"\sqrt{\frac{2}{\pi}}"),
)
SUM, PRODUCT, POWER, ATOM = range(4)  # how tightly a text holds together
SMALL_PARTS = 12  # 1/3, 5/12: fractions that people write as such


PLAIN_SIGNS = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "=", "ne": "!="}
LATEX_SIGNS = {**PLAIN_SIGNS, "le": r"\le", "ge": r"\ge", "ne": r"\ne"}
LATEX_NAMES = {
    "log": r"\ln",
    "sin": r"\sin",
    "cos": r"\cos",
    "tanh": r"\tanh",
    "max": r"\max",
    "min": r"\min",
    "sigmoid": r"\sigma",
}


class Notation(Protocol):
    """How formulas are put on paper; all arguments are finished texts in this notation."""

    minus: str
    dots: str
    count: str  # the number of examples

    def number(self, value: float) -> str: ...
    def group(self, body: str) -> str: ...
    def product(self, factors: Sequence[str], *, pointwise: bool = False) -> str: ...
    def quotient(self, above: str, below: str) -> str: ...
    def power(self, base: str, exponent: str) -> str: ...
    def call(self, name: str, arguments: Sequence[str]) -> str: ...
    def truth(self, condition: str) -> str: ...
    def compare(self, name: str, a: str, b: str) -> str: ...
    def choice(self, condition: str, a: str, b: str) -> str: ...
    def over_examples(self, body: str) -> str: ...
    def mean(self, body: str) -> str: ...
    def transposed(self, body: str) -> str: ...
    def equation(self, sides: Sequence[str]) -> str: ...


def fraction_of(value: float) -> tuple[int, int] | None:
    """(p, q) of a number that reads better as p/q; None for 0.1, 3, 0.7071 ..."""
    if 0 < abs(value) < 1 and len(repr(value)) > 8:
        whole = Fraction(1, round(1 / value))  # an average over that many
        if float(whole) == value:
            return whole.numerator, whole.denominator
    whole = Fraction(value).limit_denominator(SMALL_PARTS)
    if whole.denominator == 1 or whole.denominator in (5, 10) or float(whole) != value:
        return None
    return whole.numerator, whole.denominator


def root_of(value: float) -> tuple[str, str] | None:
    """The texts of a number that is one of ROOTS, but for roundings."""
    for root, plain, latex in ROOTS:
        if math.isclose(value, root, rel_tol=4e-16):
            return plain, latex
    return None


def digits(value: float) -> str:
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(float(value))


class Plain:
    """delta_3 = w36 delta_6 z_3 (1 - z_3)"""

    minus, dots, count = "-", "...", "N"

    def number(self, value: float) -> str:
        root = root_of(value)
        if root is not None:
            return root[0]
        parts = fraction_of(value)
        return digits(value) if parts is None else f"{parts[0]}/{parts[1]}"

    def group(self, body: str) -> str:
        return f"({body})"

    def product(self, factors: Sequence[str], *, pointwise: bool = False) -> str:
        return (" * " if pointwise else " ").join(factors)

    def quotient(self, above: str, below: str) -> str:
        return f"{above} / {below}"

    def power(self, base: str, exponent: str) -> str:
        return f"{base}^{exponent}"

    def call(self, name: str, arguments: Sequence[str]) -> str:
        return f"|{arguments[0]}|" if name == "abs" else f"{name}({', '.join(arguments)})"

    def truth(self, condition: str) -> str:
        return f"[{condition}]"

    def compare(self, name: str, a: str, b: str) -> str:
        return f"{a} {PLAIN_SIGNS[name]} {b}"

    def choice(self, condition: str, a: str, b: str) -> str:
        return f"({a} if {condition} else {b})"

    def over_examples(self, body: str) -> str:
        return f"sum_n {body}"

    def mean(self, body: str) -> str:
        return f"1/N {body}"

    def transposed(self, body: str) -> str:
        return f"{body}^T"

    def equation(self, sides: Sequence[str]) -> str:
        return " = ".join(sides)


class Latex:
    r"""\delta_{3} = w_{36}\,\delta_{6}\,z_{3}\left(1 - z_{3}\right)"""

    minus, dots, count = "-", r"\cdots", "N"

    def number(self, value: float) -> str:
        root = root_of(value)
        if root is not None:
            return root[1]
        parts = fraction_of(value)
        if parts is None:
            mantissa, _, exponent = digits(value).partition("e")
            return rf"{mantissa} \cdot 10^{{{int(exponent)}}}" if exponent else mantissa
        sign = "-" if parts[0] < 0 else ""
        return rf"{sign}\frac{{{abs(parts[0])}}}{{{parts[1]}}}"

    def group(self, body: str) -> str:
        return rf"\left({body}\right)"

    def product(self, factors: Sequence[str], *, pointwise: bool = False) -> str:
        return (r" \odot " if pointwise else r"\,").join(factors)

    def quotient(self, above: str, below: str) -> str:
        return rf"\frac{{{above}}}{{{below}}}"

    def power(self, base: str, exponent: str) -> str:
        return f"{base}^{{{exponent}}}"

    def call(self, name: str, arguments: Sequence[str]) -> str:
        match name:
            case "abs":
                return rf"\left|{arguments[0]}\right|"
            case "sqrt":
                return rf"\sqrt{{{arguments[0]}}}"
            case "exp":
                return f"e^{{{arguments[0]}}}"
        escaped = name.replace("_", r"\_")
        head = LATEX_NAMES.get(name) or rf"\operatorname{{{escaped}}}"
        return rf"{head}\left({', '.join(arguments)}\right)"

    def truth(self, condition: str) -> str:
        return f"[{condition}]"

    def compare(self, name: str, a: str, b: str) -> str:
        return f"{a} {LATEX_SIGNS[name]} {b}"

    def choice(self, condition: str, a: str, b: str) -> str:
        rows = rf"{a} & \text{{if }} {condition} \\ {b} & \text{{else}}"
        return rf"\begin{{cases}} {rows} \end{{cases}}"

    def over_examples(self, body: str) -> str:
        return rf"\sum_{{n}} {body}"

    def mean(self, body: str) -> str:
        return rf"\frac{{1}}{{N}} {body}"

    def transposed(self, body: str) -> str:
        return rf"{body}^{{\mathsf{{T}}}}"

    def equation(self, sides: Sequence[str]) -> str:
        return " = ".join(sides)
