"""nncompiler for the shared harness that compares what users would otherwise pick.

    BENCH_ADAPTERS=tests/bench/adapter python ../shared/bench/peers.py --workloads xor,digits_mlp \
        --peers nncompiler,torch,jax --threads 1

Variants: "call" hands the arrays over at every step, "bound" runs on fixed buffers.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from session import Session  # the harness's

if importlib.util.find_spec("nncompiler") is None:  # not installed: from this repository
    sys.path.append(str(Path(__file__).resolve().parents[3]))

IMAGES = ("lenet", "deconv_ae")
TEXTS = ("transformer", "embed_bag")
NAME, IMPORTS = "nncompiler", ["nncompiler"]


def env(threads: int, variant: str) -> dict[str, str]:
    return {"FRESH_DIRS": "NNC_CACHE_DIR", "NNC_NUM_THREADS": str(threads)}


def variants(wl: Any) -> list[str]:
    if wl.family == "resnet" or (wl.family in (*IMAGES, *TEXTS, "rnn") and wl.kind == "train"):
        return ["call", "bound"]
    if wl.family == "mlp" and wl.kind == "train":
        native = wl.cfg.get("loop") or wl.cfg.get("epoch")
        return ["native"] if native else ["call", "bound"]
    if wl.family == "neat" or (wl.family == "mlp" and not wl.numpy_io):
        return ["call", "bound"]
    return ["call"] if wl.family in ("mlp", "adam_10m", "fused_elem") else []


def load(variant: str, threads: int) -> None:
    global np, nx, nnc
    import networkx as nx
    import numpy as np

    import nncompiler as nnc


def versions() -> dict[str, str]:
    import llvmlite

    return {"nncompiler": nnc.__version__, "llvmlite": llvmlite.__version__}


def build(wl: Any, data: Any, variant: str, threads: int) -> Session:
    options = nnc.Options(threads=threads)
    if wl.kind == "optim":
        return build_update(wl, data, options)
    if wl.family == "fused_elem":
        return build_elementwise(data)
    if wl.family == "neat":
        return inference(nnc.compile(neurons(data.extra["graph"]), options=options), data, variant)
    if wl.family in IMAGES:
        return build_images(wl, data, variant, options)
    if wl.family == "resnet":
        return build_residual(wl, data, variant, options)
    if wl.family in TEXTS:
        return build_text(wl, data, variant, options)
    if wl.family == "rnn":
        return build_recurrent(wl, data, variant, options)
    return build_mlp(wl, data, variant, options)


def optimizer(wl: Any) -> Any:
    return nnc.Adam(wl.lr) if wl.opt == "adam" else nnc.SGD(wl.lr, momentum=wl.momentum)


# ------------------------------------------------------------------ multi-layer perceptrons


def build_mlp(wl: Any, data: Any, variant: str, options: Any) -> Session:
    training = wl.kind == "train"
    model = nnc.compile(
        mlp_graph(wl.cfg),
        loss={"ce": "cross_entropy", "mse": "mse"}[wl.loss] if training else None,
        optimizer=optimizer(wl) if training else None,
        options=options,
    )
    for i in range(len(wl.cfg["sizes"]) - 1):
        model.parameters[f"layer{i}.weight"][...] = data.params[f"w{i}"]
        model.parameters[f"layer{i}.bias"][...] = data.params[f"b{i}"]
    if training:
        return Session(train_step(wl, data, variant, model), loss=float)
    return inference(model, data, variant)


def inference(model: Any, data: Any, variant: str) -> Session:
    inputs, count = [x for (x,) in data.batches], len(data.batches)
    if variant == "bound":
        bound = [model.bind(x) for x in inputs]
        return Session(lambda i: bound[i % count](), output=lambda y: y)
    return Session(lambda i: model(inputs[i % count]), output=lambda y: y)


def mlp_graph(cfg: dict[str, Any]) -> Any:
    g = nx.DiGraph()
    g.add_node("x", op="input", shape=("batch", cfg["sizes"][0]))
    layers = list(pairwise(cfg["sizes"]))
    for i, (_, units) in enumerate(layers):
        activation = cfg["act"] if i < len(layers) - 1 else cfg["out"]
        g.add_node(f"layer{i}", op="dense", units=units, activation=activation or None)
    nx.add_path(g, ["x", *(f"layer{i}" for i in range(len(layers)))])
    return g


def train_step(wl: Any, data: Any, variant: str, model: Any) -> Callable[[int], Any]:
    batches, count = data.batches, len(data.batches)
    if wl.cfg.get("loop"):
        native = model.bind(*batches[0])
        return lambda i: native.run(wl.cfg["loop"])
    if wl.cfg.get("epoch"):
        x, t = batches[0]
        fit = dict(epochs=1, batch_size=wl.batch, shuffle=False, verbose=0)
        return lambda i: model.fit(x, t, **fit).history["loss"][-1]
    if variant == "bound":
        bound = [model.bind(*batch) for batch in batches]
        return lambda i: bound[i % count]()
    return lambda i: model.step(*batches[i % count])


# ------------------------------------------------------------------ networks of convolutions


def build_images(wl: Any, data: Any, variant: str, options: Any) -> Session:
    layers = lenet_layers() if wl.family == "lenet" else autoencoder_layers()
    g = nx.DiGraph()
    g.add_node("x", op="input", shape=("batch", *data.batches[0][0].shape[1:]))
    for name, attributes in layers.items():
        g.add_node(name, **attributes)
    nx.add_path(g, ["x", *layers])
    losses = {"ce": "cross_entropy", "mse": "mse"}
    model = nnc.compile(g, loss=losses[wl.loss], optimizer=optimizer(wl), options=options)
    for name in model.parameters:
        layer, _, suffix = name.partition(".")
        key = suffix[0] + layer if layer.isdigit() else layer + suffix[0]
        model.parameters[name][...] = data.params[key]
    return Session(train_step(wl, data, variant, model), loss=float)


def lenet_layers() -> dict[str, dict[str, Any]]:
    conv = {"op": "conv", "kernel_size": 5, "activation": "relu"}
    dense = {"op": "dense", "activation": "relu"}
    return {
        "c0": {**conv, "filters": 6, "padding": 2},
        "pool0": {"op": "max_pool", "pool_size": 2},
        "c1": {**conv, "filters": 16},
        "pool1": {"op": "max_pool", "pool_size": 2},
        "flat": {"op": "flatten"},
        "0": {**dense, "units": 120},
        "1": {**dense, "units": 84},
        "2": {"op": "dense", "units": 10},
    }


def autoencoder_layers() -> dict[str, dict[str, Any]]:
    down = {"op": "conv", "kernel_size": 3, "strides": 2, "padding": 1, "activation": "relu"}
    up = {"op": "conv_transpose", "kernel_size": 4, "strides": 2, "padding": 1}
    return {
        "c0": {**down, "filters": 16},
        "c1": {**down, "filters": 32},
        "d0": {**up, "filters": 16, "activation": "relu"},
        "d1": {**up, "filters": 1, "activation": "sigmoid"},
    }


# ------------------------------------------------------------------ residual networks


def build_residual(wl: Any, data: Any, variant: str, options: Any) -> Session:
    training = wl.kind == "train"
    model = nnc.compile(
        residual_graph(wl.cfg, data.batches[0][0].shape[1:]),
        loss="cross_entropy" if training else None,
        optimizer=optimizer(wl) if training else None,
        options=options,
    )
    norm = {"g": "scale", "b": "shift", "m": "mean", "v": "variance"}
    for name, value in data.params.items():
        layer, _, key = name.rpartition(".")
        is_plain = key == "w" or layer == "fc"
        suffix = {"w": "weight", "b": "bias"}[key] if is_plain else f"norm.{norm[key]}"
        model.state[f"{layer}.{suffix}"] = value
    if training:
        return Session(train_step(wl, data, variant, model), loss=float)
    return inference(model, data, variant)


def residual_graph(cfg: dict[str, Any], shape: tuple[int, ...]) -> Any:
    """ResNet (He et al. 2015): every convolution without a bias, followed by a batch norm."""
    import workloads

    convolutions = {name: rest for name, *rest in workloads.resnet_convs(cfg)}
    g = nx.DiGraph()
    g.add_node("x", op="input", shape=("batch", *shape))

    def normed(name: str, source: str, activation: str | None = None) -> str:
        filters, _, size, stride, pad = convolutions[name]
        taken = dict(filters=filters, kernel_size=size, strides=stride, padding=pad)
        g.add_node(name, op="conv", use_bias=False, **taken)
        g.add_node(f"{name}.norm", op="batch_norm", activation=activation)
        nx.add_path(g, [source, name, f"{name}.norm"])
        return f"{name}.norm"

    last = normed("stem", "x", "relu")
    if cfg["stem"][5]:
        g.add_node("pool", op="max_pool", pool_size=3, strides=2, padding=1)
        g.add_edge(last, "pool")
        last = "pool"
    for block, _, has_shortcut in workloads.resnet_blocks(cfg):
        inner = normed(f"{block}c2", normed(f"{block}c1", last, "relu"))
        shortcut = normed(f"{block}sc", last) if has_shortcut else last
        last = f"{block}.relu"
        g.add_node(block, op="add")
        g.add_node(last, op="relu")
        g.add_edges_from([(inner, block), (shortcut, block), (block, last)])
    g.add_node("mean", op="global_avg_pool")
    g.add_node("fc", op="dense", units=cfg["classes"])
    nx.add_path(g, [last, "mean", "fc"])
    return g


# ------------------------------------------------------------------ networks of words


def build_text(wl: Any, data: Any, variant: str, options: Any) -> Session:
    g = encoder(wl.cfg) if wl.family == "transformer" else bag_of_words(wl.cfg)
    model = nnc.compile(g, loss="cross_entropy", optimizer=optimizer(wl), options=options)
    given = encoder_parameters(data.params) if wl.family == "transformer" else data.params
    for name in model.parameters:
        layer, _, suffix = name.rpartition(".")
        key = name if name in given else "emb" if layer == "emb" else suffix[0] + layer
        model.parameters[name][...] = given[key]
    return Session(train_step(wl, data, variant, model), loss=float)


def bag_of_words(cfg: dict[str, Any]) -> Any:
    g = nx.DiGraph()
    g.add_node("x", op="input", shape=("batch", cfg["T"]), dtype="int64")
    size = dict(num_embeddings=cfg["vocab"], embedding_dim=cfg["d"])
    g.add_node("emb", op="embedding_bag", **size)
    g.add_node("0", op="dense", units=cfg["hidden"], activation="relu")
    g.add_node("1", op="dense", units=2)
    nx.add_path(g, ["x", "emb", "0", "1"])
    return g


def encoder(cfg: dict[str, Any]) -> Any:
    """One encoder block (norms first), the mean over time, and a dense layer."""
    g = nx.DiGraph()
    g.add_node("x", op="input", shape=("batch", cfg["T"], cfg["d"]))
    g.add_node("ln1", op="layer_norm")
    g.add_node("attend", op="attention", heads=cfg["heads"])
    g.add_node("sum1", op="add")
    g.add_node("ln2", op="layer_norm")
    g.add_node("1", op="dense", units=cfg["ff"], activation=("gelu", {"approximate": "tanh"}))
    g.add_node("2", op="dense", units=cfg["d"])
    g.add_node("sum2", op="add")
    g.add_node("mean", op="mean", axis=1)
    g.add_node("0", op="dense", units=cfg["classes"])
    nx.add_path(g, ["x", "ln1", "attend", "sum1", "ln2", "1", "2", "sum2", "mean", "0"])
    g.add_edges_from([("x", "sum1"), ("sum1", "sum2")])
    return g


def encoder_parameters(p: dict[str, Any]) -> dict[str, Any]:
    """The harness's arrays under our names; its three first maps of attention are one array."""
    found = {f"{n}.{ours}": p[n + theirs] for n in ("ln1", "ln2") for ours, theirs in SCALES}
    found |= {"attend.output.weight": p["wo"], "attend.output.bias": p["bo"]}
    for name, weight, bias in zip(
        ("query", "key", "value"),
        np.split(p["wqkv"], 3, axis=1),
        np.split(p["bqkv"], 3),
        strict=True,
    ):
        found |= {f"attend.{name}.weight": weight, f"attend.{name}.bias": bias}
    return p | found


