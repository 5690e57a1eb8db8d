"""Takes nothing, gives a table: layers in training against torch's of that name, where it is there.

    python -m tests.bench.crosscheck_torch

Value, gradients by the input and by every parameter, from the same float32 numbers; then a table
after lazy steps against SparseAdam's, and stateful layers against detached states. An error is the
largest difference divided by 1 or the largest number, whichever is larger; above BOUND the program
ends with status 1.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import networkx as nx
import numpy as np
import torch
from torch import nn
from torch.nn.utils import parametrizations

import nncompiler as nnc

BOUND = 1e-5
ROWS = 6


@dataclass(frozen=True)
class Check:
    """Our layer, torch's, and which of torch's parameters ours are (a dot: transposed)."""

    name: str
    shape: tuple[int, ...]
    op: dict[str, Any]
    theirs: Callable[[], Any]
    names: Mapping[str, str]
    low_high: tuple[int, int] | None = None
    states: Mapping[str, str] = field(default_factory=dict)


def plain(*names: str) -> dict[str, str]:
    pairs = (name.partition("=") for name in names)
    return {ours: theirs for ours, _, theirs in pairs}


def checks() -> list[Check]:
    norm = plain("scale=weight", "shift=bias")
    running = plain("mean=running_mean", "variance=running_var")
    both = plain("weight=weight", "bias=bias")
    dense = plain("weight=weight.T", "bias=bias")
    heads = {"op": "attention", "heads": 4}
    conv = {"op": "conv", "filters": 6, "kernel_size": 3}
    up = {"op": "conv_transpose", "filters": 6, "kernel_size": 3, "strides": 2}
    words = {"num_embeddings": 11, "embedding_dim": 5}
    bag = {"op": "embedding_bag", **words}
    image = (4, 8, 10)
    return [
        Check("linear", (7,), {"op": "dense", "units": 5}, lambda: nn.Linear(7, 5), dense),
        Check("batch_norm 1d", (7,), {"op": "batch_norm"}, lambda: nn.BatchNorm1d(7), norm,
              states=running),
        Check("batch_norm 2d", image, {"op": "batch_norm"}, lambda: nn.BatchNorm2d(4), norm,
              states=running),
        Check("batch_norm 3d", (3, 4, 5, 2), {"op": "batch_norm", "momentum": 0.3},
              lambda: nn.BatchNorm3d(3, momentum=0.3), norm, states=running),
        Check("layer_norm", (4, 9), {"op": "layer_norm"}, lambda: nn.LayerNorm(9), norm),
        Check("layer_norm, two axes", (4, 9), {"op": "layer_norm", "axes": (1, 2)},
              lambda: nn.LayerNorm((4, 9)), norm),
        Check("rms_norm", (4, 9), {"op": "rms_norm", "use_bias": False},
              lambda: nn.RMSNorm(9, eps=1e-5), plain("scale=weight")),
        Check("group_norm", (6, 5, 3), {"op": "group_norm", "groups": 3},
              lambda: nn.GroupNorm(3, 6), norm),
        Check("instance_norm", image, {"op": "instance_norm"},
              lambda: nn.InstanceNorm2d(4, affine=True), norm),
        Check("embedding", (4,), {"op": "embedding", **words}, lambda: nn.Embedding(11, 5),
              plain("weight=weight"), (0, 11)),
        *recurrent(),
        Check("embedding_bag mean", (4,), bag, lambda: nn.EmbeddingBag(11, 5),
              plain("weight=weight"), (0, 11)),
        Check("embedding_bag sum", (4,), bag | {"mode": "sum"},
              lambda: nn.EmbeddingBag(11, 5, mode="sum"), plain("weight=weight"), (0, 11)),
        Check("embedding_bag padded", (4,), bag | {"padding_index": 2},
              lambda: nn.EmbeddingBag(11, 5, padding_idx=2), plain("weight=weight"), (0, 11)),
        Check("attention", (5, 8), heads, lambda: Attention(8, 4, causal=False), Attention.names),
        Check("attention, causal", (5, 8), heads | {"causal": True},
              lambda: Attention(8, 4, causal=True), Attention.names),
        Check("weight_norm", (7,), {"op": "dense", "units": 5, "weight_norm": True},
              lambda: parametrizations.weight_norm(nn.Linear(7, 5)),
              {"weight": "parametrizations.weight.original1.T", "bias": "bias",
               "weight_scale": "parametrizations.weight.original0.flat"}),
        Check("spectral_norm", (7,), {"op": "dense", "units": 5, "spectral_norm": True},
              lambda: parametrizations.spectral_norm(nn.Linear(7, 5)),
              {"weight": "parametrizations.weight.original.T", "bias": "bias"},
              states={"v": "parametrizations.weight.0._v"}),
        Check("conv 1d", (4, 9), conv, lambda: nn.Conv1d(4, 6, 3), both),
        Check("conv 2d, strided", image, conv | {"strides": 2, "padding": 1},
              lambda: nn.Conv2d(4, 6, 3, stride=2, padding=1), both),
        Check("conv 2d, dilated groups", image, conv | {"dilation": 2, "groups": 2},
              lambda: nn.Conv2d(4, 6, 3, dilation=2, groups=2), both),
        Check("conv 3d", (2, 4, 5, 6), conv, lambda: nn.Conv3d(2, 6, 3), both),
        Check("conv, spectral_norm", image, conv | {"spectral_norm": True},
              lambda: parametrizations.spectral_norm(nn.Conv2d(4, 6, 3)),
              {"weight": "parametrizations.weight.original", "bias": "bias"},
              states={"v": "parametrizations.weight.0._v"}),
        Check("conv_transpose 2d", image, up, lambda: nn.ConvTranspose2d(4, 6, 3, stride=2), both),
        Check("conv_transpose 2d, padded", image, up | {"padding": 1, "output_padding": 1},
              lambda: nn.ConvTranspose2d(4, 6, 3, 2, padding=1, output_padding=1), both),
        Check("max_pool", image, {"op": "max_pool", "pool_size": 2}, lambda: nn.MaxPool2d(2), {}),
        Check("avg_pool", image, {"op": "avg_pool", "pool_size": 3, "strides": 2},
              lambda: nn.AvgPool2d(3, 2), {}),
        Check("adaptive_avg_pool", image, {"op": "adaptive_avg_pool", "output_size": 3},
              lambda: nn.AdaptiveAvgPool2d(3), {}),
        Check("upsample", image, {"op": "upsample", "scale": 2}, lambda: nn.Upsample(None, 2), {}),
        Check("upsample bilinear", image, {"op": "upsample", "scale": 2, "mode": "bilinear"},
              lambda: nn.Upsample(None, 2, mode="bilinear"), {}),
    ]  # fmt: skip


def recurrent() -> list[Check]:
    """Both directions, the last state or that of every time."""
    found = []
    for op, module in (("rnn", nn.RNN), ("lstm", nn.LSTM), ("gru", nn.GRU)):
        for both in (False, True):
            names = {}
            for suffix in ("", "_reverse") if both else ("",):
                names[f"weight_input{suffix}"] = f"cell.weight_ih_l0{suffix}.T"
                names[f"weight_hidden{suffix}"] = f"cell.weight_hh_l0{suffix}.T"
                names[f"bias{suffix}"] = f"cell.bias_ih_l0{suffix}"
                if op != "rnn":
                    names[f"bias_hidden{suffix}"] = f"cell.bias_hh_l0{suffix}"
            for every in (False, True):
                words = [
                    op,
                    *(["bidirectional"] if both else []),
                    *(["sequences"] if every else []),
                ]
                attributes = {"units": 5, "bidirectional": both, "return_sequences": every}
                cell = partial(_cell, module, both, every, op == "rnn")
                found.append(Check(", ".join(words), (9, 4), {"op": op, **attributes}, cell, names))
    return found


def _cell(module: Any, both: bool, every: bool, one_bias: bool) -> Any:
    return Recurrent(module(4, 5, batch_first=True, bidirectional=both), every, one_bias)


class Recurrent(nn.Module):
    """torch's layer with our result: the last state of every direction, or all of them."""

    def __init__(self, cell: Any, every: bool, one_bias: bool) -> None:
        super().__init__()
        self.cell, self.every = cell, every
        if one_bias:  # torch's RNN has two, of which ours is the sum
            for name, parameter in cell.named_parameters():
                if name.startswith("bias_hh"):
                    nn.init.zeros_(parameter)

    def forward(self, x: Any) -> Any:
        y, last = self.cell(x)
        if self.every:
            return y
        state = last[0] if isinstance(last, tuple) else last
        return state.transpose(0, 1).flatten(1)


