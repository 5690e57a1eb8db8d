"""Takes names of networks, gives times of inference at batch 1 beside PyTorch and ONNX Runtime.

    python -m tests.bench.inference                      a table of all of them
    python -m tests.bench.inference --only LeNet --rows 8 --compile

Ours is called with live parameters (`model(x)`), bound (`model.bind(x)`), and both with a snapshot
of the parameters (`model.freeze()`). ONNX Runtime prepares its weights too; it takes NumPy arrays,
or runs on fixed buffers. PyTorch is called under `inference_mode` in the better of its layouts, and
with --compile by `torch.compile` with `freezing`. All from the same weights, one thread, in turns;
the best time of each.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

os.environ.setdefault("NNC_NUM_THREADS", "1")  # before any peer makes its threads
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

import networkx as nx
import numpy as np

import nncompiler as nnc
from tests.bench.networks import NETWORKS, chain
from tests.bench.timing import interleave, readable

Array = np.ndarray[Any, Any]
Run = Callable[[], Any]

WIDE = {"c": {"op": "conv", "filters": 512, "kernel_size": 3, "padding": 1}}
SHAPES: Mapping[str, Callable[[], tuple[nx.DiGraph, tuple[int, ...]]]] = {
    **{
        name: partial(lambda make: (make()[0], make()[2][1:]), NETWORKS[name])
        for name in ("digits MLP", "MNIST MLP", "LeNet", "ResNet-8")
    },
    "3x3, 512 channels": lambda: (chain((512, 8, 8), WIDE), (512, 8, 8)),
}


def ours(graph: nx.DiGraph, x: Array) -> tuple[nnc.Model, dict[str, Run]]:
    model = nnc.compile(graph)
    rng = np.random.default_rng(0)
    for name, array in model.state.items():  # as after training: norms that do something
        if name.endswith((".mean", ".shift", ".bias")):
            array[...] = rng.normal(scale=0.1, size=array.shape)
        if name.endswith((".variance", ".scale")):
            array[...] = rng.uniform(0.5, 2.0, array.shape)
    frozen = model.freeze()
    return model, {
        "live": lambda: model(x),
        "live, bound": model.bind(x),
        "frozen": lambda: frozen(x),
        "frozen, bound": frozen.bind(x),
    }


class Layers:
    """The layers of a graph as calls of another library, which a subclass names by their ops."""

    def __init__(self, model: nnc.Model) -> None:
        self.graph = model.source
        self.arrays = {name: np.array(a) for name, a in model.state.items()}

    def walk(self, x: Any) -> Any:
        values: dict[Any, Any] = {}
        for node in nx.topological_sort(self.graph):
            a = self.graph.nodes[node]
            inputs = [values[i] for i in self.graph.predecessors(node)]
            values[node] = getattr(self, a["op"])(node, a, *inputs) if inputs else x
            if a.get("activation"):
                values[node] = getattr(self, a["activation"])(f"{node}.activation", a, values[node])
        return values[node]


class Torch(Layers):
    def __init__(self, model: nnc.Model) -> None:
        super().__init__(model)
        import torch

        self.f = torch.nn.functional
        self.tensors = {n: torch.from_numpy(a) for n, a in self.arrays.items()}
        for name, t in self.tensors.items():
            if name.endswith(".weight") and t.ndim == 2:
                self.tensors[name] = t.T.contiguous()  # as torch.nn.Linear keeps it

    def channels_last(self) -> Torch:
        import torch

        for name, t in self.tensors.items():
            if t.ndim == 4:
                self.tensors[name] = t.contiguous(memory_format=torch.channels_last)
        return self

    def conv(self, n: str, a: Any, x: Any) -> Any:
        common = {"stride": a.get("strides", 1), "padding": a.get("padding", 0)}
        common["groups"] = a.get("groups", 1)
        return self.f.conv2d(
            x, self.tensors[f"{n}.weight"], self.tensors.get(f"{n}.bias"), **common
        )

    def batch_norm(self, n: str, a: Any, x: Any) -> Any:
        names = ("mean", "variance", "scale", "shift")
        return self.f.batch_norm(x, *(self.tensors[f"{n}.{k}"] for k in names))

    def dense(self, n: str, a: Any, x: Any) -> Any:
        return self.f.linear(x, self.tensors[f"{n}.weight"], self.tensors[f"{n}.bias"])

    def max_pool(self, n: str, a: Any, x: Any) -> Any:
        return self.f.max_pool2d(x, a["pool_size"])

    def global_avg_pool(self, n: str, a: Any, x: Any) -> Any:
        return x.mean((2, 3))

    def relu(self, n: str, a: Any, x: Any) -> Any:
        return self.f.relu(x)

    def add(self, n: str, a: Any, x: Any, y: Any) -> Any:
        return x + y

    def flatten(self, n: str, a: Any, x: Any) -> Any:
        return x.flatten(1)


def torch_runs(model: nnc.Model, x: Array, *, compiled: bool) -> dict[str, Run]:
    import torch

    torch.set_num_threads(1)
    given = torch.from_numpy(x)
    last = given.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else given
    plain, near = Torch(model), Torch(model).channels_last()

    def call(run: Callable[[Any], Any], data: Any) -> Any:
        with torch.inference_mode():
            return run(data)

    runs = {"torch": partial(call, plain.walk, given)}
    if x.ndim == 4:
        runs["torch, channels last"] = partial(call, near.walk, last)
    if compiled:
        runs["torch.compile"] = partial(call, compiled_by_torch(plain), given)
    return runs


def compiled_by_torch(layers: Torch) -> Callable[[Any], Any]:
    """The layers as one flat module, compiled with its weights as constants."""
    import torch

    class Whole(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return layers.walk(x)

    flat = torch.fx.symbolic_trace(Whole())
    for name, tensor in list(flat.named_buffers()):
        delattr(flat, name)
        flat.register_parameter(name, torch.nn.Parameter(tensor, requires_grad=False))
    return torch.compile(flat.eval(), options={"freezing": True})


class Onnx(Layers):
    """Nodes of an ONNX graph; values are their names."""

    def __init__(self, model: nnc.Model) -> None:
        super().__init__(model)
        self.nodes: list[Any] = []

    def _node(self, op: str, name: str, *inputs: str, **attributes: Any) -> str:
        from onnx import helper

        self.nodes.append(helper.make_node(op, inputs, [name], **attributes))
        return name

    def conv(self, n: str, a: Any, x: str) -> str:
        given = [w for w in (f"{n}.weight", f"{n}.bias") if w in self.arrays]
        common = {"strides": [a.get("strides", 1)] * 2, "pads": [a.get("padding", 0)] * 4}
        common["group"] = a.get("groups", 1)
        return self._node("Conv", n, x, *given, **common)

    def batch_norm(self, n: str, a: Any, x: str) -> str:
        names = ("scale", "shift", "mean", "variance")
        return self._node("BatchNormalization", n, x, *(f"{n}.{k}" for k in names), epsilon=1e-5)

    def dense(self, n: str, a: Any, x: str) -> str:
        return self._node("Gemm", n, x, f"{n}.weight", f"{n}.bias")

    def max_pool(self, n: str, a: Any, x: str) -> str:
        return self._node("MaxPool", n, x, kernel_shape=[2, 2], strides=[2, 2])

    def global_avg_pool(self, n: str, a: Any, x: str) -> str:
        return self._node("Flatten", n, self._node("GlobalAveragePool", f"{n}.mean", x))

    def relu(self, n: str, a: Any, x: str) -> str:
        return self._node("Relu", n, x)

    def add(self, n: str, a: Any, x: str, y: str) -> str:
        return self._node("Add", n, x, y)

    def flatten(self, n: str, a: Any, x: str) -> str:
        return self._node("Flatten", n, x)


def onnx_runs(model: nnc.Model, x: Array) -> dict[str, Run]:
    from onnx import numpy_helper

    from tests.bench.peer_onnxruntime import bind, session

    layers = Onnx(model)
    last = layers.walk("x")
    layers._node("Identity", "y", last)
    used = {name for node in layers.nodes for name in node.input}
    constants = [numpy_helper.from_array(a, n) for n, a in layers.arrays.items() if n in used]
    run = session(layers.nodes, constants, {"x": x})
    return {
        "onnxruntime": lambda: run.run(["y"], {"x": x})[0],
        "onnxruntime, bound": bind(run, {"x": x}),
    }


def measure(name: str, rows: int, *, compiled: bool, seconds: float) -> None:
    graph, shape = SHAPES[name]()
    x = np.random.default_rng(1).standard_normal((rows, *shape), dtype=np.float32)
    model, runs = ours(graph, x)
    runs |= torch_runs(model, x, compiled=compiled)
    runs |= onnx_runs(model, x)
    expected = np.array(model(x))
    for peer, run in runs.items():
        error = np.abs(np.asarray(run()) - expected).max() / np.abs(expected).max()
        assert error < 1e-4, f"{name}, {peer}: error {error:.1e}"
    times = {n: t.best for n, t in interleave(runs, seconds=seconds).items()}
    print(f"{name}, {rows} rows" if rows > 1 else name)
    least = min(
        t for n, t in times.items() if "bound" not in n and not n.startswith(("live", "fro"))
    )
    for peer, time in times.items():
        base = times["onnxruntime, bound"] if "bound" in peer else least
        print(f"    {peer:24s}{readable(time):>10s}{base / time:8.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="networks whose name contains this")
    parser.add_argument("--rows", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=0.5, help="per way to call")
    parser.add_argument("--compile", action="store_true", help="torch.compile too")
    chosen = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    for name in SHAPES:
        if chosen.only in name:
            measure(name, chosen.rows, compiled=chosen.compile, seconds=chosen.seconds)


if __name__ == "__main__":
    main()
