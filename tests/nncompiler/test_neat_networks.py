"""Networks that neat-python made of evolved genomes: ours give what their `activate` gives."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nncompiler as nnc
from nncompiler.frontend.neat import OURS, from_neat

neat = pytest.importorskip("neat")

OPTIONS = nnc.Options(threads=1, cache=False)
SETTINGS = Path(__file__).parents[2] / "examples" / "neat.cfg"
STEEP = ("inv", "exp", "log", "square", "cube")  # chains of them leave the numbers
INPUTS, TIMES = 3, 6


def configured(*, feed_forward: bool) -> Any:
    kinds = neat.DefaultGenome, neat.DefaultReproduction, neat.DefaultSpeciesSet
    config = neat.Config(*kinds, neat.DefaultStagnation, str(SETTINGS))
    genes = config.genome_config
    genes.feed_forward = feed_forward
    genes.num_inputs, genes.input_keys = INPUTS, [-1, -2, -3]
    genes.num_outputs, genes.output_keys = 2, [0, 1]
    genes.activation_options = [name for name in OURS if name not in STEEP]
    genes.aggregation_options = ["sum", "product", "max", "min", "mean", "median", "maxabs"]
    genes.activation_mutate_rate = genes.aggregation_mutate_rate = 0.3
    genes.response_init_stdev = genes.response_mutate_rate = genes.response_mutate_power = 0.5
    genes.enabled_mutate_rate = 0.05
    return config


def evolved(seed: int, config: Any) -> Any:
    random.seed(seed)
    genome = next(iter(neat.Population(config).population.values()))
    for _ in range(10 * seed):
        genome.mutate(config.genome_config)
    return genome


def compiled(graph: Any, **settings: Any) -> nnc.Model:
    return nnc.compile(graph, dtype="float64", options=OPTIONS, **settings)


@pytest.mark.parametrize("seed", range(8))
def test_a_feed_forward_network(seed: int) -> None:
    config = configured(feed_forward=True)
    genome = evolved(seed, config)
    network = neat.nn.FeedForwardNetwork.create(genome, config)
    x = np.random.default_rng(seed).normal(size=(9, INPUTS))
    expected = [network.activate(row) for row in x]
    for graph in (from_neat(network), from_neat(genome, config)):
        np.testing.assert_allclose(compiled(graph)(x), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("seed", range(8))
def test_a_recurrent_network(seed: int) -> None:
    config = configured(feed_forward=False)
    genome = evolved(seed, config)
    network = neat.nn.RecurrentNetwork.create(genome, config)
    x = np.random.default_rng(seed).normal(size=(4, TIMES, INPUTS))
    expected = []
    for sequence in x:
        network.reset()
        expected.append([network.activate(row) for row in sequence])
    for graph in (from_neat(network), from_neat(genome, config, recurrent=True)):
        found = compiled(graph, recurrent=True)(x)
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-11)


def functions(activation: str = "tanh", aggregation: str = "sum") -> tuple[Any, Any]:
    return (
        neat.activations.ActivationFunctionSet().get(activation),
        neat.aggregations.AggregationFunctionSet().get(aggregation),
    )


@pytest.mark.parametrize("kind", ["FeedForwardNetwork", "RecurrentNetwork"])
def test_neurons_without_connections_or_never_computed(kind: str) -> None:
    """1 and 5 are never computed (they stay 0), 4 sees nothing, nothing sees 6."""
    evaluations = [
        (4, *functions("sigmoid"), 0.3, 1.0, []),
        (0, *functions(), 0.1, 2.0, [(-1, 0.7), (4, -1.2), (5, 3.0)]),
        (6, *functions("relu"), 0.0, 1.0, [(-2, 1.0)]),
    ]
    network = getattr(neat.nn, kind)([-1, -2], [0, 1], evaluations)
    if kind == "FeedForwardNetwork":
        network.values[5] = 0.0
    x = np.random.default_rng(0).normal(size=(1, TIMES, 2))
    expected = np.array([[network.activate(row) for row in x[0]]])
    graph = from_neat(network)
    assert 6 not in graph
    if kind == "FeedForwardNetwork":
        np.testing.assert_allclose(compiled(graph)(x[0]), expected[0], rtol=1e-12)
    else:
        found = compiled(graph, recurrent=True)(x)
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_functions_of_others_are_named() -> None:
    def mine(z: Any) -> Any:
        return z

    activation, aggregation = functions()
    for given, kind in (((mine, aggregation), "activation"), ((activation, mine), "aggregation")):
        network = neat.nn.FeedForwardNetwork([-1], [7], [(7, *given, 0.0, 1.0, [(-1, 1.0)])])
        message = f"neuron '7': its {kind} 'mine' is none of neat-python's own"
        with pytest.raises(nnc.CompileError, match=message) as error:
            from_neat(network)
        assert error.value.node == "7"


@pytest.mark.parametrize(
    ("links", "message"),
    [
        ([(-1, 1.0), (8, 1.0)], "neuron '7': reads '8', which is evaluated later"),
        ([(-1, 1.0), (-1, 1.0)], "neuron '7': has two connections from one neuron"),
    ],
)
def test_what_no_graph_can_say(links: Any, message: str) -> None:
    last = (8, *functions(), 0.0, 1.0, [(7, 1.0)])
    first = (7, *functions(), 0.0, 1.0, links)
    with pytest.raises(nnc.CompileError, match=message):
        from_neat(neat.nn.FeedForwardNetwork([-1], [8], [first, last]))


def test_arguments_that_do_not_go_together() -> None:
    config = configured(feed_forward=True)
    genome = evolved(0, config)
    network = neat.nn.FeedForwardNetwork.create(genome, config)
    with pytest.raises(TypeError, match="a genome and its config, or a network"):
        from_neat(genome)
    with pytest.raises(TypeError, match="a FeedForwardNetwork is taken without a config"):
        from_neat(network, config)
    with pytest.raises(TypeError, match="a FeedForwardNetwork is not recurrent"):
        from_neat(network, recurrent=True)
    with pytest.raises(TypeError, match="not CTRNN"):
        from_neat(neat.ctrnn.CTRNN([-1], [0], {}))
