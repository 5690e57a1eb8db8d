"""Takes clock ticks of every kernel and the wall time of all calls, gives the rows of a profile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runtime.artifact import KernelSpec


@dataclass(frozen=True)
class ProfileRow:
    """One kernel call of the program: seconds are those of all `calls`, share is 0 to 1."""

    label: str
    calls: int
    seconds: float
    gflops: float
    gbps: float
    share: float


def profile_rows(
    kernels: Sequence[KernelSpec],
    ticks: Sequence[float],
    *,
    calls: int,
    seconds: float,
    symbols: Mapping[str, int],
) -> list[ProfileRow]:
    """Ticks become seconds by their share in the wall time of all calls."""
    total = sum(ticks) or 1.0
    rows = []
    for kernel, count in zip(kernels, ticks, strict=True):
        share = count / total
        spent = share * seconds
        rate = calls / spent / 1e9 if spent else 0.0
        rows.append(
            ProfileRow(
                label=kernel.label,
                calls=calls,
                seconds=spent,
                gflops=cost(kernel.flops, symbols) * rate,
                gbps=cost(kernel.bytes, symbols) * rate,
                share=share,
            )
        )
    return rows


def cost(formula: Sequence[Any], symbols: Mapping[str, int]) -> float:
    """The value of [constant, {symbol: coefficient}]."""
    constant, terms = formula
    return float(constant) + sum(float(c) * symbols[s] for s, c in terms.items())
