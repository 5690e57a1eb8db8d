"""Register tiles fit the registers of every target: no vector of them goes to the stack."""

from __future__ import annotations

import re

import pytest

import nncompiler.schedule.heuristics as heuristics
from ir import ops
from ir.graph import Graph
from ir.types import DType, as_dim, f32, f64
from nncompiler.codegen.llvm import assembly
from nncompiler.codegen.target import preset
from nncompiler.frontend.convolution import convolve
from nncompiler.pipeline import lower_graph

SPILL = re.compile(r"[xyz]mm\d.*%rsp|%rsp.*[xyz]mm\d|\b[qv]\d+.*\[sp")
SQUARE = ((64, 64, 64), (1024, 1024, 1024))
ODD = (("batch", 64, 128), (100, 50, 32))
WIDE = ((1, 64, 1000), (17, 300, 1000), (1000, 1000, 1000), ("batch", 300, 1000))
# On the last two targets odd shapes keep one or two vectors on the stack between their loops.
CASES = [(t, s) for t in ("avx512", "avx2") for s in (*SQUARE, *ODD)]
CASES += [("avx512", s) for s in WIDE]
CASES += [(t, s) for t in ("sse", "neon") for s in SQUARE]


def dense(dtype: DType, m: int | str, k: int, n: int) -> Graph:
    x = ops.input("x", dtype, (as_dim(m), k))
    weight, bias = ops.input("weight", dtype, (k, n)), ops.input("bias", dtype, (n,))
    return Graph("dense", (x, weight, bias), {"y": ops.relu(x @ weight + bias)})


def spills(graph: Graph, target: str) -> list[str]:
    lowered = lower_graph(graph, target=preset(target))
    lines = assembly(lowered.module, lowered.target).splitlines()
    return [line for line in lines if SPILL.search(line)]


@pytest.mark.parametrize("dtype", [f32, f64], ids=str)
@pytest.mark.parametrize(("target", "shape"), CASES, ids=str)
def test_a_micro_kernel_stays_in_registers(
    target: str, dtype: DType, shape: tuple[int | str, int, int]
) -> None:
    assert not spills(dense(dtype, *shape), target)


def test_a_tile_that_is_too_large_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heuristics, "tile_shape", lambda *_: (4, 9))
    assert spills(dense(f32, 64, 64, 64), "avx512")


def test_what_a_mask_leaves_out_is_not_read() -> None:
    """LLVM 22 makes the masked load a part of the masked sum, and a whole load of it again."""
    x, w = ops.input("x", "f64", (3, 4, 3, 32)), ops.input("w", "f64", (3, 4, 2, 1))
    centred = x - ops.sum(x, (3,), keepdims=True) * 0.0625
    y = convolve(centred, w, (2, 1), ((0, 1), (0, 0)), (1, 1), 1)
    lowered = lower_graph(Graph("edge", (x, w), {"y": y}), target=preset("avx512"))
    text = assembly(lowered.module, lowered.target)
    kernel = next(part for part in text.split("@function\n") if part.startswith("k01_pad:"))
    reads = [
        line for line in kernel.split("retq")[0].splitlines() if re.search(r"\(%rdi\S*, %zmm", line)
    ]
    assert reads
    assert all("{%k" in line for line in reads), reads
