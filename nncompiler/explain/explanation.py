"""Takes definitions and what is asked for, gives formulas to read and to evaluate."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ir.graph import Node, topological
from ir.interpret import bind_inputs, evaluate_node
from nncompiler.explain.notation import Latex, Notation, Plain
from nncompiler.explain.symbols import Symbol
from nncompiler.explain.tape import Formula, Tape
from nncompiler.explain.writing import Call, Writer

Array = np.ndarray[Any, Any]
Values = Mapping[str, Any]
MANY = 200  # lines of text; what is longer ends in the number of formulas that are left out


@dataclass(frozen=True)
class Explanation:
    """The derivative of the loss by one thing, as formulas in the user's names.

    `head` is what was asked for; `steps` are the definitions that it needs, in the order in which
    they are read: derivatives from the thing to the outputs, the loss, then values from the inputs
    on. `text` and `latex` show them; `evaluate(x, t)` computes them, one after the other.
    """

    head: Formula
    steps: tuple[Formula, ...]
    notes: tuple[str, ...]
    names: Mapping[Node, Symbol]
    calls: Mapping[Node, Call]
    data: Callable[[Any, Any], Values]
    breaks: frozenset[int] = frozenset()  # steps before which the text has an empty line

    # ------------------------------------------------------------------ to read

    @property
    def text(self) -> str:
        """All formulas in plain text, one per line."""
        return "\n".join(self._lines(self._plain, [*self.notes]))

    @property
    def latex(self) -> str:
        """All formulas in LaTeX: the rows of an `align*` environment."""
        rows = [row.replace(" = ", " &= ", 1) for row in self._lines(self._latex, []) if row]
        body = " \\\\\n".join(rows)
        return f"\\begin{{align*}}\n{body}\n\\end{{align*}}"

    @property
    def formulas(self) -> dict[str, str]:
        """What stands to the right of every symbol, in plain text, the head first."""
        return {f.symbol.text: self._plain(f.value) for f in (self.head, *self.steps)}

    @cached_property
    def _plain(self) -> Writer:
        return self._writer(Plain(), {n: s.text for n, s in self.names.items()})

    @cached_property
    def _latex(self) -> Writer:
        return self._writer(Latex(), {n: s.latex for n, s in self.names.items()})

    def _writer(self, notation: Notation, names: Mapping[Node, str]) -> Writer:
        return Writer(notation, names, self.calls)

    def _lines(self, writer: Writer, notes: Sequence[str]) -> list[str]:
        shown = self.steps[:MANY]
        plain = writer is self._plain
        lines = [_equation(writer, self.head, plain)]
        for number, formula in enumerate(shown):
            if number == 0 or number in self.breaks:
                lines.append("")
            lines.append(_equation(writer, formula, plain))
        left = len(self.steps) - len(shown)
        if left and plain:
            lines.append(f"... and {left} more formulas")
        return [*lines, "", *notes] if notes else lines

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return self.text

    def _repr_latex_(self) -> str:
        return f"$$\n{self.latex.replace('align*', 'aligned')}\n$$"

    # ------------------------------------------------------------------ to compute

    def evaluate(self, x: Any, t: Any) -> Array:
        """The value of the head for inputs x and targets t (as in `model.backward`), computed by
        the formulas that are shown: of the parameter's shape, or one row per example for what is
        a derivative of L_n."""
        given = self.data(x, t)
        values, symbols = bind_inputs([n for n in self.names if n.attrs["id"] in given], given)
        made = {f.leaf: f for f in self.steps}
        compute((*in_order(self.head, made), self.head), values, symbols)
        return np.array(values[self.head.leaf])


def compute(
    formulas: Iterable[Formula], values: dict[Node, Array], symbols: Mapping[str, int]
) -> None:
    """Adds the values of formulas, each after those that it is made of, to those of the leaves."""
    with np.errstate(all="ignore"):
        for formula in formulas:
            found = ChainMap({}, values)
            for node in topological([formula.value]):
                if node not in found:
                    arrays = [found[i] for i in node.inputs]
                    found[node] = evaluate_node(node, arrays, symbols)
            values[formula.leaf] = found[formula.value]


def _equation(writer: Writer, formula: Formula, plain: bool) -> str:
    sides = [s.text if plain else s.latex for s in (formula.symbol, formula.meaning)]
    value = writer(formula.value)
    return writer.notation.equation([s for s in (*sides, value) if s])


def leaves_of(value: Node) -> list[Node]:
    return [n for n in topological([value]) if n.op.name == "input"]


def in_order(head: Formula, made: Mapping[Node, Formula]) -> list[Formula]:
    """The formulas that the head needs, every one after those that it is made of."""
    done: dict[Node, None] = {}
    stack = [(head.leaf, False)]
    while stack:
        leaf, ready = stack.pop()
        if leaf in done or (leaf not in made and leaf is not head.leaf):
            continue
        if ready:
            done[leaf] = None
            continue
        stack.append((leaf, True))
        value = head.value if leaf is head.leaf else made[leaf].value
        stack.extend((n, False) for n in reversed(leaves_of(value)) if n not in done)
    return [made[n] for n in done if n is not head.leaf]


def gather(tape: Tape, head: Formula, losses: Iterable[Formula]) -> list[list[Formula]]:
    """The definitions behind a formula: derivatives in the order in which they are met, the loss,
    then values in the order of computation."""
    named = {}
    for leaf, entry in tape.adjoints.items():
        named[entry.leaf if isinstance(entry, Formula) else entry[1]] = leaf
    backward: dict[Node, Formula] = {}
    values: set[Node] = set()
    losses = list(losses)
    waiting = [head.value, *(f.value for f in losses)]
    seen = {head.leaf}
    for value in waiting:
        for leaf in leaves_of(value):
            if leaf in seen:
                continue
            seen.add(leaf)
            if leaf in named:
                backward[leaf] = tape.adjoint_formula(named[leaf])
                waiting.append(backward[leaf].value)
            elif leaf in tape.made:
                values.add(leaf)
                waiting.append(tape.made[leaf].value)
    forward = [f for leaf, f in tape.made.items() if leaf in values]
    return [list(backward.values()), losses, forward]
