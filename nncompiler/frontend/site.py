"""Takes nothing, gives what a network is made of: parameters, states, and the site of one layer.

A `Network` says how to build its graph; a `Program` gathers what the layers make while they are
built; a `Site` is the place of one layer in it.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ir import ops
from ir.graph import Node
from ir.types import DType, Shape, TensorType
from nncompiler.errors import CompileError
from nncompiler.frontend.initializers import Array, Fans, Initializer, make_initializer
from nncompiler.frontend.regularizers import Regularizer, make_regularizer
from nncompiler.frontend.updates import State
from runtime.artifact import EXTENT, FIXED

# Inputs that the training graphs add beside those of the network.
RESERVED = ("target", "sample_weight", "learning_rate")
RESERVED_PREFIXES = (
    "optimizer.",
    "random.",
    "target:",
    "grad:",
    "update:",
    "metric:",
    "objective.",
    EXTENT,
    FIXED,
)


@dataclass(frozen=True)
class Parameter:
    """A learned array. `is_weight` tells whether the model's regularizer applies to it.

    `stream` names the parameter whose random numbers it is drawn from, itself where it is empty;
    `is_table` tells that a layer picks rows of it by number.
    """

    name: str
    node: Node
    initializer: Initializer
    trainable: bool
    regularizer: Regularizer | None
    is_weight: bool
    fans: Fans
    stream: str = ""
    is_table: bool = False


@dataclass(frozen=True)
class View:
    """One number inside an array: how a neuron graph's weights lie in dense parameters."""

    array: str
    index: tuple[int, ...]


@dataclass(frozen=True)
class Layer:
    """A row of the summary."""

    name: str
    op: str
    type: TensorType
    parameters: tuple[str, ...]


