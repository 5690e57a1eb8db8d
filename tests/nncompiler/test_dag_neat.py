"""neat-python: its functions under names of their own, its genomes as graphs of neurons."""

from __future__ import annotations

import math
import statistics
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import nncompiler as nnc
from ir import ops
from ir.graph import Graph
from ir.interpret import run_graph
from nncompiler.frontend.activations import make_activation
from nncompiler.frontend.neat import OURS, from_neat

OPTIONS = nnc.Options(threads=1, cache=False)


def clip(z: float, low: float, high: float) -> float:
    return max(low, min(high, z))


# As neat-python (2.0) defines them.
FUNCTIONS: dict[str, Any] = {
    "sigmoid": lambda z: 1 / (1 + math.exp(-clip(5 * z, -60, 60))),
    "tanh": lambda z: math.tanh(clip(2.5 * z, -60, 60)),
    "sin": lambda z: math.sin(clip(5 * z, -60, 60)),
    "gauss": lambda z: math.exp(-5 * clip(z, -3.4, 3.4) ** 2),
    "relu": lambda z: max(z, 0.0),
    "elu": lambda z: z if z > 0 else math.exp(z) - 1,
    "lelu": lambda z: z if z > 0 else 0.005 * z,
    "selu": lambda z: 1.0507009873554805 * (z if z > 0 else 1.6732632423543772 * math.expm1(z)),
    "softplus": lambda z: 0.2 * math.log(1 + math.exp(clip(5 * z, -60, 60))),
    "identity": lambda z: z,
    "clamped": lambda z: clip(z, -1, 1),
    "inv": lambda z: 1 / z if z else 0.0,
    "log": lambda z: math.log(max(1e-7, z)),
    "exp": lambda z: math.exp(clip(z, -60, 60)),
    "abs": abs,
    "hat": lambda z: max(0.0, 1 - abs(z)),
    "square": lambda z: z**2,
    "cube": lambda z: z**3,
}
AGGREGATIONS: dict[str, Any] = {
    "sum": sum,
    "product": math.prod,
    "max": lambda x: max(x) if x else 0.0,
    "min": lambda x: min(x) if x else 0.0,
    "mean": lambda x: statistics.fmean(x) if x else 0.0,
    "median": lambda x: statistics.median(x) if x else 0.0,
    "maxabs": lambda x: max(x, key=abs) if x else 0.0,
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_its_functions_are_ours(name: str) -> None:
    points = np.array([-50.0, -13.0, -3.5, -1.0, -0.3, 0.0, 1e-9, 0.2, 1.0, 3.5, 13.0, 50.0])
    x = ops.input("x", "f64", points.shape)
    y = make_activation(OURS[name])[1](x)
    found = run_graph(Graph("f", (x,), {"y": y}), {"x": points})["y"]
    np.testing.assert_allclose(found, [FUNCTIONS[name](z) for z in points], rtol=1e-12, atol=1e-15)


def genome(seed: int, count: int) -> tuple[Any, Any]:
    """Nodes 0 .. are outputs, then hidden ones; inputs are negative (as in neat-python)."""
    rng = np.random.default_rng(seed)
    inputs, outputs = [-1, -2, -3], [0, 1]
    hidden = list(range(2, 2 + count))
    order = [*inputs, *hidden, *outputs]
    nodes = {
        key: SimpleNamespace(
            bias=float(rng.normal()),
            response=float(rng.choice([1.0, 0.5, -2.0])),
            activation=str(rng.choice(["sigmoid", "tanh", "gauss", "relu", "sin", "clamped"])),
            aggregation=str(rng.choice(list(AGGREGATIONS))),
        )
        for key in (*hidden, *outputs)
    }
    connections = {}
    for at, target in enumerate(order):
        for source in order[:at]:
            if target not in inputs and source not in outputs and rng.random() < 0.3:
                weight, enabled = float(rng.normal()), bool(rng.random() < 0.9)
                gene = SimpleNamespace(key=(source, target), weight=weight, enabled=enabled)
                connections[source, target] = gene
    config = SimpleNamespace(genome_config=SimpleNamespace(input_keys=inputs, output_keys=outputs))
    return SimpleNamespace(nodes=nodes, connections=connections), config


def activate(genome: Any, config: Any, x: Any) -> list[float]:
    """As neat-python's FeedForwardNetwork does."""
    values = dict(zip(config.genome_config.input_keys, x, strict=True))

    def value(key: Any) -> float:
        if key not in values:
            links = [c for c in genome.connections.values() if c.enabled and c.key[1] == key]
            node = genome.nodes[key]
            total = AGGREGATIONS[node.aggregation]([value(c.key[0]) * c.weight for c in links])
            values[key] = FUNCTIONS[node.activation](node.bias + node.response * total)
        return float(values[key])

    return [value(key) for key in config.genome_config.output_keys]


@pytest.mark.parametrize("seed", range(8))
def test_a_genome_computes_what_neat_python_does(seed: int) -> None:
    g, config = genome(seed, 4 + 3 * seed)
    model = nnc.compile(from_neat(g, config), dtype="float64", options=OPTIONS)
    x = np.random.default_rng(seed).normal(size=(5, 3))
    expected = [activate(g, config, row) for row in x]
    np.testing.assert_allclose(model(x), expected, rtol=1e-10, atol=1e-12)


def test_an_unknown_function_is_named() -> None:
    g, config = genome(0, 3)
    g.nodes[0].activation = "mine"
    with pytest.raises(nnc.CompileError, match="neuron '0': neat-python's 'mine'"):
        from_neat(g, config)
