"""Takes nothing, gives the workloads: sizes, data and first weights that every peer starts from.

Cross-entropy is softmax and the mean negative log-likelihood; mse is the mean over all elements.
Momentum: v = m v + g; p -= lr v. Adam: 0.9, 0.999, 1e-8 outside the root, bias corrected.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Workload:
    """One row of the table.

    mode: "step" (one training step per call), "loop" (`repeat` steps on one batch), "epoch" (all
    batches of the data once), "infer" (one forward call), "product" (sizes = M, K, N).
    """

    name: str
    mode: str
    sizes: tuple[int, ...]
    batch: int = 1
    activation: str = "relu"
    output: str = ""
    loss: str = "ce"
    optimizer: str = "sgd"
    lr: float = 0.1
    repeat: int = 1


XOR: dict[str, Any] = dict(
    sizes=(2, 2, 1), batch=4, activation="tanh", output="sigmoid", loss="mse", lr=0.1
)
DIGITS: dict[str, Any] = dict(sizes=(64, 128, 64, 10), batch=32, optimizer="momentum", lr=0.02)
MNIST: dict[str, Any] = dict(sizes=(784, 512, 256, 10), batch=128)

WORKLOADS = (
    Workload("xor step", "step", **XOR),
    Workload("xor 1000 steps", "loop", repeat=1000, **XOR),
    Workload("digits step", "step", **DIGITS),
    Workload("digits epoch", "epoch", **DIGITS),
    Workload("mnist adam", "step", optimizer="adam", lr=1e-3, **MNIST),
    Workload("mnist sgd", "step", lr=0.05, **MNIST),
    Workload("digits batch 1", "infer", (64, 128, 64, 10)),
    Workload("mnist batch 1", "infer", (784, 512, 256, 10)),
    *(
        Workload(f"product {m}x{k}x{n}", "product", (m, k, n))
        for m, k, n in ((32, 64, 128), (64, 64, 64), (128, 784, 512), (256, 256, 256))
    ),
)


def weights(workload: Workload) -> list[tuple[Array, Array]]:
    """(inputs, units) matrix and bias of every layer."""
    r = np.random.default_rng(1234)
    layers = []
    for inputs, units in zip(workload.sizes, workload.sizes[1:], strict=False):
        bound = 1 / np.sqrt(inputs)
        w, b = r.uniform(-bound, bound, (inputs, units)), r.uniform(-bound, bound, units)
        layers.append((w.astype(np.float32), b.astype(np.float32)))
    return layers


def digits() -> tuple[Array, Array]:
    """The 1437 training rows of scikit-learn's digits, values 0 .. 1, labels int64."""
    from sklearn.datasets import load_digits

    x, t = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(t))[:1437]
    return (x[order] / 16).astype(np.float32), t[order].astype(np.int64)


def batches(workload: Workload) -> list[tuple[Array, Array]]:
    """(x, t) of every batch; of an epoch one pair with all rows; of a product its two operands."""
    r = np.random.default_rng(5)
    if workload.mode == "product":
        m, k, n = workload.sizes
        return [(_normal(r, m, k), _normal(r, k, n))]
    if workload.loss == "mse":
        x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
        return [(x, np.array([[0], [1], [1], [0]], np.float32))]
    if workload.sizes[0] == 64:
        x, t = digits()
    else:  # the digits enlarged to 28 x 28
        x, t = digits()
        x = np.kron(x.reshape(-1, 8, 8), np.ones((1, 3, 3), np.float32))
        x = np.pad(x, ((0, 0), (2, 2), (2, 2))).reshape(-1, 784)
    if workload.mode == "epoch":
        return [(x, t)]
    whole = len(x) // workload.batch * workload.batch
    count = min(8, whole // workload.batch)
    rows = [slice(i * workload.batch, (i + 1) * workload.batch) for i in range(count)]
    return [(np.ascontiguousarray(x[s]), t[s].copy()) for s in rows]


def _normal(r: np.random.Generator, *shape: int) -> Array:
    return r.standard_normal(shape, dtype=np.float32)


def flops(workload: Workload) -> int:
    """Multiplications and additions of the matrix products of one call, three per training step."""
    if workload.mode == "product":
        m, k, n = workload.sizes
        return 2 * m * k * n
    pairs = list(zip(workload.sizes, workload.sizes[1:], strict=False))
    forward = 2 * workload.batch * sum(a * b for a, b in pairs)
    if workload.mode == "infer":
        return forward
    first = 2 * workload.batch * pairs[0][0] * pairs[0][1]  # no gradient for the data
    rows = 1437 / workload.batch if workload.mode == "epoch" else workload.repeat
    return round((3 * forward - first) * rows)
