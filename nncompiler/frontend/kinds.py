"""Takes a function of a site, operands and attributes, gives the kind of node that it builds."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from ir.graph import Node
from ir.types import Extent, as_dim

REQUIRED = inspect.Parameter.empty


@dataclass(frozen=True)
class Kind:
    """An `op` of a layer graph. `operands` is None where any number above 0 is taken.

    The first `required` operands have to be there; the others are None where no edge brings them.
    """

    name: str
    build: Callable[..., Node]
    operands: tuple[str, ...] | None
    attributes: Mapping[str, Any]
    required: int = 0


class Attributes:
    """Several attributes at once: a keyword whose default is such a dataclass stands for the fields
    of it, which the node has as attributes of its own."""


KINDS: dict[str, Kind] = {}


def kind(build: Callable[..., Node], name: str = "") -> Callable[..., Node]:
    """Enter a function (site, operands, *, attributes) as a kind under its name."""
    parameters = list(inspect.signature(build).parameters.values())[1:]
    variadic = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    named = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    operands = tuple(p.name for p in named)
    required = sum(p.default is REQUIRED for p in named)
    attributes: dict[str, Any] = {}
    groups: dict[str, Any] = {}
    flags: set[str] = set()
    for p in parameters:
        if isinstance(p.default, Attributes):
            groups[p.name] = p.default
            own = fields(groups[p.name])
            attributes |= {f.name: getattr(p.default, f.name) for f in own}
            flags |= {f.name for f in own if f.type == "bool"}
        elif p.kind is p.KEYWORD_ONLY:
            attributes[p.name] = p.default
            flags |= {p.name} if p.annotation == "bool" else set()

    def gathered(site: Any, *values: Any, **given: Any) -> Node:
        for flag in flags & given.keys():
            if not isinstance(given[flag], (bool, np.bool_)):
                raise TypeError(f"{flag} is True or False, not {given[flag]!r}")
        for key, default in groups.items():
            own = {f.name: given.pop(f.name) for f in fields(default) if f.name in given}
            given[key] = replace(default, **own)
        return build(site, *values, **given)

    name = name or build.__name__.removesuffix("_")
    KINDS[name] = Kind(name, gathered, None if variadic else operands, attributes, required)
    return build


def count(name: str, value: Any, least: int = 1) -> int:
    """A whole number, at least 1 (or `least`)."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} has to be a whole number, not {value!r}")
    if value < least:
        raise ValueError(f"{name} has to be at least {least}, not {value}")
    return int(value)


def checked_shape(shape: Sequence[Any], *, symbols: bool = True) -> tuple[int | Extent, ...]:
    """The extents of a shape; a symbol may stand only in front."""
    if isinstance(shape, (str, bytes)) or not isinstance(shape, Sequence):
        raise TypeError(f"shape has to be a tuple such as ('batch', 64), not {shape!r}")
    dims = []
    for axis, dim in enumerate(shape):
        known = as_dim(dim)
        if isinstance(known, Extent) and not symbols:
            raise ValueError(f"the symbolic extent '{dim}' in shape {tuple(shape)} of a parameter")
        if isinstance(known, Extent) and axis > 0:
            raise ValueError(
                f"symbolic extent '{dim}' on axis {axis} of shape {tuple(shape)}: a symbol may "
                "stand only in the first entry"
            )
        if isinstance(known, int) and known < 0:
            raise ValueError(f"negative extent {dim} in shape {tuple(shape)}")
        dims.append(known)
    return tuple(dims)
