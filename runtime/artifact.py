"""Takes object code and its plan, gives the only thing that crosses from compiler to runtime.

An artifact is object bytes plus a plan of plain data; the disk cache and ahead-of-time export store
it as one JSON header followed by raw bytes.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

MAGIC = b"nncart01"

EXTENT = "extent:"  # begins the name of a check of a symbol, not of an input
FIXED = "fixed:"  # begins the name of an input that only `Session.refresh` looks at

# An extent in a plan: an int, or [coefficient, symbol] for coefficient * symbol.
PlanDim = int | list[Any]


@dataclass(frozen=True)
class BufferSpec:
    """One entry of the pointer table that native code receives.

    role: "input" (bound by the caller: data, parameters, state), "output" (allocated per call),
    "temporary" (in the arena, alive from step `first` to step `last`), "kept" (computed from fixed
    inputs, once for all calls), "constant" (`data`, hex) or "alias" (shares the memory of buffer
    number `alias`: a donated update).
    """

    name: str
    dtype: str
    shape: list[PlanDim]
    role: str
    alias: int = -1
    first: int = 0
    last: int = 0
    data: str = ""


@dataclass(frozen=True)
class KernelSpec:
    """One kernel call of the program, in order. Costs are [constant, {symbol: coefficient}]."""

    label: str
    function: str
    flops: list[Any]
    bytes: list[Any]
    nodes: list[str]


@dataclass(frozen=True)
class CheckSpec:
    """Native code returns 1 + the check's position where an element of the buffer is outside
    low <= v < high (integers) or is NaN (floats), before it has written anything."""

    buffer: int
    low: int = 0
    high: int = 0


@dataclass(frozen=True)
class Plan:
    """What a runtime must know of a program: see BufferSpec, KernelSpec.

    `limits` holds the largest extents of symbols that have one, `stack` the bytes that every thread
    keeps on its stack, and `shared` whether a team of threads can help (pool.py).

    `outputs` maps an output's name to its buffer, `updates` an input's id to the buffer that holds
    its new value (an alias of the input, or a temporary that native code copies back itself).
    `feeds` are the inputs whose leading axis is the batch, in the order of the native train loop's
    feed table; `scalars` the outputs of one element that the train loop averages.
    """

    name: str
    symbols: list[str]
    buffers: list[BufferSpec]
    kernels: list[KernelSpec]
    outputs: dict[str, int]
    updates: dict[str, int]
    checks: list[CheckSpec]
    feeds: list[int]
    scalars: list[str]
    entry: str
    target: str
    limits: dict[str, int] = field(default_factory=dict)
    stack: int = 0
    shared: bool = False


def limits_of(checks: Mapping[str, tuple[int, int] | None]) -> dict[str, int]:
    """The largest extents of symbols, from checks low <= value < high by name."""
    return {
        name.removeprefix(EXTENT): limits[1] - 1
        for name, limits in checks.items()
        if limits is not None and name.startswith(EXTENT)
    }


@dataclass(frozen=True)
class Artifact:
    plan: Plan
    object: bytes

    def to_bytes(self) -> bytes:
        header = json.dumps(asdict(self.plan), separators=(",", ":")).encode()
        return MAGIC + struct.pack("<q", len(header)) + header + self.object

    @staticmethod
    def from_bytes(data: bytes) -> Artifact:
        """ValueError where the bytes are not a whole artifact of this format."""
        try:
            if data[: len(MAGIC)] != MAGIC:
                raise ValueError("wrong magic number")
            start = len(MAGIC) + 8
            (length,) = struct.unpack("<q", data[len(MAGIC) : start])
            raw = json.loads(data[start : start + length])
            raw["buffers"] = [BufferSpec(**b) for b in raw["buffers"]]
            raw["kernels"] = [KernelSpec(**k) for k in raw["kernels"]]
            raw["checks"] = [CheckSpec(**c) for c in raw["checks"]]
            return Artifact(Plan(**raw), data[start + length :])
        except (struct.error, KeyError, TypeError, UnicodeDecodeError, ValueError) as error:
            raise ValueError(f"not a compiled artifact: {error}") from error