SCALES = (("scale", "g"), ("shift", "b"))


# ------------------------------------------------------------------ recurrent networks


def build_recurrent(wl: Any, data: Any, variant: str, options: Any) -> Session:
    """The harness has (time, batch, features), we (batch, time, features)."""
    cfg = wl.cfg
    g = nx.DiGraph()
    g.add_node("x", op="input", shape=("batch", cfg["T"], cfg["inp"]))
    g.add_node("cell", op=cfg["cell"], units=cfg["hidden"])
    g.add_node("head", op="dense", units=cfg["classes"])
    nx.add_path(g, ["x", "cell", "head"])
    model = nnc.compile(g, loss="cross_entropy", optimizer=optimizer(wl), options=options)
    names = {"weight_input": "w_ih", "weight_hidden": "w_hh", "bias": "b_ih", "bias_hidden": "b_hh"}
    for ours, theirs in names.items():
        model.parameters[f"cell.{ours}"][...] = data.params[theirs]
    model.parameters["head.weight"][...] = data.params["w0"]
    model.parameters["head.bias"][...] = data.params["b0"]
    batches = [(np.ascontiguousarray(np.swapaxes(x, 0, 1)), t) for x, t in data.batches]
    turned = type(data)(data.params, batches, data.extra)
    return Session(train_step(wl, turned, variant, model), loss=float)


