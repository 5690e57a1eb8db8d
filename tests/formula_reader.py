"""Reads formulas as `explain` prints them, and computes them: a second way from text to number."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from scipy import special

from nncompiler.explain.explanation import Explanation


def farthest(terms: Any) -> Any:
    """The one farthest from zero, the positive one of two."""
    high, low = np.maximum.reduce(terms), np.minimum.reduce(terms)
    return np.where(high >= -low, high, low)


FUNCTIONS: dict[str, Any] = {
    "exp": np.exp,
    "log": np.log,
    "log1p": np.log1p,
    "expm1": np.expm1,
    "sqrt": np.sqrt,
    "tanh": np.tanh,
    "sin": np.sin,
    "cos": np.cos,
    "sign": np.sign,
    "floor": np.floor,
    "erf": special.erf,
    "sigmoid": special.expit,
    "relu": lambda x: np.maximum(x, 0),
    "softplus": lambda x: np.logaddexp(0, x),
    "max": lambda *x: np.maximum.reduce(np.broadcast_arrays(*x)),
    "min": lambda *x: np.minimum.reduce(np.broadcast_arrays(*x)),
    "median": lambda *x: np.median(np.broadcast_arrays(*x), 0),
    "maxabs": lambda *x: farthest(np.broadcast_arrays(*x)),
    "mean_n": lambda x: np.mean(x),
    "truth": lambda x: np.asarray(x, float),
    "choose": lambda c, a, b: np.where(c, a, b),
}
TOKEN = re.compile(
    r"\s*(\d+\.?\d*(?:e-?\d+)?|\w+\[[^\]]*\](?:\.\d+)?|[A-Za-z]\w*(?:\.\d+)?|[<>!]=|\S)"
)
OPERATORS = {"^": "**", "=": "=="}


def read(text: str, values: dict[str, Any]) -> Any:
    """The value of one formula for the values of its symbols."""
    text = re.sub(r"1/N sum_n (.*?)(?= [+] [^ ]+ (?:w|sign)|$)", r"mean_n(\1)", text)
    tokens = [t for t in TOKEN.findall(text) if t]
    names: dict[str, Any] = {}
    parts: list[str] = []
    i = 0
    while i < len(tokens):
        token = tokens[i]
        before = parts[-1] if parts else ""
        operand = token[0].isalnum() or token in "([|"
        if token == "|" and tokens[:i].count("|") % 2:
            operand = False
        if operand and before and _ends_operand(before) and token not in ("if", "else"):
            called = before.split(".")[-1] in FUNCTIONS and token == "("
            if not called:
                parts.append("*")
        if token == "[":
            parts.append("truth(")
        elif token == "]":
            parts.append(")")
        elif token == "|":
            parts.append("np.abs(" if not tokens[:i].count("|") % 2 else ")")
        elif token in values:
            names[f"v{len(names)}"] = values[token]
            parts.append(f"v{len(names) - 1}")
        else:
            parts.append(OPERATORS.get(token, token))
        i += 1
    return eval(_choices(" ".join(parts)), {"np": np, "pi": np.pi, **FUNCTIONS, **names})


def _ends_operand(token: str) -> bool:
    return (token[-1].isalnum() or token == ")") and token not in ("if", "else")


def _choices(code: str) -> str:
    """( a if c else b ), the innermost first, as choose(c, a, b)"""
    pattern = re.compile(r"\( ((?:(?! if | else ).)*?) if ")
    while " if " in code:
        end = code.index(" else ")
        start = code.rindex(" if ", 0, end)
        left = _open(code, start)
        right = _close(code, end + len(" else "))
        a, c = code[left + 1 : start], code[start + 4 : end]
        b = code[end + 6 : right]
        code = f"{code[:left]}choose({c}, {a}, {b}){code[right + 1 :]}"
    assert pattern.search(code) is None
    return code


def _open(code: str, at: int) -> int:
    depth = 0
    while True:
        at -= 1
        depth += {")": 1, "(": -1}.get(code[at], 0)
        if depth < 0:
            return at


def _close(code: str, at: int) -> int:
    depth = 0
    while True:
        depth += {"(": 1, ")": -1}.get(code[at], 0)
        if depth < 0:
            return at
        at += 1


def compute(explanation: Explanation, x: Any, t: Any) -> Any:
    """The head of an explanation, from its text alone (and the values of data and numbers)."""
    given = explanation.data(x, t)
    values = {
        symbol.text: np.asarray(given[leaf.attrs["id"]])
        for leaf, symbol in explanation.names.items()
        if leaf.attrs["id"] in given
    }
    lines = explanation.formulas
    head, *steps = lines
    waiting = [s for s in steps if not s.startswith("L")]
    while waiting:
        ready = [s for s in waiting if not (_symbols(lines[s]) & set(waiting))]
        assert ready, waiting
        for s in ready:
            values[s] = read(lines[s], values)
        waiting = [s for s in waiting if s not in ready]
    return read(lines[head], values)


def _symbols(text: str) -> set[str]:
    return set(TOKEN.findall(text))
