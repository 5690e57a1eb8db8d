"""Takes the name of an `op`, gives its kind: a layer, an activation or a primitive."""

from __future__ import annotations

from typing import Any

from ir import ops
from ir.graph import Node, make
from ir.op import REGISTRY, Lowering, Op
from ir.types import as_dim, dtype_of
from nncompiler.frontend import (
    attention,
    convolution,
    embedding,
    layers,
    normalization,
    pooling,
    recurrent,
)
from nncompiler.frontend.activations import ACTIVATIONS, parameters_of
from nncompiler.frontend.kinds import KINDS, REQUIRED, Kind
from nncompiler.frontend.site import Site

# The files whose functions are kinds; each enters its own when it is imported.
LAYER_FILES = (layers, convolution, pooling, normalization, embedding, attention, recurrent)


def find_kind(name: str) -> Kind | None:
    """The kind of that name: a layer, an activation or a primitive; None if there is none."""
    if name in KINDS:
        return KINDS[name]
    if name in ACTIVATIONS:
        return _activation_kind(name)
    return _primitive_kind(REGISTRY[name]) if name in _primitive_names() else None


def kind_names() -> tuple[str, ...]:
    return tuple(dict.fromkeys((*KINDS, *ACTIVATIONS, *_primitive_names())))


def _activation_kind(name: str) -> Kind:
    def build(site: Site, x: Node, **parameters: Any) -> Node:
        return layers.activate_only(site, x, (name, parameters))

    return Kind(name, build, ("x",), parameters_of(name), 1)


def _primitive_names() -> tuple[str, ...]:
    no_kinds = (Lowering.LEAF, Lowering.SCAN, Lowering.ITEM)
    return tuple(n for n, op in REGISTRY.items() if op.lowering not in no_kinds or n == "iota")


def _primitive_kind(op: Op) -> Kind:
    """A kind from an op's record: its operands and attributes are those of its test samples."""
    sample = op.samples()[0]
    function = getattr(ops, op.name, None) or getattr(ops, f"{op.name}_", None)

    def build(site: Site, *values: Node, **attrs: Any) -> Node:
        known = {k: _attribute(k, v) for k, v in attrs.items()}
        if op.lowering is Lowering.MAP and function is not None:
            result = function(*values, **known)
            assert isinstance(result, Node)
            return result
        return make(op, *values, **known)

    operands = tuple("abcdef"[: len(sample.arrays)])
    return Kind(op.name, build, operands, dict.fromkeys(sample.attrs, REQUIRED), len(operands))


def _attribute(name: str, value: Any) -> Any:
    if name == "dtype":
        return dtype_of(value)
    if name == "shape":
        return tuple(as_dim(v) for v in value)
    return tuple(value) if isinstance(value, list) else value
