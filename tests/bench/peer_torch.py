"""Takes a workload, gives it in PyTorch: eager, fused optimizers, one thread."""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle
from typing import Any

import torch
from torch import nn

from tests.bench.workloads import Workload, batches, weights

NAME = "torch"
ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}

torch.set_num_threads(1)


def build(w: Workload) -> dict[str, Callable[[], Any]]:
    data = [tuple(torch.from_numpy(a) for a in pair) for pair in batches(w)]
    if w.mode == "product":
        a, b = data[0]
        return {"": lambda: torch.mm(a, b)}
    model = network(w)
    turns = cycle(data)
    if w.mode == "infer":

        def infer() -> torch.Tensor:
            with torch.inference_mode():
                return model(next(turns)[0])

        return {"": infer}
    step = trainer(w, model)
    if w.mode == "step":
        return {"": lambda: step(*next(turns))}
    x, t = data[0]
    if w.mode == "loop":
        return {"": lambda: [step(x, t) for _ in range(w.repeat)][-1]}
    parts = list(zip(x.split(w.batch), t.split(w.batch), strict=True))
    return {"": lambda: sum(step(*p).detach() * len(p[0]) for p in parts) / len(x)}


def network(w: Workload) -> nn.Module:
    layers: list[nn.Module] = []
    given = weights(w)
    for i, (matrix, bias) in enumerate(given):
        linear = nn.Linear(*matrix.shape)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(matrix).t())
            linear.bias.copy_(torch.from_numpy(bias))
        name = w.activation if i < len(given) - 1 else w.output
        layers += [linear, *([ACTIVATIONS[name]()] if name else [])]
    return nn.Sequential(*layers)


def trainer(w: Workload, model: nn.Module) -> Callable[[Any, Any], Any]:
    loss_of = nn.functional.mse_loss if w.loss == "mse" else nn.functional.cross_entropy
    if w.optimizer == "adam":
        optimizer: Any = torch.optim.Adam(model.parameters(), lr=w.lr, fused=True)
    else:
        momentum = 0.9 if w.optimizer == "momentum" else 0.0
        optimizer = torch.optim.SGD(model.parameters(), lr=w.lr, momentum=momentum, fused=True)

    def step(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        optimizer.zero_grad()
        loss = loss_of(model(x), t)
        loss.backward()
        optimizer.step()
        return loss

    return step
