"""Takes the user's names, gives the symbols that stand for them in formulas.

neuron 3           z_3  a_3  delta_3        its value, what its activation sees, dL_n/da_3
neuron 3, bias     b_3
edge 3 -> 6        w36, or w_x1_h1 for other names, or its weight_name
dense "hidden"     z_hidden  a_hidden  delta_hidden  W_hidden  b_hidden
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from dataclasses import dataclass

GREEK = {"delta": r"\delta", "gamma": r"\gamma"}
_SPECIAL = {
    "\\": r"\backslash ",
    "{": r"\{",
    "}": r"\}",
    "_": r"\_",
    "^": r"\hat{}",
    "$": r"\$",
    "%": r"\%",
    "&": r"\&",
    "#": r"\#",
    "~": r"\sim ",
    " ": r"\ ",
    "<": r"\lt ",
    ">": r"\gt ",
}


@dataclass(frozen=True)
class Symbol:
    """A name in a formula, in plain text and in LaTeX."""

    text: str
    latex: str

    def __str__(self) -> str:
        return self.text


def of_node(letter: str, node: Hashable, part: int | None = None) -> Symbol:
    """z_3, delta_h1, z[odd name]; `part` numbers several of one node: s_3.1"""
    name = str(node)
    tail = "" if part is None else f".{part}"
    plain = re.fullmatch(r"[\w.]+", name)
    text = f"{letter}_{name}{tail}" if plain else f"{letter}[{name}]{tail}"
    return Symbol(text, f"{GREEK.get(letter, letter)}_{{{latex_name(name)}{tail}}}")


def of_edge(source: Hashable, target: Hashable) -> Symbol:
    """w36, w_x1_h1, w[odd name->h1]"""
    u, v = str(source), str(target)
    if len(u) == len(v) == 1 and (u + v).isdigit():
        return Symbol(f"w{u}{v}", f"w_{{{u}{v}}}")
    latex = f"w_{{{latex_name(u)},{latex_name(v)}}}"
    plain = re.fullmatch(r"[^\W_]+", u) and re.fullmatch(r"[^\W_]+", v)
    return Symbol(f"w_{u}_{v}" if plain else f"w[{u}->{v}]", latex)


def of_name(name: str) -> Symbol:
    """A name that the user gave to a number: w36, shared."""
    match = re.fullmatch(r"([A-Za-z])_?(\d+)", name)
    text = name if re.fullmatch(r"\w[\w.]*", name) else f"[{name}]"
    return Symbol(text, f"{match[1]}_{{{match[2]}}}" if match else latex_name(name))


def derivative(of: str, by: Symbol) -> Symbol:
    """dL/dw36; `of` is "L" or "L_n"."""
    return Symbol(f"d{of}/d{by.text}", rf"\frac{{\partial {of}}}{{\partial {by.latex}}}")


def latex_name(name: str) -> str:
    """A name that LaTeX prints as it is; upright where it is longer than a letter or a number."""
    escaped = "".join(_SPECIAL.get(c, c) for c in name)
    return escaped if len(name) == 1 or name.isdigit() else rf"\mathrm{{{escaped}}}"
