"""Tells from a paragraph of documentation which package of Python's standard library it is about.

The texts are the docstrings in the library's own source files; every fifth is kept for the test.
A text is the mean of its words' vectors. The optimizer is lazy: a step costs what the words of its
batch cost, however many words there are.

    python examples/text_classifier.py
"""

from __future__ import annotations

import ast
import re
import sysconfig
from collections import Counter
from pathlib import Path

import networkx as nx
import numpy as np

import nncompiler as nnc

PACKAGES = ("asyncio", "email", "logging", "unittest", "xml", "json", "http", "importlib")
LENGTH, WIDTH, RARE = 60, 32, 2


def documentation(package: str) -> list[list[str]]:
    """The words of every docstring of some length in a package."""
    texts: dict[str, None] = {}
    for path in sorted((Path(sysconfig.get_path("stdlib")) / package).rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8", errors="replace"))
        for node in ast.walk(tree):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                texts[ast.get_docstring(node) or ""] = None
    words = (re.findall(r"[a-z]+", text.lower()) for text in texts)
    return [w for w in words if len(w) >= 5]


def numbered(texts: list[list[str]], known: dict[str, int]) -> np.ndarray:
    """(texts, LENGTH) numbers of words; 0 where there is none, or one that is not known."""
    rows = np.zeros((len(texts), LENGTH), np.int32)
    for row, words in zip(rows, texts, strict=True):
        numbers = [known.get(w, 0) for w in words[:LENGTH]]
        row[: len(numbers)] = numbers
    return rows


def network(words: int) -> nx.DiGraph:
    g = nx.DiGraph()
    g.add_node("words", op="input", shape=("batch", LENGTH), dtype="int32")
    table = {"num_embeddings": words, "embedding_dim": WIDTH, "padding_index": 0}
    g.add_node("meaning", op="embedding_bag", **table)
    g.add_node("package", op="dense", units=len(PACKAGES))
    nx.add_path(g, ["words", "meaning", "package"])
    return g


def main() -> None:
    found = [(text, i) for i, name in enumerate(PACKAGES) for text in documentation(name)]
    train = [pair for i, pair in enumerate(found) if i % 5]
    test = found[::5]
    counts = Counter(word for words, _ in train for word in set(words))
    known = {w: i + 1 for i, w in enumerate(sorted(w for w, n in counts.items() if n >= RARE))}
    (x, t), (x_test, t_test) = (
        (numbered([words for words, _ in part], known), np.array([c for _, c in part]))
        for part in (train, test)
    )
    model = nnc.compile(
        network(len(known) + 1),
        loss="cross_entropy",
        optimizer=nnc.Adam(0.01, lazy=True),
        metrics=("accuracy",),
    )
    print(f"{len(train)} texts to learn from, {len(test)} to test, {len(known)} words")
    most = np.bincount(t).argmax()
    print(f"always {PACKAGES[most]}: {np.mean(t_test == most):.1%} of the test texts are right")
    model.fit(x, t, epochs=12, batch_size=32, verbose=0)
    print(f"the network: {model.evaluate(x_test, t_test)['accuracy']:.1%}")
    for text in ("schedule a coroutine on the event loop", "parse the header of the message"):
        scores = model(numbered([text.split()], known))[0]
        print(f"'{text}': {PACKAGES[scores.argmax()]}")


if __name__ == "__main__":
    main()
