"""Takes a workload, gives it in tinygrad on the CPU: the whole step under one TinyJit, one thread.

It compiles its kernels with clang: CC names one that is not on the path. They run in a thread of
tinygrad's own, which shares the one core with the caller.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle
from typing import Any

import numpy as np
from tinygrad import Device, Tensor, TinyJit, nn
from tinygrad.helpers import TRAINING

from tests.bench.workloads import Array, Workload, batches, weights

NAME = "tinygrad"

try:
    device = Device[Device.DEFAULT]
except Exception as error:  # no clang, or one that it cannot work with
    raise ImportError(f"its CPU device does not start: {error}") from error
TRAINING.value = 1  # its optimizers ask for it


def build(w: Workload) -> dict[str, Callable[[], Any]]:
    data = [tuple(tensor(a) for a in pair) for pair in batches(w)]
    turns = cycle(data)
    if w.mode == "product":
        product = TinyJit(lambda a, b: (a @ b).realize())
        return {"": lambda: finished(product(*data[0]))}
    layers = [(tensor(m), tensor(b)) for m, b in weights(w)]
    if w.mode == "infer":
        forward = TinyJit(lambda x: predict(w, layers, x).realize())
        return {"": lambda: finished(forward(next(turns)[0]))}
    step = trainer(w, layers)
    run = TinyJit(step)
    if w.mode == "step":
        return {"": lambda: finished(run(*next(turns)))}
    if w.mode == "loop":
        return {"": lambda: finished([run(*data[0]) for _ in range(w.repeat)][-1])}
    return {"": epoch(w, step)}


def tensor(array: Array) -> Tensor:
    array = array.astype(np.int32) if array.dtype == np.int64 else array
    return Tensor(np.ascontiguousarray(array)).realize()


def finished(result: Tensor) -> Tensor:
    device.synchronize()
    return result


def predict(w: Workload, layers: list[tuple[Tensor, Tensor]], x: Tensor) -> Tensor:
    for i, (matrix, bias) in enumerate(layers):
        name = w.activation if i < len(layers) - 1 else w.output
        x = x.linear(matrix, bias)
        x = getattr(x, name)() if name else x
    return x


def trainer(w: Workload, layers: list[tuple[Tensor, Tensor]]) -> Callable[..., Tensor]:
    parameters = [p for pair in layers for p in pair]
    if w.optimizer == "adam":
        optimizer: Any = nn.optim.Adam(parameters, lr=w.lr)
    else:
        momentum = 0.9 if w.optimizer == "momentum" else 0.0
        optimizer = nn.optim.SGD(parameters, lr=w.lr, momentum=momentum)

    def step(x: Tensor, t: Tensor) -> Tensor:
        optimizer.zero_grad()
        y = predict(w, layers, x)
        ce = w.loss == "ce"
        loss = y.sparse_categorical_crossentropy(t) if ce else (y - t).square().mean()
        loss.backward()
        return loss.realize(*optimizer.schedule_step())

    return step


def epoch(w: Workload, step: Callable[..., Tensor]) -> Callable[[], float]:
    """A jit takes one shape, so the short last batch has its own; the mean loss is kept in both."""
    x, t = batches(w)[0]
    rows, cuts = len(x), range(0, len(x), w.batch)
    parts = [(tensor(x[i : i + w.batch]), tensor(t[i : i + w.batch])) for i in cuts]
    total = tensor(np.zeros((), np.float32))

    def counted(x: Tensor, t: Tensor) -> Tensor:
        loss = step(x, t)
        return total.assign(total + loss * (x.shape[0] / rows)).realize()

    whole, last = TinyJit(counted), TinyJit(counted)
    clear = TinyJit(lambda: total.assign(total * 0).realize())

    def call() -> float:
        clear()
        for part in parts[:-1]:
            whole(*part)
        last(*parts[-1])
        return float(total.item())

    return call
