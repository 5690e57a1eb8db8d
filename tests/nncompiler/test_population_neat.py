"""neat-python's genomes as a population: every network computes what neat-python's does."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nncompiler as nnc
from nncompiler.frontend.neat import OURS
from tests.nncompiler.test_dag_neat import AGGREGATIONS, activate, genome

OPTIONS = nnc.Options(threads=1)
CONFIG = Path(__file__).parents[2] / "examples" / "neat.cfg"


def test_genomes_are_read_as_their_graphs_are() -> None:
    """Without neat-python: only attributes are read."""
    genomes = [genome(seed, 4 + 3 * seed) for seed in range(8)]
    config = genomes[0][1]
    members = [g for g, _ in genomes]
    x = np.random.default_rng(0).normal(size=(5, 3))
    population = nnc.compile_population(members, config=config, dtype="float64", options=OPTIONS)
    graphs = [nnc.from_neat(g, config) for g in members]
    same = nnc.compile_population(graphs, dtype="float64", options=OPTIONS)
    np.testing.assert_array_equal(population(x), same(x))
    for g, y in zip(members, population(x), strict=True):
        expected = [activate(g, config, row) for row in x]
        np.testing.assert_allclose(y, expected, rtol=1e-10, atol=1e-12)


def test_errors_name_the_genome() -> None:
    (good, config), (bad, _) = genome(0, 3), genome(1, 3)
    bad.nodes[0].activation = "mine"
    with pytest.raises(nnc.CompileError, match="genome 1: neuron '0': neat-python's 'mine'"):
        nnc.compile_population([good, bad], config=config)
    looped, _ = genome(2, 3)
    gene = type(next(iter(looped.connections.values())))
    for key in ((4, 0), (0, 4)):
        looped.connections[key] = gene(key=key, weight=1.0, enabled=True)
    with pytest.raises(nnc.CompileError, match=r"genome 1: the graph has a cycle: .*4 -> 0|0 -> 4"):
        nnc.compile_population([good, looped], config=config)
    far, _ = genome(1, 3)
    next(iter(far.connections.values())).weight = float("inf")
    next(iter(far.connections.values())).enabled = True
    with pytest.raises(
        nnc.CompileError, match=r"genome 1: the weight of '-?\d' -> '\d' is not finite"
    ):
        nnc.compile_population([good, far], config=config)
    with pytest.raises(TypeError, match="a member is a genome, not int"):
        nnc.compile_population([3], config=config)


def evolved(count: int, mutations: int) -> tuple[list[Any], Any]:
    """Genomes of neat-python with all of its functions."""
    neat = pytest.importorskip("neat")
    kinds = neat.DefaultGenome, neat.DefaultReproduction, neat.DefaultSpeciesSet
    config = neat.Config(*kinds, neat.DefaultStagnation, CONFIG)
    keys = config.genome_config
    keys.num_inputs, keys.input_keys = 4, [-1, -2, -3, -4]
    keys.activation_options, keys.activation_mutate_rate = list(OURS), 0.5
    keys.aggregation_options, keys.aggregation_mutate_rate = list(AGGREGATIONS), 0.3
    keys.response_init_stdev = keys.response_mutate_rate = keys.response_mutate_power = 0.5
    if hasattr(neat, "innovation"):  # since version 1
        keys.innovation_tracker = neat.innovation.InnovationTracker()
    random.seed(3)
    genomes = []
    for key in range(count):
        one = neat.DefaultGenome(key)
        one.configure_new(keys)
        for _ in range(mutations):
            one.mutate(keys)
        genomes.append(one)
    return genomes, config


def test_every_network_computes_what_neat_pythons_own_does() -> None:
    genomes, config = evolved(120, 40)
    import neat

    x = np.random.default_rng(0).normal(size=(6, 4))
    y = nnc.compile_population(genomes, config=config, dtype="float64", options=OPTIONS)(x)
    compared = 0
    for one, found in zip(genomes, y, strict=True):
        network = neat.nn.FeedForwardNetwork.create(one, config)
        try:
            expected = [network.activate(row) for row in x]
        except OverflowError:  # a square of a square ... where ours is infinite
            continue
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
        compared += 1
    assert compared > 100


def test_a_single_genome_computes_what_neat_pythons_own_does() -> None:
    genomes, config = evolved(6, 60)
    import neat

    x = np.random.default_rng(0).normal(size=(6, 4))
    for one in genomes:
        network = neat.nn.FeedForwardNetwork.create(one, config)
        expected = [network.activate(row) for row in x]
        model = nnc.compile(nnc.from_neat(one, config), dtype="float64", options=OPTIONS)
        np.testing.assert_allclose(model(x), expected, rtol=1e-9, atol=1e-9)
