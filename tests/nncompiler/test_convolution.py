"""Convolutions and pooling: values against plain loops, compiled against reference, gradients."""

from __future__ import annotations

from typing import Any

import networkx as nx
import numpy as np
import pytest

import nncompiler as nnc


def network(shape: tuple[int, ...], *layers: dict[str, Any]) -> nx.DiGraph:
    g = nx.DiGraph()
    g.add_node("x", op="input", shape=("batch", *shape))
    previous = "x"
    for number, attributes in enumerate(layers):
        g.add_node(f"l{number}", **attributes)
        g.add_edge(previous, f"l{number}")
        previous = f"l{number}"
    return g


def compiled(shape: tuple[int, ...], *layers: dict[str, Any], dtype: str = "float32") -> nnc.Model:
    return nnc.compile(network(shape, *layers), loss="mse", dtype=dtype)


def draw(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=shape)


def loop_conv(
    x: Any, w: Any, stride: int = 1, pad: Any = (0, 0), dilation: int = 1, groups: int = 1
) -> Any:
    """The definition, written out for two spatial axes."""
    x = np.pad(x, ((0, 0), (0, 0), pad, pad))
    f, c, kh, kw = w.shape
    height = (x.shape[2] - (kh - 1) * dilation - 1) // stride + 1
    width = (x.shape[3] - (kw - 1) * dilation - 1) // stride + 1
    y = np.zeros((len(x), f, height, width))
    for k in range(f):
        first = k // (f // groups) * c
        for i in range(height):
            for j in range(width):
                rows = slice(i * stride, i * stride + (kh - 1) * dilation + 1, dilation)
                columns = slice(j * stride, j * stride + (kw - 1) * dilation + 1, dilation)
                part = x[:, first : first + c, rows, columns]
                y[:, k, i, j] = (part * w[k]).sum((1, 2, 3))
    return y


