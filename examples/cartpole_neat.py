"""A pole balanced on a cart: neat-python evolves the networks, all of them act at once.

Every network has a cart of its own. At every time step one call evaluates all of them on the states
of their carts, and NumPy moves all carts (Barto, Sutton and Anderson 1983, as in OpenAI's Gym).

    pip install neat-python
    python examples/cartpole_neat.py
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

GRAVITY, CART, POLE, HALF, FORCE, DT = 9.8, 1.0, 0.1, 0.5, 10.0, 0.02  # m/s^2, kg, kg, m, N, s
STEPS, STARTS = 500, 4
LIMITS = np.array([2.4, np.inf, np.radians(12), np.inf])
spent = {"networks": 0.0, "steps": 0}


def move(state: np.ndarray, right: np.ndarray) -> np.ndarray:
    """One time step of states (..., 4): position, velocity, angle, angular velocity."""
    _, velocity, angle, turn = np.moveaxis(state, -1, 0)
    force, sine, cosine = np.where(right, FORCE, -FORCE), np.sin(angle), np.cos(angle)
    push = (force + POLE * HALF * turn**2 * sine) / (CART + POLE)
    bend = (GRAVITY * sine - cosine * push) / (HALF * (4 / 3 - POLE * cosine**2 / (CART + POLE)))
    speed = push - POLE * HALF * bend * cosine / (CART + POLE)
    return state + DT * np.stack([velocity, speed, turn, bend], -1)


def balance(population: nnc.Population, seed: int) -> np.ndarray:
    """(networks,) how many steps the poles stay up, the least of several starts."""
    rng = np.random.default_rng(seed)
    state = np.tile(rng.uniform(-0.05, 0.05, (STARTS, 4)), (len(population), 1, 1))
    steps = np.zeros(state.shape[:2])
    up = np.ones(state.shape[:2], bool)
    for _ in range(STEPS):
        start = time.perf_counter()
        y = population(state)[:, :, 0]
        spent["networks"] += time.perf_counter() - start
        spent["steps"] += 1
        state = np.where(up[..., None], move(state, y > 0.5), state)
        up &= (np.abs(state) <= LIMITS).all(-1)
        steps += up
        if not up.any():
            break
    return steps.min(1)


def score(genomes: list, config: neat.Config) -> None:
    population = nnc.compile_population([genome for _, genome in genomes], config=config)
    for (_, genome), steps in zip(genomes, balance(population, seed=0), strict=True):
        genome.fitness = float(steps)


def main() -> None:
    random.seed(1)
    kinds = neat.DefaultGenome, neat.DefaultReproduction, neat.DefaultSpeciesSet
    path = Path(__file__).with_name("neat.cfg")
    config = neat.Config(*kinds, neat.DefaultStagnation, path)
    config.fitness_threshold = STEPS
    config.genome_config.num_inputs, config.genome_config.input_keys = 4, [-1, -2, -3, -4]
    evolution = neat.Population(config)
    winner = evolution.run(score, 50)
    print(f"generation {evolution.generation}: a pole stays up for {winner.fitness:.0f} steps")
    each = 1e6 * spent["networks"] / spent["steps"]
    print(f"{each:.0f} us for a step of all networks ({STARTS} carts each)")
    unseen = [balance(nnc.compile_population([winner], config=config), s)[0] for s in range(1, 6)]
    print("from other starts:", [int(steps) for steps in unseen])
    if winner.fitness < STEPS:
        raise SystemExit("the pole was not balanced")


if __name__ == "__main__":
    main()
