"""A long loop body is written once, with every vector masked, and right at every length."""

from __future__ import annotations

import numpy as np
import pytest

from ir import ops
from ir.graph import Graph
from ir.interpret import run_graph
from ir.types import f32
from nncompiler.codegen.target import preset
from nncompiler.compilation import compile_graph
from nncompiler.options import Options
from nncompiler.pipeline import lower_graph
from runtime.session import Session

EXPONENTIALS = 6  # 14 operations each


def chain() -> Graph:
    x = ops.input("x", f32, ("batch",))
    y = x
    for _ in range(EXPONENTIALS):
        y = 1.0 / (1.0 + ops.exp(y))
    return Graph("g", (x,), {"y": y})


@pytest.mark.parametrize(("target", "times"), [("avx512", 1), ("avx2", 2)])
def test_a_long_body_is_written_once_where_masks_are_free(target: str, times: int) -> None:
    module = lower_graph(chain(), target=preset(target)).module
    divisions = [line for line in module.splitlines() if " fdiv " in line and " x float>" in line]
    assert len(divisions) == times * EXPONENTIALS


@pytest.mark.parametrize("length", [1, 7, 8, 15, 16, 17, 31, 32, 33, 47, 100])
def test_every_length(length: int) -> None:
    session = Session(compile_graph(chain(), options=Options(threads=1, cache=False)))
    feed = {"x": np.linspace(-4, 4, length, dtype=np.float32)}
    np.testing.assert_allclose(session(feed)["y"], run_graph(chain(), feed)["y"], rtol=1e-6)