@dataclass(frozen=True)
class Built:
    """The graph of a network: outputs by name, names of values, new values of states.

    `ends` holds the outputs that end in softmax, log_softmax or sigmoid: (its name, what it saw);
    `checks` the low <= number < high that inputs of whole numbers have to keep, by input, and the
    symbol's extent, by its name after EXTENT.
    """

    outputs: dict[str, Node]
    names: dict[Node, str]
    updates: dict[str, Node]
    ends: dict[str, tuple[str, Node]]
    layers: tuple[Layer, ...]
    checks: dict[str, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Times:
    """How many times the data have, and whether the outputs of the last one are all that counts."""

    count: int
    last_only: bool = False


@dataclass(frozen=True)
class Network:
    """A network as the user described it; `build(training)` gives its graph.

    `views` maps a neuron graph's parameter names (`u->v`, `v.bias`) to places in `parameters`.
    """

    dtype: DType
    inputs: dict[str, Node]
    parameters: dict[str, Parameter]
    states: dict[str, State]
    build: Callable[[bool], Built]
    views: dict[str, View] = field(default_factory=dict)

    def draw(self, seed: int) -> dict[str, Array]:
        """First values of all parameters. Each has its own stream of random numbers, so that a
        new layer leaves the others' values alone. ValueError names the parameter that fails."""
        return {name: draw_parameter(p, seed) for name, p in self.parameters.items()}

    def draw_states(self, seed: int) -> dict[str, Array]:
        """First values of all states (the seed of random numbers among them); not copies."""
        values = {name: state.initial for name, state in self.states.items()}
        if SEED in values:
            values[SEED] = np.asarray(seed % 2**32, np.uint32)
        return values


SEED = "random.seed"
COUNTER = "random.counter"


def draw_parameter(parameter: Parameter, seed: int) -> Array:
    rng = np.random.default_rng(
        [seed % 2**64, zlib.crc32((parameter.stream or parameter.name).encode())]
    )
    shape = tuple(int(d) for d in parameter.node.shape)  # type: ignore[arg-type]
    try:
        values = parameter.initializer.draw(rng, shape, parameter.fans, parameter.node.dtype)
    except (ValueError, TypeError) as error:
        node = parameter.name.rpartition(".")[0] or parameter.name
        message = f"parameter '{parameter.name}': {error}"
        raise CompileError(message, node=node, stage="network") from error
    return np.asarray(values, order="C")


@dataclass
class Program:
    """What the layers have made so far."""

    dtype: DType
    training: bool
    initializer: Initializer
    inputs: dict[str, Node] = field(default_factory=dict)
    parameters: dict[str, Parameter] = field(default_factory=dict)
    makers: dict[str, Site] = field(default_factory=dict)
    states: dict[str, State] = field(default_factory=dict)
    updates: dict[str, Node] = field(default_factory=dict)
    names: dict[Node, str] = field(default_factory=dict)
    ends: dict[Node, tuple[str, Node]] = field(default_factory=dict)
    layers: list[Layer] = field(default_factory=list)
    checks: dict[str, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Site:
    """One layer's place: its node's name, and the name that its parameters go by (`owner`).

    `shared` tells that the user gave that name by `share=`.
    """

    program: Program
    name: str
    owner: str
    shared: bool
    op: str

    def input(self, shape: Sequence[Any], dtype: DType) -> Node:
        check_id(self.name)
        if self.name in self.program.parameters:
            raise ValueError(f"duplicate name: '{self.name}' is also a parameter")
        node = ops.input(self.name, dtype, shape)
        self.program.inputs[self.name] = node
        return node

    def parameter(
        self,
        suffix: str,
        shape: Sequence[int],
        *,
        fans: Fans,
        initializer: object = None,
        regularizer: object = None,
        trainable: bool = True,
        is_weight: bool = True,
        stream: str = "",
        is_table: bool = False,
    ) -> Node:
        """The parameter `owner.suffix` (or `owner`); sites of one owner share it.

        `stream` is the suffix of the parameter whose random numbers it is drawn from.
        """
        name = f"{self.owner}.{suffix}" if suffix else self.owner
        known = self.program.parameters.get(name)
        if known is not None:
            node = self._shared(known, tuple(shape))
            self.program.parameters[name] = replace(known, is_table=known.is_table or is_table)
            return node
        check_id(name)
        if name in self.program.inputs:
            raise ValueError(f"duplicate name: '{name}' is also an input")
        drawn = self.program.initializer if initializer is None else make_initializer(initializer)
        node = ops.input(name, self.program.dtype, shape)
        self.program.parameters[name] = Parameter(
            name,
            node,
            drawn,
            bool(trainable),
            make_regularizer(regularizer),
            is_weight,
            fans,
            f"{self.owner}.{stream}" if stream else "",
            is_table,
        )
        self.program.makers[name] = self
        return node

    def _shared(self, known: Parameter, shape: Shape) -> Node:
        maker = self.program.makers[known.name]
        if maker.owner != self.owner or not (maker.shared and self.shared):
            raise ValueError(
                f"duplicate name: '{maker.name}' also has a parameter '{known.name}'; give both "
                "nodes the same share=... if it is meant to be one"
            )
        if known.node.shape != shape:
            raise ValueError(
                f"shared parameter '{known.name}' has shape {_text(known.node.shape)} in "
                f"'{maker.name}' but needs {_text(shape)} here"
            )
        return known.node

    def call_it(self, value: Node, suffix: str = "") -> Node:
        """Give a value a readable name, unless it has one; gives the value."""
        full = f"{self.name}.{suffix}" if suffix else self.name
        self.program.names.setdefault(value, full)
        return value

    def ends_in(self, activation: str, result: Node, seen: Node) -> Node:
        """Note that `result` is the activation of `seen`, for losses that undo it."""
        if activation in ("softmax", "log_softmax", "sigmoid"):
            self.program.ends.setdefault(result, (activation, seen))
        return result

    def state(self, suffix: str, initial: Array, *, carried: bool = False) -> Node:
        """The persistent value `owner.suffix` that no optimizer changes; see `advance`."""
        id = f"{self.owner}.{suffix}"
        check_id(id)
        if id in self.program.parameters or id in self.program.inputs:
            raise ValueError(f"duplicate name: '{id}' is also a parameter or an input")
        known = self.program.states.get(id)
        if known is None:
            array = np.asarray(initial, self.program.dtype.numpy)
            known = State(ops.input(id, self.program.dtype, array.shape), array, carried)
            self.program.states[id] = known
        elif not self.shared or known.initial.shape != np.shape(initial):
            raise ValueError(
                f"duplicate name: two layers keep '{id}', of shapes {known.initial.shape} and "
                f"{np.shape(initial)}; give both the same share=... if it is meant to be one"
            )
        return known.node

    def latest(self, state: Node) -> Node:
        """What the layers before this one make of the state in this step."""
        return self.program.updates.get(state.attrs["id"], state)

    def advance(self, state: Node, change: Callable[[Node], Node]) -> None:
        """Every training step replaces the state by change(state); layers that share it in turn."""
        self.program.updates[state.attrs["id"]] = change(self.latest(state))

    def check_extent(self, symbol: str, most: int) -> None:
        """Refuse calls with more rows than that."""
        known = self.program.checks.get(EXTENT + symbol, (0, most + 1))
        self.program.checks[EXTENT + symbol] = (0, min(most + 1, known[1]))

    def check_range(self, source: Node, low: int, high: int) -> None:
        """Refuse calls whose whole numbers in the input `source` are not in low .. high - 1."""
        id = source.attrs["id"]
        known = self.program.checks.get(id, (low, high))
        self.program.checks[id] = (max(low, known[0]), min(high, known[1]))

    def random_source(self) -> tuple[Node, Node]:
        """(seed, counter): two u32 scalars; the counter is advanced by every training step."""
        nodes = []
        for id in (SEED, COUNTER):
            node = ops.input(id, "u32", ())
            self.program.states.setdefault(id, State(node, np.zeros((), np.uint32)))
            nodes.append(node)
        self.program.updates.setdefault(COUNTER, nodes[1] + 1)
        return nodes[0], nodes[1]

    @property
    def number(self) -> int:
        """A number of 32 bits that belongs to this layer's name in every run."""
        return zlib.crc32(self.name.encode())


def check_id(name: str) -> None:
    """ValueError for a name that the training graphs need for themselves."""
    if name in RESERVED or name.startswith(RESERVED_PREFIXES):
        raise ValueError(f"the name '{name}' is reserved; choose another one")


def _text(shape: Shape) -> str:
    return f"({', '.join(map(str, shape))})"
