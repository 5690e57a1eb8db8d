"""XOR solved by evolution: neat-python draws the networks, a population of nncompiler scores them.

Every generation 150 different graphs are read and evaluated on the four cases, without compiling
any of them.

    pip install neat-python
    python examples/xor_neat.py
"""

from __future__ import annotations

import random
import time
from pathlib import Path

import numpy as np

import nncompiler as nnc

try:
    import neat
except ImportError:
    raise SystemExit("this example needs neat-python: pip install neat-python") from None

X = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
T = np.array([0, 1, 1, 0], np.float32)
spent = {"read": 0.0, "evaluated": 0.0}


def score(genomes: list, config: neat.Config) -> None:
    """Fitness 4 minus the sum of squared errors, as in neat-python's own example."""
    start = time.perf_counter()
    population = nnc.compile_population([genome for _, genome in genomes], config=config)
    read = time.perf_counter()
    y = population(X)[:, :, 0]  # (genomes, cases)
    spent["read"] += read - start
    spent["evaluated"] += time.perf_counter() - read
    for (_, genome), fitness in zip(genomes, 4 - ((y - T) ** 2).sum(1), strict=True):
        genome.fitness = float(fitness)


def main() -> None:
    random.seed(2)
    kinds = neat.DefaultGenome, neat.DefaultReproduction, neat.DefaultSpeciesSet
    path = Path(__file__).with_name("neat.cfg")
    config = neat.Config(*kinds, neat.DefaultStagnation, path)
    evolution = neat.Population(config)
    winner = evolution.run(score, 300)

    ours = nnc.compile(nnc.from_neat(winner, config))  # compiled by itself, as any graph
    theirs = neat.nn.FeedForwardNetwork.create(winner, config)
    for x in X:
        found = float(ours(x[None])[0, 0])
        print(f"{x[0]:.0f} xor {x[1]:.0f} = {found:.4f}   neat-python: {theirs.activate(x)[0]:.4f}")
    generations = evolution.generation + 1
    times = ", ".join(f"{1e3 * t / generations:.2f} ms {name}" for name, t in spent.items())
    print(f"{generations} generations of about 150 genomes, each {times}")
    print("fitness", round(winner.fitness, 3))
    if winner.fitness < 3.9:
        raise SystemExit("XOR was not solved")


if __name__ == "__main__":
    main()
