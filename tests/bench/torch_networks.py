"""Takes nothing, gives checks of recurrent layers, of stacks of them, of a transformer's blocks."""

from __future__ import annotations

from functools import partial
from typing import Any

import networkx as nx
import torch
from torch import nn

from tests.bench.torch_checks import Check, Operand, plain
from tests.bench.torch_modules import Decoder, Encoder, Lambda, Recurrent


def recurrent() -> list[Check]:
    """One or both directions, the last state or that of every time, rows of different length."""
    found = []
    for op, module in (("rnn", nn.RNN), ("lstm", nn.LSTM), ("gru", nn.GRU)):
        for both in (False, True):
            names = _cells(op, "", 0, both)
            for every in (False, True):
                for masked in (False, True):
                    words = [op]
                    words += ["bidirectional"] * both + ["sequences"] * every + ["mask"] * masked
                    attributes = {"units": 5, "bidirectional": both, "return_sequences": every}
                    cell = partial(_cell, module, both, every, op == "rnn")
                    more = {"mask": Operand((9,), mask="lengths")} if masked else {}
                    layer = {"op": op, **attributes}
                    check = Check(", ".join(words), (9, 4), layer, cell, names, more=more)
                    found.append(check)
    relu = partial(_cell, partial(nn.RNN, nonlinearity="relu"), False, False, True)
    layer = {"op": "rnn", "units": 5, "activation": "relu"}
    return [*found, Check("rnn, relu", (9, 4), layer, relu, _cells("rnn", "", 0, False))]


def _cells(op: str, prefix: str, number: int, both: bool) -> dict[str, str]:
    """The names of one layer of torch's cell `number` deep."""
    names = {}
    for suffix in ("", "_reverse") if both else ("",):
        end = f"l{number}{suffix}"
        names[f"{prefix}weight_input{suffix}"] = f"cell.weight_ih_{end}.T"
        names[f"{prefix}weight_hidden{suffix}"] = f"cell.weight_hh_{end}.T"
        names[f"{prefix}bias{suffix}"] = f"cell.bias_ih_{end}"
        if op != "rnn":
            names[f"{prefix}bias_hidden{suffix}"] = f"cell.bias_hh_{end}"
    return names


def _cell(module: Any, both: bool, every: bool, one_bias: bool, layers: int = 1) -> Any:
    cell = module(4, 5, num_layers=layers, batch_first=True, bidirectional=both)
    return Recurrent(cell, every, one_bias)


def networks() -> list[Check]:
    """Layers upon layers: stacked cells, the blocks of transformers, one layer used twice."""
    cells = {}
    for op, module in (("lstm", nn.LSTM), ("gru", nn.GRU)):
        names = {**_cells(op, "first.", 0, True), **_cells(op, "second.", 1, True)}
        cells[op] = (partial(_stacked, op), partial(_cell, module, True, False, False, 2), names)
    mask = {"mask": Operand((9,), mask="lengths")}
    norms = _attention_names("block.self_attn", "look")
    norms |= plain("norm1.scale=block.norm1.weight", "norm1.shift=block.norm1.bias")
    norms |= plain("norm2.scale=block.norm2.weight", "norm2.shift=block.norm2.bias")
    wide = plain("wide.weight=block.linear1.weight.T", "wide.bias=block.linear1.bias")
    wide |= plain("narrow.weight=block.linear2.weight.T", "narrow.bias=block.linear2.bias")
    memory = _attention_names("block.multihead_attn", "recall")
    memory |= plain("norm3.scale=block.norm3.weight", "norm3.shift=block.norm3.bias")
    twice = Lambda(lambda m, x: m(torch.tanh(m(x))), nn.Linear(7, 7))
    shared = plain("both.weight=inner.weight.T", "both.bias=inner.bias")
    return [
        *(
            Check(f"{op}, bidirectional, stacked{', mask' if more else ''}", (9, 4), *parts,
                  more=more)
            for op, parts in cells.items() for more in ({}, mask)
        ),
        Check("shared dense", (7,), _twice, lambda: twice, shared),
        Check("encoder block, norm first", (5, 8), partial(_encoder, first=True),
              partial(Encoder, 8, 4, 12, norm_first=True), norms | wide),
        Check("encoder block", (5, 8), partial(_encoder, first=False),
              partial(Encoder, 8, 4, 12, norm_first=False), norms | wide),
        Check("decoder block", (5, 8), _decoder, partial(Decoder, 8, 4, 12),
              norms | wide | memory, more={"memory": Operand((7, 8))}),
    ]  # fmt: skip


def _attention_names(path: str, node: str) -> dict[str, str]:
    names = {f"{node}.output.{p}": f"{path}.out_proj.{p}" for p in ("weight", "bias")}
    names[f"{node}.output.weight"] += ".T"
    for i, part in enumerate(("query", "key", "value")):
        names[f"{node}.{part}.weight"] = f"{path}.in_proj_weight.third{i}.T"
        names[f"{node}.{part}.bias"] = f"{path}.in_proj_bias.third{i}"
    return names


def _stacked(op: str, g: Any, x: str, mask: str | None = None) -> None:
    for name, every in (("first", True), ("second", False)):
        g.add_node(name, op=op, units=5, bidirectional=True, return_sequences=every)
        if mask is not None:
            g.add_edge(mask, name, slot="mask")
    g.add_edge(x, "first", slot="x")
    g.add_edge("first", "second", slot="x")


def _twice(g: Any, x: str) -> None:
    for name, activation in (("once", "tanh"), ("again", None)):
        g.add_node(name, op="dense", units=7, activation=activation, share="both")
    nx.add_path(g, [x, "once", "again"])


def _encoder(g: Any, x: str, *, first: bool) -> None:
    path: list[tuple[str, dict[str, Any]]] = [
        ("look", {"op": "attention", "heads": 4}),
        ("wide", {"op": "dense", "units": 12, "activation": "gelu"}),
        ("narrow", {"op": "dense", "units": 8}),
    ]
    middle = _around(g, x, path[:1], "norm1", first=first)
    _around(g, middle, path[1:], "norm2", first=first)


def _decoder(g: Any, x: str, memory: str) -> None:
    look = _around(g, x, [("look", {"op": "attention", "heads": 4, "causal": True})], "norm1")
    recall = _around(g, look, [("recall", {"op": "attention", "heads": 4})], "norm2")
    g.edges[look, "recall"]["slot"] = "query"
    g.add_edge(memory, "recall", slot="key")
    wide = ("wide", {"op": "dense", "units": 12, "activation": "relu"})
    _around(g, recall, [wide, ("narrow", {"op": "dense", "units": 8})], "norm3")


def _around(g: Any, x: str, layers: list[Any], norm: str, *, first: bool = False) -> str:
    """norm(x + layers(x)), or x + layers(norm(x))."""
    total = f"{norm} total"
    g.add_nodes_from([*layers, (norm, {"op": "layer_norm"}), (total, {"op": "add"})])
    names = [name for name, _ in layers]
    nx.add_path(g, [x, norm, *names, total] if first else [x, *names, total, norm])
    g.add_edge(x, total)
    return total if first else norm