CASES: dict[str, tuple[tuple[int, ...], dict[str, Any], dict[str, Any]]] = {
    "plain": ((3, 7, 6), {"filters": 4, "kernel_size": 3}, {}),
    "strided": ((2, 9, 8), {"filters": 3, "kernel_size": 3, "strides": 2}, {"stride": 2}),
    "padded": ((2, 5, 5), {"filters": 3, "kernel_size": 3, "padding": 1}, {"pad": (1, 1)}),
    "same": ((2, 5, 6), {"filters": 3, "kernel_size": 4, "padding": "same"}, {"pad": (1, 2)}),
    "dilated": ((2, 9, 8), {"filters": 3, "kernel_size": 3, "dilation": 2}, {"dilation": 2}),
    "grouped": ((4, 5, 5), {"filters": 6, "kernel_size": 3, "groups": 2}, {"groups": 2}),
    "depthwise": ((3, 6, 6), {"filters": 3, "kernel_size": 3, "groups": 3}, {"groups": 3}),
    "multiplied": ((3, 6, 6), {"filters": 6, "kernel_size": 2, "groups": 3}, {"groups": 3}),
    "one by one": ((5, 4, 4), {"filters": 3, "kernel_size": 1}, {}),
    "wide": ((2, 3, 35), {"filters": 17, "kernel_size": 3, "padding": 1}, {"pad": (1, 1)}),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("batch", [1, 3])
def test_convolution_is_its_definition(name: str, batch: int) -> None:
    shape, attributes, given = CASES[name]
    model = compiled(shape, {"op": "conv", **attributes})
    x = draw(batch, *shape)
    w, b = model.parameters["l0.weight"], model.parameters["l0.bias"]
    b[...] = draw(*b.shape, seed=1)
    expected = loop_conv(x, w, **given) + b[:, None, None]
    np.testing.assert_allclose(model(x), expected, rtol=1e-4, atol=1e-5)


def test_mode_convolution_mirrors_the_kernel() -> None:
    layer = {"op": "conv", "filters": 3, "kernel_size": 3, "mode": "convolution"}
    model = compiled((2, 6, 6), layer)
    x = draw(2, 2, 6, 6)
    expected = loop_conv(x, model.parameters["l0.weight"][:, :, ::-1, ::-1])
    np.testing.assert_allclose(model(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rank", [1, 3])
def test_one_and_three_dimensions_are_slices_of_two(rank: int) -> None:
    shape = (2, 7) if rank == 1 else (2, 1, 7, 6)
    model = compiled(shape, {"op": "conv", "filters": 3, "kernel_size": 3, "padding": "same"})
    x = draw(2, *shape)
    w = model.parameters["l0.weight"]
    if rank == 1:
        middle = loop_conv(x[:, :, None], w[:, :, None], pad=(0, 0))[:, :, 0]
        np.testing.assert_allclose(model(x)[:, :, 1:-1], middle, rtol=1e-4, atol=1e-5)
    else:
        expected = loop_conv(x[:, :, 0], w[:, :, 1], pad=(1, 1))
        np.testing.assert_allclose(model(x)[:, :, 0], expected, rtol=1e-4, atol=1e-5)


TRANSPOSED = [
    ({"strides": 1}, (6, 7)),
    ({"strides": 2}, (9, 11)),
    ({"strides": 2, "padding": 1}, (7, 9)),
    ({"strides": 2, "padding": 1, "output_padding": 1}, (8, 10)),
    ({"strides": 2, "padding": "same"}, (8, 10)),
    ({"strides": 4, "padding": "same"}, (16, 20)),
    ({"strides": 2, "dilation": 2}, (11, 13)),
    ({"strides": 3, "output_padding": 2}, (14, 17)),
    ({"strides": 2, "groups": 2}, (9, 11)),
]


@pytest.mark.parametrize(("attributes", "extents"), TRANSPOSED)
def test_transposed_convolution_is_the_adjoint(
    attributes: dict[str, Any], extents: tuple[int, int]
) -> None:
    """<conv(u), x> = <u, conv_transpose(x)> for the same weight."""
    layer = {
        "op": "conv_transpose",
        "filters": 2,
        "kernel_size": 3,
        "use_bias": False,
        **attributes,
    }
    model = compiled((4, 4, 5), layer, dtype="float64")
    x = draw(2, 4, 4, 5)
    y = model(x)
    assert y.shape == (2, 2, *extents)
    if attributes.get("padding") == "same":
        return
    p, w = attributes.get("padding", 0), model.parameters["l0.weight"]
    u = draw(2, 2, *extents, seed=2)
    groups = attributes.get("groups", 1)
    shared = {"pad": (p, p), "stride": attributes["strides"]}
    back = loop_conv(u, w, dilation=attributes.get("dilation", 1), groups=groups, **shared)
    np.testing.assert_allclose(np.sum(back * x), np.sum(u * y), rtol=1e-10)


POOLS: dict[str, dict[str, Any]] = {
    "max": {"op": "max_pool", "pool_size": 2},
    "max overlapping": {"op": "max_pool", "pool_size": 3, "strides": 2, "padding": 1},
    "mean": {"op": "avg_pool", "pool_size": 2},
    "mean same": {"op": "avg_pool", "pool_size": 3, "strides": 2, "padding": "same"},
    "global mean": {"op": "global_avg_pool"},
    "global max": {"op": "global_max_pool"},
    "adaptive mean": {"op": "adaptive_avg_pool", "output_size": 3},
    "adaptive max": {"op": "adaptive_max_pool", "output_size": (2, 3)},
    "nearest": {"op": "upsample", "scale": 2},
    "bilinear": {"op": "upsample", "scale": (2, 3), "mode": "bilinear"},
}


@pytest.mark.parametrize("name", POOLS)
def test_pooling_is_its_definition(name: str) -> None:
    x = draw(2, 3, 7, 5)
    y = compiled((3, 7, 5), POOLS[name])(x)
    reduce = np.nanmax if "max" in name else np.nanmean
    if "global" in name:
        expected = reduce(x, axis=(2, 3))
    elif name == "nearest":
        expected = x.repeat(2, 2).repeat(2, 3)
    elif name == "bilinear":
        expected = _bilinear(x, 2, 3)
    elif "adaptive" in name:
        expected = _adaptive(x, y.shape[2:], reduce)
    else:
        padded = np.full((2, 3, 9, 7), np.nan)
        size, step = (3, 2) if y.shape[2] == 4 else (2, 2)
        padded[:, :, size // 3 : size // 3 + 7, size // 3 : size // 3 + 5] = x
        expected = np.empty(y.shape)
        for i, j in np.ndindex(*y.shape[2:]):
            window = padded[:, :, i * step : i * step + size, j * step : j * step + size]
            expected[:, :, i, j] = reduce(window, axis=(2, 3))
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)


def _adaptive(x: Any, shape: tuple[int, int], reduce: Any) -> Any:
    h, w = shape
    result = np.empty((*x.shape[:2], h, w))
    for i, j in np.ndindex(h, w):
        rows = slice(i * 7 // h, -(-(i + 1) * 7 // h))
        columns = slice(j * 5 // w, -(-(j + 1) * 5 // w))
        result[:, :, i, j] = reduce(x[:, :, rows, columns], axis=(2, 3))
    return result


def _bilinear(x: Any, *scales: int) -> Any:
    for axis, scale in enumerate(scales, 2):
        n = x.shape[axis]
        at = np.clip((np.arange(n * scale) + 0.5) / scale - 0.5, 0, n - 1)
        low = np.floor(at).astype(int)
        part = (at - low).reshape(-1, *(1,) * (3 - axis))
        high = np.minimum(low + 1, n - 1)
        x = x.take(low, axis) * (1 - part) + x.take(high, axis) * part
    return x


def test_the_gradient_of_max_pooling_goes_to_the_first_largest() -> None:
    model = compiled((1, 2, 4), {"op": "conv", "filters": 1, "kernel_size": 1}, POOLS["max"])
    model.parameters["l0.weight"][...] = 1.0
    x = np.asarray([[[[3, 1, 2, 2], [3, 3, 2, 0]]]], float)
    _, gradients = model.backward(x, np.zeros((1, 1, 1, 2)))
    assert gradients["l0.weight"].item() == pytest.approx((3 * 3 + 2 * 2) * 2 / 2)
    assert gradients["l0.bias"].item() == pytest.approx((3 + 2) * 2 / 2)


@pytest.mark.parametrize("name", [*CASES, *POOLS, "transposed", "strided transposed"])
def test_compiled_is_reference_and_gradients_are_differences(name: str) -> None:
    shape = (4, 6, 5)
    if name in CASES:
        shape, attributes, _ = CASES[name]
        layer = {"op": "conv", **attributes}
    elif name in POOLS:
        layer = POOLS[name]
    else:
        step = 2 if name.startswith("strided") else 1
        layer = {"op": "conv_transpose", "filters": 3, "kernel_size": 3, "strides": step}
    first = {
        "op": "conv",
        "filters": shape[0],
        "kernel_size": 3,
        "padding": 1,
        "activation": "tanh",
    }
    model = compiled(shape, first, layer, dtype="float64")
    for batch in (3, 1):
        x = draw(batch, *shape)
        t = draw(*model(x).shape, seed=5)
        errors = model.compare(x, t)
        assert max(errors.values()) < 1e-10
    assert max(model.check_gradients(x, t).values()) < 1e-6


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ({"op": "conv", "filters": 3, "kernel_size": 9}, "does not fit"),
        ({"op": "conv", "filters": 3, "kernel_size": 3, "groups": 2}, "groups"),
        ({"op": "conv", "filters": 3, "kernel_size": (3, 3, 3)}, "kernel_size"),
        ({"op": "conv", "filters": 3, "kernel_size": 3, "padding": "half"}, "padding"),
        ({"op": "conv", "filters": 3, "kernel_size": 3, "mode": "true"}, "mode"),
        ({"op": "conv", "filters": 3, "kernel_size": 0}, "kernel_size"),
        ({"op": "max_pool", "pool_size": 2, "padding": 2}, "padding"),
        ({"op": "conv_transpose", "filters": 3, "kernel_size": 1, "padding": 4}, "padding"),
        ({"op": "conv", "filters": 3, "kernel_size": 3, "padding": -1}, "padding .* at least 0"),
        ({"op": "upsample", "scale": 2, "mode": "cubic"}, "mode"),
    ],
)
def test_mistakes_are_named(layer: dict[str, Any], message: str) -> None:
    with pytest.raises(nnc.CompileError, match=message) as error:
        nnc.compile(network((3, 7, 7), layer))
    assert error.value.node == "l0"