class Attention(nn.Module):
    """torch's multi-head attention of a value with itself, its first map in three parts."""

    names: Mapping[str, str] = {
        **{f"{n}.weight": f"{n}.weight.T" for n in ("query", "key", "value", "output")},
        **{f"{n}.bias": f"{n}.bias" for n in ("query", "key", "value", "output")},
    }

    def __init__(self, features: int, heads: int, *, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        for name in ("query", "key", "value", "output"):
            setattr(self, name, nn.Linear(features, features))

    def forward(self, x: Any) -> Any:
        first = [self.query, self.key, self.value]
        mask = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
        y, _ = nn.functional.multi_head_attention_forward(
            *(x.transpose(0, 1),) * 3,
            x.shape[2],
            self.heads,
            torch.cat([m.weight for m in first]),
            torch.cat([m.bias for m in first]),
            None,
            None,
            False,
            0.0,
            self.output.weight,
            self.output.bias,
            attn_mask=mask if self.causal else None,
        )
        return y.transpose(0, 1)


def run(check: Check) -> dict[str, float]:
    """Largest errors of the value, the gradients, and the states after a step."""
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    module = check.theirs().train()
    shape = (ROWS, *check.shape)
    integers = check.low_high is not None
    x = rng.integers(*check.low_high, shape) if check.low_high else rng.normal(size=shape)
    x = x.astype(np.int64 if integers else np.float32)
    model = nnc.compile(_network(check, integers), loss=_weighed, optimizer=nnc.SGD(0.0))
    for ours, theirs in check.names.items():
        model.parameters[f"n.{ours}"] = _read(module, theirs, model.parameters[f"n.{ours}"].shape)
    for ours, theirs in check.states.items():
        model.state[f"n.{ours}"] = _read(module, theirs, model.state[f"n.{ours}"].shape)
    inner = x if integers else x + np.asarray(model.parameters["move"])
    given = torch.tensor(inner, requires_grad=not integers)
    expected = module(given)
    weights = rng.normal(size=expected.shape).astype(np.float32)
    (expected * torch.tensor(weights)).sum().backward()
    errors = {"value": error(model.forward(x, training=True), expected.detach().numpy())}
    _, gradients = model.backward(x, weights)
    if not integers:
        errors["d input"] = error(gradients["move"], given.grad.sum(0).numpy())
    for ours, theirs in check.names.items():
        found = gradients[f"n.{ours}"]
        errors[f"d {ours}"] = error(found, _read(module, theirs, found.shape, gradient=True))
    model.step(x, weights)
    for ours, theirs in check.states.items():
        found = model.state[f"n.{ours}"]
        errors[ours] = error(found, _read(module, theirs, found.shape))
    return errors


def _weighed(y: Any, weights: Any) -> Any:
    return nnc.sum(y * weights)


def _network(check: Check, integers: bool) -> Any:
    """The layer on x + move, so that the gradient by the input is one by a parameter."""
    g: Any = nx.DiGraph()
    g.add_node("x", op="input", shape=("batch", *check.shape), **_dtype(integers))
    g.add_node("n", **check.op)
    if integers:
        g.add_edge("x", "n")
        return g
    g.add_node("move", op="parameter", shape=check.shape, initializer="normal")
    g.add_node("moved", op="add")
    g.add_edges_from([("x", "moved"), ("move", "moved"), ("moved", "n")])
    return g


def _dtype(integers: bool) -> dict[str, str]:
    return {"dtype": "int64"} if integers else {}


def _read(module: Any, path: str, shape: tuple[int, ...], *, gradient: bool = False) -> Any:
    """A parameter, buffer or gradient of torch's in our layout: `.T` transposed, `.flat`."""
    way = path.removesuffix(".T").removesuffix(".flat")
    value: Any = module
    for part in way.split("."):
        value = value[int(part)] if part.isdigit() else getattr(value, part)
    array = (value.grad if gradient else value.detach()).numpy().copy()
    return (array.T if path.endswith(".T") else array).reshape(shape)


def run_lazy(steps: int = 20) -> dict[str, float]:
    """Largest errors of a table and its moments after steps of Adam(lazy=True) and SparseAdam."""
    rng = np.random.default_rng(0)
    module = nn.Embedding(50, 5, sparse=True)
    theirs = torch.optim.SparseAdam(module.parameters(), lr=0.01)
    op = {"op": "embedding", "num_embeddings": 50, "embedding_dim": 5}
    check = Check("lazy", (4,), op, lambda: module, {}, (0, 50))
    model = nnc.compile(_network(check, True), loss=_weighed, optimizer=nnc.Adam(0.01, lazy=True))
    model.parameters["n.weight"] = module.weight.detach().numpy()
    for _ in range(steps):
        x = rng.integers(0, 40, (ROWS, 4))
        weights = rng.normal(size=(ROWS, 4, 5)).astype(np.float32)
        theirs.zero_grad()
        (module(torch.tensor(x)) * torch.tensor(weights)).sum().backward()
        theirs.step()
        model.step(x, weights)
    state = theirs.state[module.weight]
    expected = {"n.weight": module.weight.detach()}
    expected |= {"optimizer.m.n.weight": state["exp_avg"]}
    expected |= {"optimizer.v.n.weight": state["exp_avg_sq"]}
    return {name: error(model.state[name], t.numpy()) for name, t in expected.items()}


def run_carried(check: Check, steps: int = 4) -> dict[str, float]:
    """Largest errors of losses and parameters after steps of SGD over the pieces of one stream, the
    state of every piece detached and handed on to the next."""
    rng = np.random.default_rng(0)
    module = check.theirs()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    stateful = replace(check, op={**check.op, "stateful": ROWS})
    model = nnc.compile(_network(stateful, False), loss=_weighed, optimizer=nnc.SGD(0.1))
    for ours, path in check.names.items():
        name = f"n.{ours}"
        model.parameters[name] = _read(module, path, model.parameters[name].shape)
    carried, errors = None, {"loss": 0.0}
    for _ in range(steps):
        model.parameters["move"] = np.zeros(model.parameters["move"].shape)
        x, weights = rng.normal(size=(ROWS, *check.shape)), rng.normal(size=(ROWS, 5))
        y, carried = module.cell(torch.tensor(x, dtype=torch.float32), carried)
        loss = (y[:, -1] * torch.tensor(weights, dtype=torch.float32)).sum()
        optimizer.zero_grad()
        loss.backward()
        if check.op["op"] == "rnn":  # it has one bias, torch's two
            module.cell.bias_hh_l0.grad.zero_()
        optimizer.step()
        carried = (
            tuple(s.detach() for s in carried) if check.op["op"] == "lstm" else carried.detach()
        )
        found = np.asarray(model.step(x, weights))
        errors["loss"] = max(errors["loss"], error(found, loss.detach().numpy()))
    for ours, path in check.names.items():
        value = model.parameters[f"n.{ours}"]
        errors[ours] = error(value, _read(module, path, value.shape))
    return errors


def error(found: Any, expected: Any) -> float:
    if found.shape != expected.shape:
        return float("inf")
    scale = max(1.0, float(np.abs(expected).max(initial=0.0)))
    return float(np.abs(found - expected).max(initial=0.0)) / scale


def main() -> int:
    worst = 0.0
    tasks = {check.name: partial(run, check) for check in checks()}
    cells = [c for c in recurrent() if c.name in ("rnn", "lstm", "gru")]
    carried = {f"{c.name}, carried": partial(run_carried, c) for c in cells}
    for title, task in {**tasks, "SparseAdam": run_lazy, **carried}.items():
        errors = task()
        worst = max(worst, *errors.values())
        words = ", ".join(f"{name} {value:.0e}" for name, value in errors.items())
        mark = "" if max(errors.values()) <= BOUND else "   <-- above the bound"
        print(f"{title:26s} {words}{mark}")
    print(f"largest error {worst:.1e}, bound {BOUND:.0e}")
    return int(worst > BOUND)


if __name__ == "__main__":
    sys.exit(main())