# ------------------------------------------------------------------ graphs of neurons


def neurons(net: dict[str, Any]) -> Any:
    """A graph of single neurons with their weights."""
    inputs = list(range(net["n_in"]))
    g = nx.DiGraph(inputs=inputs, outputs=net["outputs"])
    g.add_nodes_from(inputs)
    for node in net["nodes"]:
        activation = "gaussian" if node["act"] == "gauss" else node["act"]
        g.add_node(node["id"], activation=activation, bias=node["bias"])
        g.add_weighted_edges_from((i, node["id"], w) for i, w in node["links"])
    return g


# ------------------------------------------------------------------ the other families


def build_update(wl: Any, data: Any, options: Any) -> Session:
    """The optimizer alone, on given gradients."""
    g = nx.DiGraph()
    for name, value in data.params.items():
        g.add_node(name, op="parameter", shape=value.shape)
        g.add_edge(name, f"{name} used", slot=0)  # a graph has no loose ends
        g.nodes[f"{name} used"]["op"] = "neg"
    model = nnc.compile(g, optimizer=optimizer(wl), options=options)
    for name, value in data.params.items():
        model.parameters[name][...] = value
    gradients = dict(zip(data.params, data.batches[0], strict=True))

    def flat(_: Any) -> Any:
        return np.concatenate([np.ravel(model.parameters[name]) for name in data.params])

    return Session(lambda i: model.update(gradients), output=flat)


def build_elementwise(data: Any) -> Session:
    """layer_norm(gelu(x * w + b) + res), gelu by tanh."""

    def fused(x: Any, res: Any, w: Any, b: Any, g: Any, beta: Any) -> Any:
        y = x * w + b
        y = 0.5 * y * (1 + nnc.tanh(0.7978845608028654 * (y + 0.044715 * y * y * y))) + res
        y = y - nnc.mean(y, axis=-1, keepdims=True)
        scale = 1 / nnc.sqrt(nnc.mean(y * y, axis=-1, keepdims=True) + 1e-5)
        return y * scale * g + beta

    call = nnc.jit(fused)
    x, res = data.batches[0]
    p = [data.params[k] for k in ("w", "b", "g", "beta")]
    return Session(lambda i: call(x, res, *p), output=lambda y: y)
