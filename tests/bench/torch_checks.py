"""Takes nothing, gives what a check is: our layer, torch's, and the data that both get."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

ROWS = 6


@dataclass(frozen=True)
class Operand:
    """Rows of numbers, of whole numbers below `below`, or of True up to some length."""

    shape: tuple[int, ...]
    below: int = 0
    mask: str = ""  # "lengths": True up to a length of each row's own; "any": anywhere

    @property
    def dtype(self) -> dict[str, str]:
        return {"dtype": "int64"} if self.below else {"dtype": "bool"} if self.mask else {}

    def draw(self, rng: Any) -> Any:
        shape = (ROWS, *self.shape)
        if self.below:
            return rng.integers(0, self.below, shape)
        if self.mask == "lengths":
            lengths = rng.integers(1, self.shape[-1] + 1, (ROWS, 1))
            return np.arange(self.shape[-1]) < lengths
        if self.mask:
            found = rng.random(shape) < 0.6
            found[..., 0] = True  # torch has no answer where nothing may be attended to
            return found
        return rng.normal(size=shape).astype(np.float32)


@dataclass(frozen=True)
class Check:
    """Our layer, torch's, and which of torch's parameters ours are: a path, `.T` transposed.

    `op` is the layer's attributes, or enters a network behind the nodes it is given; `names` of a
    single layer leave out the node's; `more` are operands beside the first, by slot.
    """

    name: str
    shape: tuple[int, ...]
    op: dict[str, Any] | Callable[..., None]
    theirs: Callable[[], Any]
    names: Mapping[str, str]
    below: int = 0
    states: Mapping[str, str] = field(default_factory=dict)
    more: Mapping[str, Operand] = field(default_factory=dict)

    @property
    def operands(self) -> dict[str, Operand]:
        return {"input": Operand(self.shape, self.below), **self.more}

    def draw(self, rng: Any) -> dict[str, Any]:
        """Data by slot."""
        return {slot: operand.draw(rng) for slot, operand in self.operands.items()}

    def paths(self, names: Mapping[str, str]) -> dict[str, str]:
        """Torch's paths by our full names."""
        prefix = "n." if isinstance(self.op, dict) else ""
        return {prefix + ours: theirs for ours, theirs in names.items()}


def plain(*names: str) -> dict[str, str]:
    pairs = (name.partition("=") for name in names)
    return {ours: theirs or ours for ours, _, theirs in pairs}
