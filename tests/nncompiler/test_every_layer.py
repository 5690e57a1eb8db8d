"""Every kind of layer by the laws of all: as the reference has it, and twice differentiable.

Shapes are odd, batches of 1 and a short last one among them (tests/layer_laws.py). What stands here
by its kind alone has its formula in a file of its own.
"""

from __future__ import annotations

from typing import Any

import networkx as nx
import numpy as np
import pytest

import nncompiler as nnc
from nncompiler.frontend.activations import ACTIVATIONS
from nncompiler.frontend.kinds import KINDS
from tests.layer_laws import Case, check_layer, check_model, check_second

POSITIVE = {"activation": "softplus"}
CONV = {"filters": 3, "kernel_size": 3}

# The first law is checked here for those whose own file does not. Singular vectors of spectral_norm
# count as constants in every derivative, so that differences are something else.
LAYERS = [
    Case("conv", (3, 11), {**CONV, "strides": 2, "padding": [(2, 1)]}),
    Case("conv", (2, 7, 5), {**CONV, "padding": "same", "activation": "tanh"}),
    Case("conv", (4, 5, 7), {"filters": 6, "kernel_size": (2, 3), "groups": 2, "dilation": (1, 2)}),
    Case("conv", (3, 7, 5), {"filters": 6, "kernel_size": 3, "groups": 3, "strides": (2, 1)}),
    Case("conv", (2, 3, 5, 4), {**CONV, "padding": 1, "mode": "convolution"}),
    Case("conv", (3, 5, 5), {**CONV, "weight_norm": True, "use_bias": False}),
    Case("conv", (5, 3, 3), {"filters": 4, "kernel_size": 1}),
    Case("conv", (4, 5, 5), {**CONV, "spectral_norm": True}, differences=False),
    Case("conv_transpose", (3, 5), {**CONV, "strides": 3, "output_padding": 2}),
    Case("conv_transpose", (2, 3, 5), {**CONV, "strides": (2, 3), "padding": [(1, 0), (0, 2)]}),
    Case("conv_transpose", (4, 3, 3), {"filters": 6, "kernel_size": 2, "groups": 2, "dilation": 2}),
    Case("conv_transpose", (2, 3, 3), {**CONV, "mode": "convolution", "weight_norm": True}),
    Case("conv_transpose", (2, 2, 3, 2), {**CONV, "strides": 2, "padding": "same"}),
    Case("max_pool", (2, 7, 5), {"pool_size": 2}),
    Case("max_pool", (2, 7, 5), {"pool_size": (3, 2), "strides": (2, 1), "padding": 1}),
    Case("avg_pool", (3, 11), {"pool_size": 3, "strides": 2, "padding": "same"}),
    Case("avg_pool", (2, 3, 5, 4), {"pool_size": 2}),
    Case("global_avg_pool", (3, 5, 7)),
    Case("global_max_pool", (3, 7)),
    Case("adaptive_avg_pool", (2, 7, 5), {"output_size": (3, 2)}),
    Case("adaptive_max_pool", (2, 7, 5), {"output_size": 3}),
    Case("upsample", (2, 3, 5), {"scale": 2}),
    Case("upsample", (2, 3, 5), {"scale": (2, 3), "mode": "bilinear"}),
    Case("dense", (7,), {"units": 5, "activation": "sigmoid"}),
    Case("dense", (3, 7), {"units": 2, "weight_norm": True}),
    Case("activation", (7,), {"function": lambda x: x / (1 + nnc.exp(-2 * x))}),
    Case("add", (7,), operands=3),
    Case("mul", (3, 5), operands=3),
    Case("sub", (7,), operands=2),
    Case("div", (7,), operands=2, before=POSITIVE),
    Case("maximum", (7,), operands=3),
    Case("minimum", (7,), operands=2),
    Case("matmul", (3, 3), operands=2),
    Case("concat", (3, 5), {"axis": -1}, operands=2),
    Case("concatenate", (3, 5), operands=3),
    Case("reshape", (3, 4), {"shape": (2, -1)}),
    Case("flatten", (3, 5)),
    Case("transpose", (3, 5), {"perm": (0, 2, 1)}),
    Case("slice", (3, 7), {"axis": 2, "start": 1, "step": 2}),
    Case("pad", (3, 5), {"pad_width": ((0, 0), (1, 0), (2, 3)), "constant_values": 2.0}),
    Case("sum", (3, 5), {"axis": (1, 2)}),
    Case("mean", (3, 5), {"keepdims": True}),
    Case("max", (3, 5)),
    Case("min", (3, 5), {"axis": 1}),
    Case("prod", (3, 4)),
    Case("var", (3, 5)),
    Case("logsumexp", (3, 5)),
]

