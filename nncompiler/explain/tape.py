"""Takes definitions of values by other values, gives the definitions of their derivatives.

    a_6 = b_6 + w36 z_3,  z_6 = tanh(a_6)    ->    delta_6 = dL_n/dz_6 (1 - z_6^2)
                                                   dL_n/dw36 = z_3 delta_6

Every value is an input node of its own, so a definition stays as short as it was written, and the
derivative of one is that of its record's rule, read in the values' names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ir import ops
from ir.graph import Node, topological
from ir.reverse import pull_back
from nncompiler.explain.elements import Elements
from nncompiler.explain.forms import replaced, tidy
from nncompiler.explain.symbols import Symbol

NOTHING = Symbol("", "")


@dataclass(frozen=True)
class Formula:
    """symbol = (meaning =) value; `leaf` stands for it in other formulas.

    `origin` is the value as the network computes it, where it is written in another form.
    """

    symbol: Symbol
    leaf: Node
    value: Node
    meaning: Symbol = NOTHING
    origin: Node | None = None


# What a definition passes on to one value it is made of: (definition, that value, its own adjoint).
Pull = Callable[[Formula, Node, Node], Node | None]


@dataclass
class Tape:
    """Definitions in the order of computation, and the adjoints (derivatives of L_n) by value.

    `seeds` are the loss's own derivatives; `adjoints` the symbol and meaning of those that have a
    name, any other is written out where it is used. `spread` turns a value into its form in
    definitions (a weight is the same for every example).
    """

    pull: Pull
    names: dict[Node, Symbol] = field(default_factory=dict)
    made: dict[Node, Formula] = field(default_factory=dict)
    users: dict[Node, list[Node]] = field(default_factory=dict)
    seeds: dict[Node, Node] = field(default_factory=dict)
    adjoints: dict[Node, Formula | tuple[Symbol, Node, Symbol]] = field(default_factory=dict)
    spread: dict[Node, Node] = field(default_factory=dict)
    _inline: dict[Node, Node | None] = field(default_factory=dict)

    def leaf(self, id: str, symbol: Symbol, like: Node) -> Node:
        """An input node of that type that reads as the symbol."""
        node = ops.input(id, like.dtype, like.shape)
        self.names[node] = symbol
        return node

    def define(self, leaf: Node, value: Node, origin: Node | None = None) -> None:
        self.made[leaf] = Formula(self.names[leaf], leaf, value, origin=origin)
        for used in topological([value]):
            if used in self.names:
                self.users.setdefault(used, []).append(leaf)

    def call_adjoint(self, leaf: Node, symbol: Symbol, meaning: Symbol) -> Node:
        """The derivative by this value gets a name; gives its leaf."""
        node = self.leaf(f"adjoint:{leaf.attrs['id']}", symbol, leaf)
        self.adjoints[leaf] = (symbol, node, meaning)
        return node

    def adjoint(self, leaf: Node) -> Node | None:
        """The derivative by a value as it stands in formulas; None where it is 0."""
        named = self.adjoints.get(leaf)
        if named is not None:
            return named.leaf if isinstance(named, Formula) else named[1]
        if leaf not in self._inline:
            self._inline[leaf] = self.total(leaf)
        return self._inline[leaf]

    def adjoint_formula(self, leaf: Node) -> Formula:
        """The definition of a named derivative."""
        named = self.adjoints[leaf]
        if not isinstance(named, Formula):
            symbol, node, meaning = named
            total = self.total(leaf)
            value = ops.full_like(node, 0.0) if total is None else total
            named = self.adjoints[leaf] = Formula(symbol, node, value, meaning)
        return named

    def total(self, leaf: Node) -> Node | None:
        """The sum of what the loss and all definitions in which the value stands pass on."""
        found = self.seeds.get(leaf)
        for user in self.users.get(leaf, ()):
            above = self.adjoint(user)
            part = None if above is None else self.pull(self.made[user], leaf, above)
            if part is not None:
                found = part if found is None else found + part
        return found


@dataclass
class Slopes:
    """Pulls back through definitions that hold at every example alone: slope times adjoint."""

    spread: Mapping[Node, Node]
    _known: dict[Node, dict[Node, Node]] = field(default_factory=dict)

    def __call__(self, formula: Formula, leaf: Node, adjoint: Node) -> Node | None:
        """A weight or value stands before what it multiplies, the slope of an activation behind."""
        slope = self.of(formula).get(leaf)
        if slope is None or is_number(slope, 0):
            return None
        if is_number(slope, 1):
            return adjoint
        before = _is_plain(slope) and slope is not formula.leaf
        return slope * adjoint if before else adjoint * slope

    def of(self, formula: Formula) -> dict[Node, Node]:
        """The derivatives of a definition by the values it is made of, in short form."""
        if formula.leaf not in self._known:
            used = [n for n in topological([formula.value]) if n.op.name == "input"]
            wrt = {n: self.spread.get(n, n) for n in used if n.dtype.is_float}
            source = formula.value if formula.origin is None else formula.origin
            found = pull_back([(source, ops.full_like(source, 1.0))], wrt.values())
            there = [n for n, w in wrt.items() if w in found]
            known = self._in_own_terms([found[wrt[n]] for n in there], source, formula.leaf)
            if formula.origin is not None:
                known = list(map(Elements(lambda leaf, place: leaf), known))
            plain = {n: _factor(slope) for n, slope in zip(there, known, strict=True)}
            rest = [n for n, slope in plain.items() if slope is None]
            short = tidy(*(known[there.index(n)] for n in rest))
            found = {n: slope for n, slope in plain.items() if slope is not None}
            self._known[formula.leaf] = found | dict(zip(rest, short, strict=True))
        return self._known[formula.leaf]

    @staticmethod
    def _in_own_terms(slopes: list[Node], source: Node, leaf: Node) -> list[Node]:
        """1 - tanh(a)^2 as 1 - z^2"""
        if source not in topological(slopes):
            return slopes
        *short, own = tidy(*slopes, source)
        return [replaced(slope, {own: leaf}) for slope in short]


def is_number(node: Node, value: float) -> bool:
    return ops.uniform_value(node) == value


def _factor(slope: Node) -> Node | None:
    """The weight or value of 1 * w, the commonest slope; None for any other."""
    if slope.op.name != "mul":
        return None
    a, b = slope.inputs
    if is_number(a, 1) and _is_plain(b):
        return b
    return a if is_number(b, 1) and _is_plain(a) else None


def _is_plain(node: Node) -> bool:
    while node.op.name == "broadcast":
        node = node.inputs[0]
    return node.op.name in ("input", "constant")
