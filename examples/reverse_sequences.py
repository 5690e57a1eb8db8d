"""An encoder and a decoder reverse sequences of letters.

The encoder reads the word; the decoder writes letter after letter, from those that it has written
and from what its attention picks of the encoder's states. Training shows it the right letters so
far; afterwards it has to go on from its own.

    python examples/reverse_sequences.py
"""

from __future__ import annotations

import time

import networkx as nx
import numpy as np

import nncompiler as nnc

LETTERS, LENGTH, WIDTH, WORDS = "abcdefghijklmnopqrstuvwxyz", 8, 48, 8000
START = len(LETTERS)  # what the decoder sees before it has written anything


def network() -> nx.DiGraph:
    g = nx.DiGraph()
    table = {"num_embeddings": len(LETTERS) + 1, "embedding_dim": WIDTH}
    for name in ("word", "written"):
        g.add_node(name, op="input", shape=("batch", LENGTH), dtype="int32")
        g.add_node(f"letters of {name}", op="embedding", share="letters", **table)
        g.add_node(f"places of {name}", op="positional_encoding")
        nx.add_path(g, [name, f"letters of {name}", f"places of {name}"])
    states = {"op": "gru", "units": WIDTH, "return_sequences": True}
    g.add_node("encoder", **states)
    g.add_node("decoder", **states)
    g.add_edge("places of word", "encoder")
    g.add_edge("places of written", "decoder")
    g.add_node("look", op="attention", heads=2)
    g.add_edge("decoder", "look", slot="query")
    g.add_edge("encoder", "look", slot="key")
    g.add_node("both", op="add")
    g.add_node("next", op="dense", units=len(LETTERS))
    g.add_edges_from([("look", "both"), ("decoder", "both"), ("both", "next")])
    return g


def shifted(answers: np.ndarray) -> np.ndarray:
    """What is written before each letter of the answers."""
    return np.concatenate([np.full((len(answers), 1), START), answers[:, :-1]], 1)


def write(model: nnc.Model, words: np.ndarray) -> np.ndarray:
    """The decoder's own answers, letter after letter."""
    answers = np.zeros_like(words)
    for place in range(LENGTH):
        scores = model.predict({"word": words, "written": shifted(answers)})
        answers[:, place] = scores[:, place].argmax(1)
    return answers


def text(letters: np.ndarray) -> str:
    return "".join(LETTERS[i] for i in letters)


def main() -> None:
    rng = np.random.default_rng(0)
    words, test = (rng.integers(0, len(LETTERS), (n, LENGTH)) for n in (WORDS, 500))
    model = nnc.compile(network(), loss="cross_entropy", optimizer=nnc.Adam(0.005), seed=0)
    began = time.perf_counter()
    for _ in range(4):
        answers = words[:, ::-1]
        x = {"word": words, "written": shifted(answers)}
        model.fit(x, answers, epochs=2, batch_size=64, verbose=0)
        right = (write(model, test) == test[:, ::-1]).all(1).mean()
        seconds = time.perf_counter() - began
        print(f"after {model.epoch} epochs {right:.1%} of 500 new words, {seconds:.1f} s")
    for word, answer in zip(test[:3], write(model, test[:3]), strict=True):
        print(f"{text(word)} -> {text(answer)}")
    if right < 0.9:
        raise SystemExit("the network did not learn")


if __name__ == "__main__":
    main()
