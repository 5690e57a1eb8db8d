"""Takes placed kernels and memory, gives the calls that a program makes, loops over time and all.

For interpreters: native code does the same in nncompiler/codegen/moving.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from nncompiler.memory import Storage
from nncompiler.timeline import Slice, Swap

Array = np.ndarray[Any, Any]


def with_room(values: Array) -> Array:
    """Values with as much room behind: what a kernel sees of a sequence begins at its time."""
    return np.concatenate([values, np.zeros_like(values)])


def replay(storage: Storage, memory: Mapping[str, Array]) -> Iterator[tuple[int, dict[str, Array]]]:
    """(number of the kernel, memory of its buffers) in the order in which the kernels run."""
    return _Replay(storage, memory).run(0, len(storage.kernels), frozenset())


class _Replay:
    def __init__(self, storage: Storage, memory: Mapping[str, Array]) -> None:
        self.storage, self.memory = storage, memory
        self.line = storage.timeline
        self.done = [0] * len(self.line.spans)  # steps of every loop

    def run(
        self, first: int, last: int, inside: frozenset[int]
    ) -> Iterator[tuple[int, dict[str, Array]]]:
        at = first
        while at < last:
            spans = enumerate(self.line.spans)
            found = [n for n, s in spans if s.first == at < s.last and n not in inside]
            if not found:
                kernel = self.storage.kernels[at]
                yield at, {b.name: self.find(b.name) for b in kernel.buffers}
                at += 1
                continue
            number, span = found[0], self.line.spans[found[0]]
            for step in range(span.length):
                self.done[number] = step
                yield from self.run(at, span.last, inside | {number})
            at = span.last

    def find(self, name: str) -> Array:
        """The memory of a buffer, or of a view at the time of its loop."""
        match self.line.views.get(name):
            case Slice(buffer, step, span):
                length, done = self.line.spans[span].length, self.done[span]
                time = length - 1 - done if self.line.spans[span].reverse else done
                return self.find(buffer)[time * step :]
            case Swap(last, other, span, new):
                even = (self.line.spans[span].length - self.done[span]) % 2 == 0
                return self.memory[last if even != new else other]
        return self.memory[name]
