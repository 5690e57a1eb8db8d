"""Takes sequences (batch, time, features), gives what a recurrent cell makes of them over time.

The projection of the inputs of all times is one product before the loop. Gates stand side by side
in the columns of the weights, in the order of torch.nn.LSTM (i f g o) and torch.nn.GRU (r z n).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from ir import ops
from ir.graph import Node
from ir.types import Extent, boolean
from nncompiler.frontend.activations import Activation, make_activation
from nncompiler.frontend.common import BIASED, Biased
from nncompiler.frontend.kinds import Attributes, count, kind
from nncompiler.frontend.site import Site

# A cell: (the input's part of all gates, carried values, hidden weight and bias) -> carried values,
# of which the first is the result of the step.
Carried = tuple[Node, ...]
Cell = Callable[[Node, Carried, Node, Node | None], Carried]


@dataclass(frozen=True)
class Form(Attributes):
    """How a recurrent layer runs over time; see `rnn`."""

    return_sequences: bool = False
    bidirectional: bool = False
    stateful: bool | int = False

    @property
    def rows_kept(self) -> bool | int:
        """True, False, or a number of rows; ValueError or TypeError for anything else."""
        known = isinstance(self.stateful, bool)
        return self.stateful if known else count("stateful", self.stateful)


FORM = Form()


@kind
def rnn(
    site: Site,
    x: Node,
    mask: Node | None = None,
    *,
    units: int,
    activation: object = "tanh",
    form: Form = FORM,
    given: Biased = BIASED,
) -> Node:
    """h' = activation(x @ weight_input + bias + h @ weight_hidden), h = 0 before the first time.

    `mask` (batch, time) is True where there is a value: elsewhere the state stays as it is. The
    result is the last state, or with `return_sequences` that of every time. `bidirectional` sets
    beside it what a second cell makes of the times in reverse.

    `stateful` layers go on where the last batch of `step` or `fit` stopped, row by row, without a
    gradient into what was before (truncated backpropagation through time), until
    `model.reset_states()`: the state is kept for the rows of a fixed batch (True), or for so many
    rows at most (a number).
    """
    _, function = make_activation(activation)

    def cell(z: Node, carried: Carried, hidden: Node, bias: Node | None) -> Carried:
        del bias
        return (function(z + carried[0] @ hidden),)

    layer = Layer(site, Family(cell, 1, 1, False), count("units", units), form, given)
    return layer.build(x, mask)


@kind
def lstm(
    site: Site,
    x: Node,
    mask: Node | None = None,
    *,
    units: int,
    activation: object = "tanh",
    form: Form = FORM,
    given: Biased = BIASED,
) -> Node:
    """c' = sigmoid(f) c + sigmoid(i) tanh(g); h' = sigmoid(o) tanh(c'); see `rnn` for the rest.

    i f g o are columns of x @ weight_input + bias + h @ weight_hidden + bias_hidden (Hochreiter and
    Schmidhuber 1997, with the forget gate of Gers et al. 2000); `activation` is what tanh is there.
    """
    _, function = make_activation(activation)
    family = Family(partial(_lstm, function), 4, 2, True)
    layer = Layer(site, family, count("units", units), form, given)
    return layer.build(x, mask)


@kind
def gru(
    site: Site,
    x: Node,
    mask: Node | None = None,
    *,
    units: int,
    activation: object = "tanh",
    form: Form = FORM,
    given: Biased = BIASED,
) -> Node:
    """h' = (1 - z) n + z h; n = tanh(x_n + r (h @ weight_hidden + bias_hidden)_n); see `rnn`.

    r and z are the sigmoids of both parts' sum (Cho et al. 2014, with the reset after the product);
    `activation` is what tanh is there.
    """
    _, function = make_activation(activation)
    family = Family(partial(_gru, function), 3, 1, True)
    layer = Layer(site, family, count("units", units), form, given)
    return layer.build(x, mask)


def _lstm(
    activation: Activation, z: Node, carried: Carried, hidden: Node, bias: Node | None
) -> Carried:
    h, c = carried
    gates = z + h @ hidden
    i, f, g, o = _columns(gates if bias is None else gates + bias, 4)
    new = ops.sigmoid(f) * c + ops.sigmoid(i) * activation(g)
    return ops.sigmoid(o) * activation(new), new


def _gru(
    activation: Activation, z: Node, carried: Carried, hidden: Node, bias: Node | None
) -> Carried:
    (h,) = carried
    part = h @ hidden
    x_r, x_z, x_n = _columns(z, 3)
    h_r, h_z, h_n = _columns(part if bias is None else part + bias, 3)
    r, update = ops.sigmoid(x_r + h_r), ops.sigmoid(x_z + h_z)
    n = activation(x_n + r * h_n)
    return (n + update * (h - n),)


def _replace_rows(state: Node, end: Node) -> Node:
    """The state with the rows of `end` in place of its first ones."""
    if state.shape == end.shape:
        return end
    row = ops.iota(state.shape)
    rows = ops.extent(end.shape[0], row.dtype)
    return ops.where(row < rows, ops.gather(end, ops.iota(state.shape[:1])), state)


def _columns(gates: Node, parts: int) -> list[Node]:
    whole = gates.shape[-1]
    assert isinstance(whole, int)
    units = whole // parts
    return [ops.slice_axis(gates, -1, p * units, (p + 1) * units) for p in range(parts)]


@dataclass(frozen=True)
class Family:
    """A cell, its number of gates, of carried values, and whether it has a second bias."""

    cell: Cell
    gates: int
    carries: int
    hidden_bias: bool


@dataclass(frozen=True)
class Layer:
    """One recurrent layer at its site."""

    site: Site
    family: Family
    units: int
    form: Form
    given: Biased

    def build(self, x: Node, mask: Node | None) -> Node:
        bidirectional, sequences = self.form.bidirectional, self.form.return_sequences
        features = x.shape[-1] if x.ndim == 3 else None
        if not isinstance(features, int) or not isinstance(x.shape[1], int):
            raise ValueError(f"recurrent layers need (batch, time, features), not {x.type}")
        if x.shape[1] == 0:
            raise ValueError("recurrent layers need at least one time")
        if mask is not None and mask.shape != x.shape[:2]:
            raise ValueError(f"the mask has to have the shape {x.shape[:2]}, not {mask.type}")
        if self.form.rows_kept and (bidirectional or self.site.shared):
            reason = "bidirectional" if bidirectional else "share"
            raise ValueError(f"a stateful layer goes on from its own last time: no {reason}=")
        found = self._direction(x, mask, sequences, "")
        if not bidirectional:
            return found
        return ops.concatenate([found, self._direction(x, mask, sequences, "_reverse")], -1)

    def _direction(self, x: Node, mask: Node | None, sequences: bool, suffix: str) -> Node:
        features = x.shape[-1]
        assert isinstance(features, int)
        columns = self.family.gates * self.units
        z = x @ self._weight(f"weight_input{suffix}", features, columns)
        hidden = self._weight(f"weight_hidden{suffix}", self.units, columns)
        bias = None
        if self.given.use_bias:
            z = z + self._bias(f"bias{suffix}", features)
            if self.family.hidden_bias:
                bias = self._bias(f"bias_hidden{suffix}", self.units)
        states = self._states(x)

        def step(carried: Carried, now: Carried) -> tuple[Carried, Carried]:
            new = self.family.cell(now[0], carried, hidden, bias)
            if mask is not None:
                here = ops.reshape(now[1], (x.shape[0], 1))
                new = tuple(ops.where(here, a, b) for a, b in zip(new, carried, strict=True))
            return new, new[:1]

        z = self.site.call_it(z, f"input{suffix}")
        streams = [z] if mask is None else [z, ops.cast(mask, boolean)]
        last, (every,) = ops.scan(step, self._starts(states, x), streams, reverse=bool(suffix))
        if self.site.program.training:
            for state, end in zip(states, last, strict=False):
                self.site.advance(state, partial(_replace_rows, end=end))
        return every if sequences else last[0]

    def _states(self, x: Node) -> list[Node]:
        """What a stateful layer carries from batch to batch, (rows, units) each."""
        stateful, batch = self.form.rows_kept, x.shape[0]
        if stateful is False:
            return []
        if isinstance(batch, Extent):
            if stateful is True:
                raise ValueError(
                    f"stateful=True needs a fixed batch, not '{batch}': say for how many rows the "
                    "state is kept, stateful=32, or give the input a number for its batch"
                )
            if batch.coefficient != 1:
                raise ValueError(f"stateful layers need one row per '{batch.symbol}', not {batch}")
            self.site.check_extent(batch.symbol, stateful)
        elif stateful is not True and stateful != batch:
            raise ValueError(f"the state is kept for {stateful} rows, the batch has {batch}")
        rows = batch if isinstance(batch, int) else int(stateful)
        zeros = np.zeros((rows, self.units))
        names = ("hidden", "cell")[: self.family.carries]
        return [self.site.state(name, zeros, carried=True) for name in names]

    def _starts(self, states: list[Node], x: Node) -> list[Node]:
        batch = x.shape[0]
        if not states:
            return [ops.full((batch, self.units), 0, x.dtype)] * self.family.carries
        if isinstance(batch, int):
            return states
        return [ops.gather(state, ops.iota((batch,))) for state in states]

    def _weight(self, name: str, inputs: int, columns: int) -> Node:
        return self.given.weight(self.site, name, (inputs, columns), fans=(inputs, self.units))

    def _bias(self, name: str, inputs: int) -> Node:
        columns = self.family.gates * self.units
        return self.given.bias(self.site, name, (columns,), fans=(inputs, self.units))
