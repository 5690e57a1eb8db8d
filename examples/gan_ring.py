"""A generative adversarial network learns eight Gaussians on a ring: two objectives, one graph.

    python examples/gan_ring.py [steps]

The discriminator stands twice in the graph, over real points and over generated ones, with shared
parameters. Each objective has its own loss, optimizer and part of the parameters.
"""

from __future__ import annotations

import sys
import time

import networkx as nx
import numpy as np

import nncompiler as nnc

NOISE, MODES, SPREAD, BATCH = 8, 8, 0.05, 256
ANGLES = 2 * np.pi * np.arange(MODES) / MODES
CENTRES = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1)


def network() -> nx.DiGraph:
    g = nx.DiGraph()
    g.add_node("noise", op="input", shape=("batch", NOISE))
    g.add_node("g1", op="dense", units=64, activation="relu")
    g.add_node("g2", op="dense", units=64, activation="relu")
    g.add_node("fake", op="dense", units=2)
    g.add_node("real", op="input", shape=("batch", 2))
    nx.add_path(g, ["noise", "g1", "g2", "fake"])
    for source in ("real", "fake"):
        for layer, units, activation in (("d1", 64, "relu"), ("d2", 64, "relu"), ("d3", 1, None)):
            name = f"{layer} of {source}"
            g.add_node(name, op="dense", units=units, activation=activation, share=layer)
        nx.add_path(g, [source, *(f"{layer} of {source}" for layer in ("d1", "d2", "d3"))])
    return g


def points(rng: np.random.Generator, rows: int) -> np.ndarray:
    """Samples of the mixture."""
    return CENTRES[rng.integers(0, MODES, rows)] + SPREAD * rng.normal(size=(rows, 2))


def covered(samples: np.ndarray) -> tuple[int, float]:
    """Modes that got at least a quarter of their share, and the share of samples near a mode."""
    distance = np.linalg.norm(samples[:, None] - CENTRES, axis=2)
    near = distance.min(1) < 4 * SPREAD
    counts = np.bincount(distance.argmin(1)[near], minlength=MODES)
    return int((counts >= len(samples) / MODES / 4).sum()), float(near.mean())


def picture(samples: np.ndarray, size: int = 21) -> str:
    """The density of samples in [-1.4, 1.4]^2 in characters."""
    grid, _, _ = np.histogram2d(*samples.T, bins=size, range=[[-1.4, 1.4]] * 2)
    shades = np.digitize(grid.T[::-1] / len(samples) * MODES, [0.005, 0.03, 0.1, 0.2])
    return "\n".join("".join(2 * " .+#@"[s] for s in row) for row in shades)


def main(steps: int = 6000, seed: int = 0) -> tuple[int, float]:
    adam = nnc.Adam(1e-3, beta1=0.5)
    real, fake, loss = "d3 of real", "d3 of fake", "binary_cross_entropy"
    parts = {
        "discriminator": nnc.Objective(
            loss={real: loss, fake: loss}, optimizer=adam, parameters="d*"
        ),
        "generator": nnc.Objective(loss={fake: loss}, optimizer=adam, parameters=["g*", "fake.*"]),
    }
    model = nnc.compile(network(), outputs=["fake"], objectives=parts, seed=seed)
    discriminator, generator = model.objectives.values()
    rng = np.random.default_rng(seed)
    one, zero = np.ones((BATCH, 1)), np.zeros((BATCH, 1))
    start = time.perf_counter()
    for step in range(steps):
        noise = rng.normal(size=(BATCH, NOISE))
        rates = 1e-3 * min(1.0, 2 - 2 * step / steps)
        discriminator.learning_rate = generator.learning_rate = rates
        discriminator.step({"real": points(rng, BATCH), "noise": noise}, {real: one, fake: zero})
        generator.step({"noise": noise}, {fake: one})
    samples = model.predict(rng.normal(size=(4000, NOISE)))
    print(picture(samples))
    modes, share = covered(samples)
    print(f"{modes} of {MODES} modes, {share:.0%} of the samples within 4 sigma of one", end=", ")
    print(f"{time.perf_counter() - start:.1f} s for {steps} steps of each")
    return modes, share


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