ELSEWHERE = [
    Case("batch_norm", (3, 5)),
    Case("layer_norm", (5, 3), {"axes": (1, 2)}),
    Case("rms_norm", (9,)),
    Case("group_norm", (4, 3, 3), {"groups": 2}),
    Case("instance_norm", (2, 3, 5)),
    Case("positional_encoding", (4, 5), {"mode": "learned"}),
    Case("attention", (5, 6), {"heads": 3, "causal": True}, operands=3),
    Case("attention", (4, 6), {"heads": 1}),
    Case("rnn", (4, 3), {"units": 5, "return_sequences": True}),
    Case("lstm", (5, 3), {"units": 4, "bidirectional": True}),
    Case("gru", (5, 3), {"units": 4, "return_sequences": True}),
    Case("dropout", (5, 3), {"rate": 0.4}),
]

KINKS_ALONE = ("heaviside", "step", "sign", "floor", "ceil", "round")
NO_VALUES = ("input", "constant", "parameter", "any", "all", "argmax", "argmin")
OF_NUMBERS = ("embedding", "embedding_bag")
SQUARED = ("log", "log1p", "sqrt", "rsqrt", "neat_log", "neat_inv")


def second(case: Case) -> None:
    model = nnc.compile(case.network(), loss="mse", optimizer="sgd", dtype="float64")
    rng = np.random.default_rng(0)
    for array in model.parameters.values():
        array += 0.3 * rng.normal(size=array.shape)
    check_second(model, lambda rows: case.data(rows)[0])


@pytest.mark.parametrize("case", LAYERS, ids=str)
def test_compiled_is_the_reference_and_derivatives_are_differences(case: Case) -> None:
    check_layer(case, "float64")


@pytest.mark.parametrize("case", [c for c in (*LAYERS, *ELSEWHERE) if c.differences], ids=str)
def test_the_second_derivative_is_the_difference_of_gradients(case: Case) -> None:
    second(case)


@pytest.mark.parametrize("name", [n for n in ACTIVATIONS if n not in KINKS_ALONE])
def test_activations_have_a_second_derivative(name: str) -> None:
    second(Case(name, (5,), before=POSITIVE if name in SQUARED else {}))


@pytest.mark.parametrize("op", OF_NUMBERS)
def test_embeddings_have_a_second_derivative(op: str) -> None:
    g: Any = nx.DiGraph()
    g.add_node("x", op="input", shape=("batch", 5), dtype="int32")
    g.add_node("n", op=op, num_embeddings=7, embedding_dim=3, activation="tanh")
    g.add_node("f", op="flatten")
    g.add_node("y", op="dense", units=2, activation="softmax")
    nx.add_path(g, ["x", "n", "f", "y"])
    model = nnc.compile(g, loss="mse", optimizer="sgd", dtype="float64")
    check_second(model, lambda rows: np.random.default_rng(rows).integers(0, 7, (rows, 5)))


def test_what_has_no_slope_still_compiles() -> None:
    for name in KINKS_ALONE:
        case = Case(name, (5,))
        model = nnc.compile(case.network(), loss="mse", optimizer="sgd", dtype="float64")
        check_model(model, lambda rows, c=case: c.data(rows)[0], differences=False)


def test_a_value_without_elements() -> None:
    g: Any = nx.DiGraph()
    g.add_node("x", op="input", shape=("batch", 0))
    g.add_node("move", op="parameter", shape=(0,))
    g.add_node("moved", op="add")
    g.add_node("y", op="dense", units=2, bias_initializer="ones")
    g.add_edges_from([("x", "moved"), ("move", "moved"), ("moved", "y")])
    model = nnc.compile(g, loss="mse", optimizer="adam", dtype="float64")
    check_model(model, lambda rows: np.ones((rows, 0)))


def test_every_kind_is_here() -> None:
    here = {case.op for case in (*LAYERS, *ELSEWHERE)} | {*NO_VALUES, *OF_NUMBERS}
    assert here == set(KINDS)
