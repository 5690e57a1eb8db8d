"""Takes a workload, gives it written in NumPy by hand, as a careful user would."""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle
from typing import Any

import numpy as np

from tests.bench.workloads import Array, Workload, batches, weights

NAME = "numpy"


def build(w: Workload) -> dict[str, Callable[[], Any]]:
    data = batches(w)
    if w.mode == "product":
        a, b = data[0]
        return {"": lambda: a @ b}
    layers = [(m.copy(), b.copy()) for m, b in weights(w)]
    turns = cycle(data)
    if w.mode == "infer":
        return {"": lambda: forward(w, layers, next(turns)[0])[-1]}
    step = trainer(w, layers)
    if w.mode == "step":
        return {"": lambda: step(*next(turns))}
    x, t = data[0]
    if w.mode == "loop":
        return {"": lambda: [step(x, t) for _ in range(w.repeat)][-1]}
    cuts = range(0, len(x), w.batch)
    parts = [(x[i : i + w.batch], t[i : i + w.batch]) for i in cuts]
    return {"": lambda: sum(step(*p) * len(p[0]) for p in parts) / len(x)}


def forward(w: Workload, layers: list[tuple[Array, Array]], x: Array) -> list[Array]:
    """The input and the output of every layer."""
    values = [x]
    for i, (matrix, bias) in enumerate(layers):
        z = values[-1] @ matrix
        z += bias
        values.append(activate(w.activation if i < len(layers) - 1 else w.output, z))
    return values


def activate(name: str, z: Array) -> Array:
    match name:
        case "relu":
            return np.maximum(z, 0, out=z)
        case "tanh":
            return np.tanh(z, out=z)
        case "sigmoid":
            return 1 / (1 + np.exp(-z))
    return z


def slope(name: str, y: Array) -> Array | float:
    """The activation's derivative, from its output."""
    match name:
        case "relu":
            return y > 0
        case "tanh":
            return 1 - y * y
        case "sigmoid":
            return y * (1 - y)
    return 1.0


def loss_and_gradient(w: Workload, y: Array, t: Array) -> tuple[float, Array]:
    if w.loss == "mse":
        error = y - t
        return float((error * error).mean()), error * np.float32(2 / error.size)
    z = y - y.max(1, keepdims=True)
    e = np.exp(z)
    total = e.sum(1, keepdims=True)
    rows = np.arange(len(t))
    loss = float((np.log(total[:, 0]) - z[rows, t]).mean())
    e /= total
    e[rows, t] -= 1
    e *= np.float32(1 / len(t))
    return loss, e


def trainer(w: Workload, layers: list[tuple[Array, Array]]) -> Callable[[Array, Array], float]:
    update = optimizer(w, [p for pair in layers for p in pair])

    def step(x: Array, t: Array) -> float:
        values = forward(w, layers, x)
        loss, g = loss_and_gradient(w, values[-1], t)
        gradients: list[Array] = []
        for i in reversed(range(len(layers))):
            name = w.activation if i < len(layers) - 1 else w.output
            g = g * slope(name, values[i + 1]) if name else g
            gradients[:0] = [values[i].T @ g, g.sum(0)]
            if i:
                g = g @ layers[i][0].T
        update(gradients)
        return loss

    return step


def optimizer(w: Workload, parameters: list[Array]) -> Callable[[list[Array]], None]:
    """The update, in place; the gradients may be overwritten."""
    lr, f = np.float32(w.lr), np.float32
    first = [np.zeros_like(p) for p in parameters]
    second = [np.zeros_like(p) for p in parameters]
    finished = 0

    def sgd(gradients: list[Array]) -> None:
        for p, g in zip(parameters, gradients, strict=True):
            g *= lr
            p -= g

    def momentum(gradients: list[Array]) -> None:
        for p, g, m in zip(parameters, gradients, first, strict=True):
            m *= f(0.9)
            m += g
            p -= lr * m

    def adam(gradients: list[Array]) -> None:
        nonlocal finished
        finished += 1
        rate = f(w.lr / (1 - 0.9**finished))
        scale = f((1 - 0.999**finished) ** -0.5)
        for p, g, m, v in zip(parameters, gradients, first, second, strict=True):
            m *= f(0.9)
            m += f(0.1) * g
            g *= g
            g *= f(0.001)
            v *= f(0.999)
            v += g
            np.sqrt(v, out=g)
            g *= scale
            g += f(1e-8)
            np.divide(m, g, out=g)
            g *= rate
            p -= g

    return {"sgd": sgd, "momentum": momentum, "adam": adam}[w.optimizer]
