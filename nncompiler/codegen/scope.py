"""Takes names of loop variables and lets, gives what they are bound to while code is written."""

from __future__ import annotations

from dataclasses import dataclass, field

from ir import scalar
from ir.scalar import Scalar
from nncompiler.codegen.values import Value


@dataclass(frozen=True, slots=True)
class Binding:
    """A loop variable: `base` (i64) in the first lane, one more in each following lane.

    Only lanes whose bit in `mask` is set exist, which are the first `left` (i64); without a mask
    all of them do.
    """

    base: Value
    lanes: int = 1
    mask: Value | None = None
    left: Value | None = None

    @property
    def key(self) -> str:
        mask = self.mask.text if self.mask else ""
        return f"{self.base.text}/{self.lanes}/{mask}"


@dataclass
class Accumulator:
    """A value under construction. `partial`: its lanes are still to be combined into one."""

    value: Value
    combine: str
    partial: bool


@dataclass
class Scope:
    """Values that are known in a block and in all blocks that it dominates."""

    known: dict[tuple[Scalar, tuple[str, ...]], Value] = field(default_factory=dict)


class Dependences:
    """The names (loop variables and refs) that expressions depend on, remembered."""

    def __init__(self) -> None:
        self._memo: dict[Scalar, tuple[str, ...]] = {}

    def __call__(self, root: Scalar) -> tuple[str, ...]:
        found = self._memo.get(root)
        if found is not None:
            return found
        for s in scalar.walk([root]):
            if s in self._memo:
                continue
            names = {v.name for v in s.index.variables}
            for guard in s.guards:
                names |= {v.name for v in guard.value.variables}
            for arg in s.args:
                names |= set(self._memo[arg])
            if s.kind == "ref":
                names.add(s.name)
            self._memo[s] = tuple(sorted(names))
        return self._memo[root]
