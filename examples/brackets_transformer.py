"""A transformer tells balanced brackets from others.

Half of the words, such as "([])()[()]()", are balanced; in the others two places were exchanged.

    python examples/brackets_transformer.py [seed]
"""

from __future__ import annotations

import sys
import time

import networkx as nx
import numpy as np

import nncompiler as nnc

LENGTH, WIDTH, HEADS, BLOCKS, EPOCHS, OPEN, CLOSE = 12, 32, 4, 2, 12, "([", ")]"


def network() -> nx.DiGraph:
    g = nx.DiGraph()
    g.add_node("word", op="input", shape=("batch", LENGTH), dtype="int32")
    g.add_node("letters", op="embedding", num_embeddings=4, embedding_dim=WIDTH)
    g.add_node("placed", op="positional_encoding", mode="learned")
    nx.add_path(g, ["word", "letters", "placed"])
    last = "placed"
    for i in range(BLOCKS):  # x + attention(norm(x)), then the same with two dense layers
        last = residual(g, last, f"look {i}", {"op": "attention", "heads": HEADS})
        wide = {"op": "dense", "units": 128, "activation": "gelu"}
        last = residual(g, last, f"think {i}", wide, {"op": "dense", "units": WIDTH})
    g.add_node("mean", op="mean", axis=1)
    g.add_node("score", op="dense", units=1)
    nx.add_path(g, [last, "mean", "score"])
    return g


def residual(g: nx.DiGraph, last: str, name: str, *layers: dict) -> str:
    layers = ({"op": "layer_norm"}, *layers, {"op": "add"})
    path = [f"{name} {i}" for i in range(len(layers))]
    g.add_nodes_from(zip(path, layers, strict=True))
    nx.add_path(g, [last, *path])
    g.add_edge(last, path[-1])
    return path[-1]


def balanced(rng: np.random.Generator) -> list[str]:
    letters, waiting = [], []
    for left in range(LENGTH, 0, -1):
        if waiting and (len(waiting) == left or rng.random() < 0.5):
            letters.append(CLOSE[OPEN.index(waiting.pop())])
        else:
            waiting += OPEN[rng.integers(2)]
            letters += waiting[-1]
    return letters


def is_balanced(letters: list[str]) -> bool:
    word = "".join(letters)
    for _ in letters:
        word = word.replace("()", "").replace("[]", "")
    return not word


def data(rng: np.random.Generator, rows: int) -> tuple[np.ndarray, np.ndarray]:
    words = [balanced(rng) for _ in range(rows)]
    for word in words[::2]:
        while is_balanced(word):
            i, k = rng.integers(0, LENGTH, 2)
            word[i], word[k] = word[k], word[i]
    x = [[(OPEN + CLOSE).index(letter) for letter in word] for word in words]
    return np.array(x), np.array([[is_balanced(word)] for word in words], float)


def main(seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    (x, t), test = data(rng, 12000), data(rng, 2000)
    adam, start = nnc.Adam(nnc.Cosine(3e-3, steps=EPOCHS * len(x) // 64)), time.perf_counter()
    settings = {"loss": "binary_cross_entropy", "metrics": "accuracy", "seed": seed}
    model = nnc.compile(network(), optimizer=adam, **settings)
    for _ in range(3):
        model.fit(x, t, epochs=EPOCHS // 3, batch_size=64, verbose=0)
        share = model.evaluate(*test)["accuracy"]
        print(f"after {model.epoch} epochs {share:.1%} of 2000 new words are told right")
    print(f"{time.perf_counter() - start:.1f} s in all")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
