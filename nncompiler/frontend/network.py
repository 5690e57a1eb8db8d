"""Takes a networkx graph of layers, gives a Network: what to compute, and with which parameters."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from ir.graph import Node
from ir.types import DType, dtype_of
from nncompiler.errors import CompileError
from nncompiler.frontend.catalogue import find_kind, kind_names
from nncompiler.frontend.graphs import (
    check_acyclic,
    check_directed,
    check_names,
    fail,
    needed_nodes,
    output_nodes,
)
from nncompiler.frontend.initializers import Initializer, make_initializer
from nncompiler.frontend.kinds import REQUIRED, Kind
from nncompiler.frontend.names import suggest
from nncompiler.frontend.site import Built, Layer, Network, Program, Site, Times

if TYPE_CHECKING:
    import networkx as nx

CYCLE = "remove one of its edges, or compile with recurrent=True for data (batch, time, inputs)"


def read_network(
    graph: nx.DiGraph[Any],
    *,
    dtype: DType | str = "float32",
    outputs: Sequence[Hashable] | None = None,
    initializer: object = "glorot_uniform",
    times: Times | None = None,
) -> Network:
    """The network of a layer graph (every node has `op`) or of a neuron graph (none has), the
    latter on data with `times`.

    Raises CompileError naming the node for whatever does not fit; TypeError for another kind of
    object.
    """
    check_directed(graph)
    check_names(graph)
    layers = [n for n, attrs in graph.nodes(data=True) if "op" in attrs]
    if times is None:
        check_acyclic(graph, *(() if layers else (CYCLE,)))
    try:
        drawn = make_initializer(initializer)
        kind_of_number = dtype_of(dtype)
    except (ValueError, TypeError) as error:
        raise fail(str(error)) from error
    if not kind_of_number.is_float:
        raise fail(f"the model's dtype has to be float32 or float64, not {kind_of_number.numpy}")
    if not layers:
        from nncompiler.frontend.neurons import read_neurons  # layer graphs start without

        return read_neurons(
            graph, dtype=kind_of_number, outputs=outputs, initializer=drawn, times=times
        )
    if times is not None:
        hint = "layers over time are rnn, lstm and gru"
        raise fail("recurrent= is for graphs of neurons", node=layers[0], hint=hint)
    for node, attrs in graph.nodes(data=True):
        if "op" not in attrs:
            raise fail(
                f"node '{node}' has no op, but '{layers[0]}' has one",
                node=node,
                hint="give every node an op (a layer graph) or none (a neuron graph)",
            )
    return read_layers(graph, dtype=kind_of_number, outputs=outputs, initializer=drawn)


# --------------------------------------------------------------------------- layer graphs


@dataclass(frozen=True)
class _Step:
    """One node of the layer graph, checked: its kind, operands (by node) and attributes."""

    node: Hashable
    kind: Kind
    operands: tuple[Hashable | None, ...]  # None: an optional one that no edge brings
    attributes: Mapping[str, Any]
    share: str | None


def read_layers(
    graph: nx.DiGraph[Any],
    *,
    dtype: DType,
    outputs: Sequence[Hashable] | None,
    initializer: Initializer,
) -> Network:
    """The network of a layer graph; only what the outputs need takes part."""
    wanted = output_nodes(graph, outputs)
    rank = {n: i for i, n in enumerate(graph)}
    steps = [_read_node(graph, n) for n in needed_nodes(graph, wanted)]
    inputs = sorted((s.node for s in steps if s.kind.name == "input"), key=lambda n: rank[n])

    @cache
    def run(training: bool) -> tuple[Program, Built]:
        program = Program(dtype, training, initializer)
        values: dict[Hashable, Node] = {}
        for step in steps:
            values[step.node] = _build_node(program, step, values)
        results = {str(n): values[n] for n in wanted}
        ends = {k: program.ends[v] for k, v in results.items() if v in program.ends}
        names, updates = dict(program.names), dict(program.updates)
        layers, checks = tuple(program.layers), dict(program.checks)
        return program, Built(results, names, updates, ends, layers, checks)

    program, _ = run(False)
    trained, _ = run(True)
    return Network(
        dtype=dtype,
        inputs={str(n): program.inputs[str(n)] for n in inputs},
        parameters=program.parameters,
        states=trained.states,
        build=lambda training: run(training)[1],
    )


def _read_node(graph: nx.DiGraph[Any], node: Hashable) -> _Step:
    attributes = dict(graph.nodes[node])
    op = attributes.pop("op")
    kind = find_kind(op) if isinstance(op, str) else None
    if kind is None:
        hint = suggest(op, kind_names())
        raise fail(f"node '{node}' has the unknown op {op!r}", node=node, hint=hint)
    share = attributes.pop("share", None)
    for name in attributes:
        if name not in kind.attributes:
            hint = suggest(name, (*kind.attributes, "share"))
            raise fail(f"{op} '{node}' has no attribute '{name}'", node=node, hint=hint)
    for name, default in kind.attributes.items():
        if default is REQUIRED and name not in attributes:
            raise fail(f"{op} '{node}' needs the attribute '{name}'", node=node)
    operands = _order_operands(graph, node, kind)
    return _Step(node, kind, operands, attributes, None if share is None else str(share))


def _order_operands(
    graph: nx.DiGraph[Any], node: Hashable, kind: Kind
) -> tuple[Hashable | None, ...]:
    """The predecessors in the order of their slots (or of the graph where no edge has one)."""
    edges = [(u, dict(data)) for u, _, data in graph.in_edges(node, data=True)]
    what = f"{kind.name} '{node}'"
    for u, data in edges:
        unknown = [str(k) for k in data if k != "slot"]
        if unknown:
            hint = "edges of a layer graph carry only 'slot'"
            raise fail(
                f"edge '{u}' -> '{node}' has the attribute '{unknown[0]}'", node=node, hint=hint
            )
    _check_number(what, node, kind, [str(u) for u, _ in edges])
    with_slot = [u for u, data in edges if data.get("slot") is not None]
    if not with_slot:
        return tuple(u for u, _ in edges)
    by_slot: dict[int, Hashable] = {}
    for u, data in edges:
        slot = data.get("slot")
        if slot is None:
            raise fail(
                f"{what}: the edge from '{u}' has no slot, the one from '{with_slot[0]}' has",
                node=node,
                hint="give a slot to all edges of a node or to none",
            )
        position = _slot_number(what, node, kind, slot, len(edges))
        if position in by_slot:
            message = f"{what}: '{by_slot[position]}' and '{u}' both feed slot {slot!r}"
            raise fail(message, node=node)
        by_slot[position] = u
    _check_filled(what, node, kind, by_slot)
    return tuple(by_slot.get(i) for i in range(max(by_slot) + 1))


def _check_number(what: str, node: Hashable, kind: Kind, sources: Sequence[str]) -> None:
    if kind.operands is None:
        if not sources:
            raise fail(f"{what} has no inputs; it takes at least one", node=node)
        return
    least, most = kind.required, len(kind.operands)
    if not least <= len(sources) <= most:
        got = f"has {len(sources)} ({', '.join(sources)})" if sources else "has none"
        takes = ", ".join(kind.operands) or "none"
        number = str(most) if least == most else f"{least} to {most}"
        raise fail(f"{what} takes {number} input(s) ({takes}) but {got}", node=node)


def _check_filled(what: str, node: Hashable, kind: Kind, by_slot: Mapping[int, Hashable]) -> None:
    """Every slot that has to be filled is; of a kind without names all up to the last are."""
    wanted = len(by_slot) if kind.operands is None else kind.required
    for i in range(wanted):
        if i not in by_slot:
            name = str(i) if kind.operands is None else kind.operands[i]
            raise fail(f"{what}: nothing feeds its slot '{name}'", node=node)


def _slot_number(what: str, node: Hashable, kind: Kind, slot: Any, number: int) -> int:
    names = kind.operands or ()
    if isinstance(slot, str) and slot in names:
        return names.index(slot)
    places = number if kind.operands is None else len(names)
    if isinstance(slot, int) and not isinstance(slot, bool) and 0 <= slot < places:
        return slot
    known = [*map(str, range(places)), *names]
    raise fail(f"{what} has no slot {slot!r}", node=node, hint=f"slots: {', '.join(known)}")


def _build_node(program: Program, step: _Step, values: Mapping[Hashable, Node]) -> Node:
    name = str(step.node)
    site = Site(program, name, step.share or name, step.share is not None, step.kind.name)
    before = set(program.parameters)
    given = [None if n is None else values[n] for n in step.operands]
    try:
        value = step.kind.build(site, *given, **step.attributes)
    except CompileError:
        raise
    except (ValueError, TypeError, OverflowError) as error:
        seen = _describe([n for n in step.operands if n is not None], values)
        message = f"{step.kind.name} '{name}': {error}{seen}"
        raise fail(message, node=step.node) from error
    site.call_it(value)
    made = tuple(p for p in program.parameters if p not in before)
    program.layers.append(Layer(name, step.kind.name, value.type, made))
    return value


def _describe(operands: Iterable[Hashable], values: Mapping[Hashable, Node]) -> str:
    texts = [f"'{n}' gives {values[n].type}" for n in operands]
    return f"; {', '.join(texts)}" if texts else ""
