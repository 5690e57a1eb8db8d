"""Every second element is read by shuffles: the right ones, at every length, under guards too."""

from __future__ import annotations

import numpy as np
import pytest

from ir import ops
from ir.graph import Graph
from ir.interpret import run_graph
from nncompiler.compilation import compile_graph
from nncompiler.options import Options
from runtime.session import Session


@pytest.mark.parametrize("dtype", ["f32", "f64", "i32", "bool"])
def test_every_second_element_at_every_length(dtype: str) -> None:
    inputs, outputs, feed = [], {}, {}
    random = np.random.default_rng(0)
    for length in (1, 2, 3, 15, 16, 17, 31, 32, 33, 34, 63, 64, 65, 100):
        x = ops.input(f"x{length}", dtype, (length,))
        inputs.append(x)
        outputs |= {f"even{length}": x[::2], f"odd{length}": x[1::2]}
        outputs[f"padded{length}"] = ops.pad(x, (3,), (2,), 1 if dtype != "bool" else True)[::2]
        outputs[f"rows{length}"] = ops.where(ops.eq(x, x), x, x)[::2]
        feed[f"x{length}"] = random.integers(0, 2, length).astype(x.dtype.numpy)
    graph = Graph("g", tuple(inputs), outputs)
    found = Session(compile_graph(graph, options=Options(threads=1, cache=False)))(feed)
    for name, value in run_graph(graph, feed).items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
