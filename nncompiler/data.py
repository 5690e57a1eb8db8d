"""Takes what the user passes as x and t, gives the inputs of a program by their ids.

    x                          {"x": array}            a dict by name, a tuple, or the one
    t                          {"target": array}       the same over the outputs
    sample_weight              {"sample_weight": array}

Arrays are converted and checked by the runtime (or the reference), which knows the types.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ir.graph import Graph, Node
from ir.types import Extent
from runtime.artifact import BufferSpec, PlanDim
from runtime.inputs import Port, check_names, convert

Array = np.ndarray[Any, Any]


def name_values(value: object, names: Sequence[str], what: str) -> dict[str, Any]:
    """A dict by name from a dict, a tuple of the right length, or the single value."""
    if isinstance(value, Mapping):
        given = {str(k): v for k, v in value.items()}
        for name in names:
            if name not in given:
                raise ValueError(f"{what} '{name}' is missing; given: {_listed(given)}")
        for name in given:
            if name not in names:
                raise ValueError(f"there is no {what} '{name}'; the {what}s are {_listed(names)}")
        return given
    if len(names) == 1:
        return {names[0]: value}
    if not isinstance(value, tuple):
        raise ValueError(
            f"the network has {len(names)} {what}s ({_listed(names)}): "
            "pass a dict by name or a tuple in this order"
        )
    if len(value) != len(names):
        raise ValueError(
            f"the network has {len(names)} {what}s ({_listed(names)}), got {len(value)} values"
        )
    return dict(zip(names, value, strict=True))


def rows_of(arrays: Mapping[str, Any]) -> int:
    """The common number of rows; ValueError where arrays differ or there are none."""
    first: tuple[str, int] | None = None
    for name, array in arrays.items():
        shape = np.shape(array)
        if not shape:
            raise ValueError(f"'{name}' is a single number where rows of data are expected")
        if first is not None and shape[0] != first[1]:
            raise ValueError(f"'{name}' has {shape[0]} rows, but '{first[0]}' has {first[1]}")
        first = first or (name, shape[0])
    if first is None:
        raise ValueError("there are no data")
    return first[1]


def as_rows(values: Mapping[str, Any]) -> dict[str, Array]:
    """Arrays (memory maps stay what they are), so that rows can be picked."""
    arrays = {}
    for name, value in values.items():
        if value is None:
            raise TypeError(f"'{name}' is None where an array is expected")
        try:
            arrays[name] = value if isinstance(value, np.ndarray) else np.asarray(value)
        except ValueError as error:
            raise ValueError(f"'{name}' is no array: {error}") from error
    return arrays


def graph_ports(graph: Graph, persistent: Mapping[str, Any]) -> list[Port]:
    """The inputs that a caller passes to a graph, as the runtime describes those of a program."""
    found = []
    for number, node in enumerate(graph.inputs):
        name = node.attrs["id"]
        if name in persistent:
            continue
        spec = BufferSpec(name, str(node.dtype), plan_shape(node), "input")
        found.append(Port(name, number, spec, node.dtype.numpy, False))
    return found


def plan_shape(node: Node) -> list[PlanDim]:
    return [[d.coefficient, d.symbol] if isinstance(d, Extent) else d for d in node.shape]


def convert_all(wanted: Sequence[Port], given: Mapping[str, Any]) -> dict[str, Array]:
    """All inputs as arrays of the right types, with the same errors as compiled code gives."""
    check_names(wanted, given)
    return {port.name: convert(port, given[port.name]) for port in wanted}


def _listed(names: Any) -> str:
    return ", ".join(f"'{n}'" for n in names) or "none"
