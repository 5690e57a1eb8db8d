"""Takes nothing, gives the table of our layers, in every mode, and torch's that they are."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn
from torch.nn import functional as f
from torch.nn.utils import parametrizations

from tests.bench.torch_checks import Check, Operand, plain
from tests.bench.torch_modules import Attention, Lambda

BOTH = plain("weight", "bias")
NORM = plain("scale=weight", "shift=bias")
IMAGE = (4, 8, 10)
ACTIVATIONS = (
    "relu", "elu", "selu", "gelu", "silu", "softplus", "softsign", "mish", "sigmoid", "tanh",
)  # fmt: skip


def layers() -> list[Check]:
    return [
        *basic(),
        *norms(),
        *convolutions(),
        *transposed(),
        *divided(),
        *pools(),
        *tables(),
        *attentions(),
    ]


def basic() -> list[Check]:
    dense = {"op": "dense", "units": 5}
    names = plain("weight=weight.T", "bias")
    found = [
        Check("linear", (7,), dense, lambda: nn.Linear(7, 5), names),
        Check("linear over time", (3, 7), dense, lambda: nn.Linear(7, 5), names),
    ]
    theirs: dict[str, tuple[Any, Any]] = {name: (name, getattr(f, name)) for name in ACTIVATIONS}
    theirs |= {
        "gelu, tanh": (("gelu", {"approximate": "tanh"}), partial(f.gelu, approximate="tanh")),
        "leaky_relu": ("leaky_relu", f.leaky_relu),
        "hard_sigmoid": ("hard_sigmoid", f.hardsigmoid),
        "hard_tanh": ("hard_tanh", f.hardtanh),
        "softmax": ("softmax", partial(f.softmax, dim=-1)),
        "log_softmax": ("log_softmax", partial(f.log_softmax, dim=-1)),
        "softmax of channels": (("softmax", {"axis": 1}), partial(f.softmax, dim=1)),
    }
    found += [
        Check(name, (4, 9), {"op": "activation", "function": ours}, partial(Lambda, function), {})
        for name, (ours, function) in theirs.items()
    ]
    return found


def norms() -> list[Check]:
    running = plain("mean=running_mean", "variance=running_var")
    return [
        Check("batch_norm 1d", (7,), {"op": "batch_norm"}, lambda: nn.BatchNorm1d(7), NORM,
              states=running),
        Check("batch_norm 2d", IMAGE, {"op": "batch_norm"}, lambda: nn.BatchNorm2d(4), NORM,
              states=running),
        Check("batch_norm 3d", (3, 4, 5, 2), {"op": "batch_norm", "momentum": 0.3},
              lambda: nn.BatchNorm3d(3, momentum=0.3), NORM, states=running),
        Check("layer_norm", (4, 9), {"op": "layer_norm"}, lambda: nn.LayerNorm(9), NORM),
        Check("layer_norm, two axes", (4, 9), {"op": "layer_norm", "axes": (1, 2)},
              lambda: nn.LayerNorm((4, 9)), NORM),
        Check("rms_norm", (4, 9), {"op": "rms_norm", "use_bias": False},
              lambda: nn.RMSNorm(9, eps=1e-5), plain("scale=weight")),
        Check("group_norm", (6, 5, 3), {"op": "group_norm", "groups": 3},
              lambda: nn.GroupNorm(3, 6), NORM),
        Check("instance_norm 1d", (4, 9), {"op": "instance_norm"},
              lambda: nn.InstanceNorm1d(4, affine=True), NORM),
        Check("instance_norm", IMAGE, {"op": "instance_norm"},
              lambda: nn.InstanceNorm2d(4, affine=True), NORM),
    ]  # fmt: skip


def convolutions() -> list[Check]:
    conv = {"op": "conv", "filters": 6, "kernel_size": 3}
    found: list[tuple[str, tuple[int, ...], dict[str, Any], Any]] = [
        ("1d", (4, 9), {}, nn.Conv1d(4, 6, 3)),
        ("1d, strided dilated groups", (4, 19), {"strides": 3, "dilation": 2, "groups": 2},
         nn.Conv1d(4, 6, 3, 3, dilation=2, groups=2)),
        ("1d, same", (4, 9), {"kernel_size": 4, "padding": "same", "dilation": 2},
         nn.Conv1d(4, 6, 4, padding="same", dilation=2)),
        ("2d, strided", IMAGE, {"strides": 2, "padding": 1}, nn.Conv2d(4, 6, 3, 2, 1)),
        ("2d, stride over kernel", IMAGE, {"kernel_size": 2, "strides": 3},
         nn.Conv2d(4, 6, 2, 3)),
        ("2d, pads over kernel", IMAGE, {"kernel_size": 2, "padding": 4},
         nn.Conv2d(4, 6, 2, padding=4)),
        ("2d, dilated groups", IMAGE, {"dilation": 2, "groups": 2},
         nn.Conv2d(4, 6, 3, dilation=2, groups=2)),
        ("2d, uneven", IMAGE, {"kernel_size": (3, 5), "strides": (1, 2), "padding": (2, 0)},
         nn.Conv2d(4, 6, (3, 5), (1, 2), (2, 0))),
        ("2d, depthwise", IMAGE, {"filters": 8, "groups": 4, "padding": 1},
         nn.Conv2d(4, 8, 3, padding=1, groups=4)),
        ("2d, pointwise", IMAGE, {"kernel_size": 1, "strides": 2}, nn.Conv2d(4, 6, 1, 2)),
        ("2d, no bias", IMAGE, {"use_bias": False}, nn.Conv2d(4, 6, 3, bias=False)),
        ("3d", (2, 4, 5, 6), {}, nn.Conv3d(2, 6, 3)),
        ("3d, strided same groups", (2, 4, 5, 6), {"strides": 2, "padding": 1, "groups": 2},
         nn.Conv3d(2, 6, 3, 2, 1, groups=2)),
    ]  # fmt: skip
    checks = [
        Check(f"conv {name}", shape, conv | more, lambda m=module: m, _kept(module))
        for name, shape, more, module in found
    ]
    mirrored = plain("weight=weight.mirrored", "bias")
    true = conv | {"mode": "convolution"}
    return [
        *checks,
        Check("conv 2d, mirrored", IMAGE, true, lambda: nn.Conv2d(4, 6, 3), mirrored),
        Check("conv_transpose 2d, mirrored", IMAGE, true | {"op": "conv_transpose"},
              lambda: nn.ConvTranspose2d(4, 6, 3), mirrored),
    ]  # fmt: skip


def _kept(module: Any) -> dict[str, str]:
    return BOTH if module.bias is not None else plain("weight")


def transposed() -> list[Check]:
    up = {"op": "conv_transpose", "filters": 6, "kernel_size": 3, "strides": 2}
    found: list[tuple[str, tuple[int, ...], dict[str, Any], Any]] = [
        ("1d", (4, 9), {}, nn.ConvTranspose1d(4, 6, 3, 2)),
        ("1d, dilated groups, padded", (4, 9),
         {"padding": 1, "output_padding": 2, "dilation": 3, "groups": 2, "kernel_size": 4},
         nn.ConvTranspose1d(4, 6, 4, 2, 1, 2, 2, dilation=3)),
        ("2d", IMAGE, {}, nn.ConvTranspose2d(4, 6, 3, 2)),
        ("2d, padded", IMAGE, {"padding": 1, "output_padding": 1},
         nn.ConvTranspose2d(4, 6, 3, 2, padding=1, output_padding=1)),
        ("2d, groups", IMAGE, {"groups": 2, "strides": 1, "padding": 2},
         nn.ConvTranspose2d(4, 6, 3, 1, 2, groups=2)),
        ("2d, stride over kernel", IMAGE, {"kernel_size": 2, "strides": 3, "output_padding": 2},
         nn.ConvTranspose2d(4, 6, 2, 3, output_padding=2)),
        ("2d, uneven", IMAGE,
         {"kernel_size": (2, 5), "strides": (3, 1), "padding": (0, 2), "dilation": (2, 1)},
         nn.ConvTranspose2d(4, 6, (2, 5), (3, 1), (0, 2), dilation=(2, 1))),
        ("2d, depthwise", IMAGE, {"filters": 4, "groups": 4},
         nn.ConvTranspose2d(4, 4, 3, 2, groups=4)),
        ("3d", (2, 3, 4, 5), {}, nn.ConvTranspose3d(2, 6, 3, 2)),
        ("3d, dilated groups, padded", (2, 3, 4, 5),
         {"padding": 1, "output_padding": 1, "dilation": 2, "groups": 2},
         nn.ConvTranspose3d(2, 6, 3, 2, 1, 1, 2, dilation=2)),
    ]  # fmt: skip
    return [
        Check(f"conv_transpose {name}", shape, up | more, lambda m=module: m, BOTH)
        for name, shape, more, module in found
    ]


def divided() -> list[Check]:
    """Weights over one of their norms; torch counts the outputs of a transposed one on axis 1."""
    dense = {"op": "dense", "units": 5}
    conv = {"op": "conv", "filters": 6, "kernel_size": 3}
    up = conv | {"op": "conv_transpose", "strides": 2}
    layers: list[tuple[str, tuple[int, ...], dict[str, Any], Any, int]] = [
        ("dense", (7,), dense, lambda: nn.Linear(7, 5), 0),
        ("conv 1d", (4, 9), conv, lambda: nn.Conv1d(4, 6, 3), 0),
        ("conv", IMAGE, conv, lambda: nn.Conv2d(4, 6, 3), 0),
        ("conv_transpose", IMAGE, up, lambda: nn.ConvTranspose2d(4, 6, 3, 2), 1),
        ("conv_transpose 3d", (2, 3, 4, 5), up, lambda: nn.ConvTranspose3d(2, 6, 3, 2), 1),
    ]
    found = []
    for name, shape, op, layer, axis in layers:
        turn = ".T" if op is dense else ""
        over = {
            "weight": f"parametrizations.weight.original1{turn}",
            "weight_scale": "parametrizations.weight.original0",
            "bias": "bias",
        }
        theirs = partial(_over, parametrizations.weight_norm, layer, axis)
        found.append(Check(f"weight_norm {name}", shape, op | {"weight_norm": True}, theirs, over))
        spectral = {"weight": f"parametrizations.weight.original{turn}", "bias": "bias"}
        found.append(
            Check(
                f"spectral_norm {name}",
                shape,
                op | {"spectral_norm": True},
                partial(_over, parametrizations.spectral_norm, layer, axis),
                spectral,
                states={"v": "parametrizations.weight.0._v"},
            )
        )
    return found


def _over(norm: Any, layer: Any, axis: int) -> Any:
    return norm(layer(), dim=axis)


def pools() -> list[Check]:
    up = {"op": "upsample", "scale": 2}
    found: list[tuple[str, tuple[int, ...], dict[str, Any], Any]] = [
        ("max_pool", IMAGE, {"op": "max_pool", "pool_size": 2}, nn.MaxPool2d(2)),
        ("max_pool, padded", IMAGE,
         {"op": "max_pool", "pool_size": 3, "strides": 2, "padding": 1}, nn.MaxPool2d(3, 2, 1)),
        ("max_pool 1d", (4, 9), {"op": "max_pool", "pool_size": 3, "strides": 1},
         nn.MaxPool1d(3, 1)),
        ("max_pool 3d", (2, 4, 5, 6), {"op": "max_pool", "pool_size": 2}, nn.MaxPool3d(2)),
        ("max_pool, stride over size", IMAGE, {"op": "max_pool", "pool_size": 2, "strides": 3},
         nn.MaxPool2d(2, 3)),
        ("avg_pool", IMAGE, {"op": "avg_pool", "pool_size": 3, "strides": 2}, nn.AvgPool2d(3, 2)),
        ("avg_pool, padded", IMAGE,
         {"op": "avg_pool", "pool_size": 3, "strides": 2, "padding": 1},
         nn.AvgPool2d(3, 2, 1, count_include_pad=False)),
        ("avg_pool 3d", (2, 4, 5, 6), {"op": "avg_pool", "pool_size": (2, 1, 3)},
         nn.AvgPool3d((2, 1, 3))),
        ("global_avg_pool", IMAGE, {"op": "global_avg_pool"}, Lambda(lambda x: x.mean((2, 3)))),
        ("global_max_pool", IMAGE, {"op": "global_max_pool"}, Lambda(lambda x: x.amax((2, 3)))),
        ("adaptive_avg_pool", IMAGE, {"op": "adaptive_avg_pool", "output_size": 3},
         nn.AdaptiveAvgPool2d(3)),
        ("adaptive_max_pool", IMAGE, {"op": "adaptive_max_pool", "output_size": (3, 4)},
         nn.AdaptiveMaxPool2d((3, 4))),
        ("adaptive_avg_pool, larger", (4, 3), {"op": "adaptive_avg_pool", "output_size": 5},
         nn.AdaptiveAvgPool1d(5)),
        ("upsample", IMAGE, up, nn.Upsample(None, 2)),
        ("upsample linear 1d", (4, 9), up | {"mode": "bilinear"},
         nn.Upsample(None, 2, mode="linear")),
        ("upsample bilinear", IMAGE, up | {"mode": "bilinear", "scale": (2, 3)},
         nn.Upsample(None, (2, 3), mode="bilinear")),
        ("upsample trilinear", (2, 3, 4, 5), up | {"mode": "bilinear"},
         nn.Upsample(None, 2, mode="trilinear")),
    ]  # fmt: skip
    return [Check(name, shape, op, lambda m=module: m, {}) for name, shape, op, module in found]


def tables() -> list[Check]:
    words = {"num_embeddings": 11, "embedding_dim": 5}
    bag = {"op": "embedding_bag", **words}
    one = plain("weight")
    weighed = Lambda(lambda m, i, w: m(i, per_sample_weights=w), nn.EmbeddingBag(11, 5, mode="sum"))
    return [
        Check("embedding", (4,), {"op": "embedding", **words}, lambda: nn.Embedding(11, 5), one,
              below=11),
        Check("embedding_bag mean", (4,), bag, lambda: nn.EmbeddingBag(11, 5), one, below=11),
        Check("embedding_bag sum", (4,), bag | {"mode": "sum"},
              lambda: nn.EmbeddingBag(11, 5, mode="sum"), one, below=11),
        Check("embedding_bag padded", (4,), bag | {"padding_index": 2},
              lambda: nn.EmbeddingBag(11, 5, padding_idx=2), one, below=11),
        Check("embedding_bag weighed", (4,), bag | {"mode": "sum"}, lambda: weighed,
              plain("weight=inner.weight"), below=11, more={"weights": Operand((4,))}),
    ]  # fmt: skip


def attentions() -> list[Check]:
    heads = {"op": "attention", "heads": 4}
    itself = partial(Attention, 8, 4)
    causal = heads | {"causal": True}
    other = {"key": Operand((7, 6)), "value": Operand((7, 3))}
    two = partial(Attention, 8, 4, False, 6, 3)
    masks = {
        "keys": Operand((7,), mask="any"),
        "pairs": Operand((5, 7), mask="any"),
        "heads": Operand((4, 5, 7), mask="any"),
    }
    return [
        Check("attention", (5, 8), heads, itself, Attention.names),
        Check("attention, causal", (5, 8), causal, partial(itself, True), Attention.names),
        Check("attention, other", (5, 8), heads, two, Attention.names, more=other),
        Check("attention, other key", (5, 8), heads, partial(Attention, 8, 4, False, 6),
              Attention.names, more={"key": Operand((7, 6))}),
        *(
            Check(f"attention, mask of {name}", (5, 8), heads, two, Attention.names,
                  more=other | {"mask": mask})
            for name, mask in masks.items()
        ),
    ]  # fmt: skip
