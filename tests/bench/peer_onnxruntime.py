"""Takes a workload, gives it in ONNX Runtime, which only runs forward; training is left out."""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle
from typing import Any

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from tests.bench.workloads import Array, Workload, batches, weights

NAME = "onnxruntime"
Graph = tuple[list[Any], list[Any]]  # the nodes and the constants


def build(w: Workload) -> dict[str, Callable[[], Any]]:
    """One way per name: "" takes NumPy arrays and gives new ones, "bound" runs on fixed buffers."""
    if w.mode not in ("infer", "product"):
        return {}
    if w.mode == "product":
        names = ["a", "b"]
        graph: Graph = [helper.make_node("MatMul", names, ["y"])], []
    else:
        names = ["x"]
        graph = layers(w)
    feeds = [dict(zip(names, pair, strict=False)) for pair in batches(w)]
    run = session(*graph, feeds[0])
    turns = cycle(feeds)
    return {"": lambda: run.run(["y"], next(turns))[0], "bound": bind(run, feeds[0])}


def layers(w: Workload) -> Graph:
    """From the input "x" to the output "y"."""
    nodes, constants, value = [], [], "x"
    given = weights(w)
    for i, pair in enumerate(given):
        names = [f"weight{i}", f"bias{i}"]
        constants += [numpy_helper.from_array(a, n) for a, n in zip(pair, names, strict=True)]
        last = i == len(given) - 1
        activation = w.output if last else w.activation
        result = "y" if last and not activation else f"layer{i}"
        nodes.append(helper.make_node("Gemm", [value, *names], [result]))
        value = result
        if activation:
            value = "y" if last else f"value{i}"
            nodes.append(helper.make_node(activation.capitalize(), [result], [value]))
    return nodes, constants


def session(nodes: list[Any], constants: list[Any], feed: dict[str, Array]) -> Any:
    def declared(name: str, shape: tuple[int, ...] | None) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    inputs = [declared(name, array.shape) for name, array in feed.items()]
    graph = helper.make_graph(nodes, "workload", inputs, [declared("y", None)], constants)
    opset = [helper.make_opsetid("", 20)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def bind(run: Any, feed: dict[str, Array]) -> Callable[[], Any]:
    y = np.zeros_like(run.run(["y"], feed)[0])
    arrays = {**feed, "y": y}  # the binding holds their addresses only
    binding = run.io_binding()
    for name in feed:
        binding.bind_cpu_input(name, arrays[name])
    binding.bind_output("y", "cpu", 0, np.float32, y.shape, y.ctypes.data)

    def call() -> Any:
        run.run_with_iobinding(binding)
        return arrays["y"]

    return call
