"""Takes nested tuples, lists and dicts of values, gives their leaves in order and the way back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Tree:
    """The shape of a nested value: kind "leaf", "none", "tuple", "list" or "dict" with its keys."""

    kind: str
    keys: tuple[Any, ...] = ()
    children: tuple[Tree, ...] = ()

    @property
    def size(self) -> int:
        return 1 if self.kind == "leaf" else sum(c.size for c in self.children)


LEAF = Tree("leaf")


def flatten(value: Any) -> tuple[list[Any], Tree]:
    """The leaves of a nested value, depth first, and its Tree; None counts as empty."""
    if value is None:
        return [], Tree("none")
    if isinstance(value, dict):
        keys, items, kind = tuple(value), list(value.values()), "dict"
    elif type(value) in (tuple, list):
        keys, items, kind = (), list(value), type(value).__name__
    else:
        return [value], LEAF
    leaves: list[Any] = []
    children = []
    for item in items:
        found, child = flatten(item)
        leaves.extend(found)
        children.append(child)
    return leaves, Tree(kind, keys, tuple(children))


def unflatten(tree: Tree, leaves: Sequence[Any]) -> Any:
    """The nested value with these leaves."""
    if tree.kind == "leaf":
        return leaves[0]
    if tree.kind == "none":
        return None
    items = []
    start = 0
    for child in tree.children:
        items.append(unflatten(child, leaves[start : start + child.size]))
        start += child.size
    if tree.kind == "dict":
        return dict(zip(tree.keys, items, strict=True))
    return tuple(items) if tree.kind == "tuple" else items


def map_leaves(function: Callable[[Any], Any], value: Any) -> Any:
    """The same nesting with `function` applied to every leaf."""
    leaves, tree = flatten(value)
    return unflatten(tree, [function(leaf) for leaf in leaves])
