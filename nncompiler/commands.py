"""Takes parsed command lines, gives what `nnc demo`, `nnc inspect` and `nnc compare` print."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nncompiler.options import Options
from nncompiler.stages import STAGES

if TYPE_CHECKING:
    import networkx as nx

    from nncompiler.model import Model

WRONG, MISUSE = 1, 2
EXCERPT = 12


class CommandError(Exception):
    """One line for the user, and the exit code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


# --------------------------------------------------------------------------- demo


def demo(arguments: argparse.Namespace) -> int:
    """Trains on four fifths of the digits and tests on the others."""
    import nncompiler as nnc

    images, labels = _digits()
    order = np.random.default_rng(0).permutation(len(images))
    cut = len(images) * 4 // 5
    train, test = order[:cut], order[cut:]
    began = time.perf_counter()
    model = nnc.compile(
        _digits_network(),
        loss="cross_entropy",
        optimizer=nnc.SGD(0.05, momentum=0.9),
        metrics=("accuracy",),
        seed=arguments.seed,
        options=Options(threads=arguments.threads),
    )
    compiled = time.perf_counter() - began
    print(f"digits: {len(train)} images to learn from, {len(test)} to test on; 64-128-64-10")
    print(f"compiled in {compiled * 1e3:.0f} ms\n")
    seconds = _train(model, images[train], labels[train], arguments.epochs)
    steps = arguments.epochs * -(-len(train) // 32)
    result = model.evaluate(images[test], labels[test])
    print(f"\ntest accuracy {result['accuracy']:.2%}, test loss {result['loss']:.4f}")
    print(f"{steps} steps of 32 images in {seconds:.3f} s: {steps / seconds:,.0f} steps/s")
    if arguments.stage != "none":
        _show_stages(model, arguments.stage)
    return 0


def _train(model: Model, x: Any, t: Any, epochs: int) -> float:
    """Trains epoch by epoch, printing about ten of them; the seconds spent in fit."""
    shown = {round(e) for e in np.linspace(1, epochs, min(epochs, 10))}
    seconds = 0.0
    for epoch in range(1, epochs + 1):
        began = time.perf_counter()
        history = model.fit(x, t, epochs=1, batch_size=32, verbose=0).history
        seconds += time.perf_counter() - began
        if epoch in shown:
            loss, accuracy = history["loss"][-1], history["accuracy"][-1]
            print(f"epoch {epoch:3d}: loss {loss:.4f}, accuracy {accuracy:.4f}")
    return seconds


def _show_stages(model: Model, chosen: str | None) -> None:
    for name in STAGES if chosen in (None, "all") else (chosen,):
        lines = model.stages[name].splitlines()
        shown = lines if chosen is not None else lines[:EXCERPT]
        print(f"\n--- stage {name} ({len(lines)} lines)")
        print("\n".join(shown))
        if len(shown) < len(lines):
            print(f"    ... nnc demo --stage {name} prints it whole")


def _digits() -> tuple[Any, Any]:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise CommandError(
            "the demo trains on scikit-learn's digits: pip install 'nncompiler[demo]'", WRONG
        ) from error
    images, labels = load_digits(return_X_y=True)
    return (images / 16).astype(np.float32), labels


def _digits_network() -> nx.DiGraph[Any]:
    import networkx as nx

    g = nx.DiGraph()
    g.add_node("pixels", op="input", shape=("batch", 64))
    g.add_node("hidden1", op="dense", units=128, activation="relu")
    g.add_node("hidden2", op="dense", units=64, activation="relu")
    g.add_node("scores", op="dense", units=10)
    nx.add_path(g, ["pixels", "hidden1", "hidden2", "scores"])
    return g


# --------------------------------------------------------------------------- inspect, compare


def inspect(arguments: argparse.Namespace) -> int:
    """Prints a stage or the summary, or writes all of them."""
    model = _model(arguments)
    if arguments.output:
        for path in model.dump(arguments.output):
            print(path)
    elif arguments.summary:
        print(model.describe())
    else:
        print(model.stages[arguments.stage or arguments.chosen or "graph"])
    return 0


def compare(arguments: argparse.Namespace) -> int:
    """0 where the largest relative error is within the tolerance."""
    model = _model(arguments)
    x, t = model.example_data(arguments.batch, arguments.seed)
    result = model.compare(x, t)
    print(result)
    tolerance = arguments.tolerance
    if tolerance is None:
        tolerance = 1e-4 if model.settings.dtype == "float32" else 1e-9
    if not result.worst <= tolerance:
        raise CommandError(f"largest error {result.worst:.2e} exceeds {tolerance:.0e}", WRONG)
    print(f"compiled and reference agree within {tolerance:.0e}")
    return 0


def _model(arguments: argparse.Namespace) -> Model:
    import nncompiler as nnc

    path = Path(arguments.graph)
    try:
        if path.suffix == ".nnc":
            return nnc.load(path)
        return nnc.compile(
            read_graph(path),
            loss=arguments.loss,
            optimizer=arguments.optimizer,
            seed=arguments.seed,
            dtype=arguments.dtype,
        )
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror or error}", MISUSE) from error
    except (ValueError, TypeError) as error:
        raise CommandError(f"{path}: {error}", WRONG) from error


def read_graph(path: Path) -> nx.DiGraph[Any]:
    """The graph of a node-link JSON file; lists become tuples, as the attributes need."""
    import networkx as nx

    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CommandError(f"{path}: not a JSON file: {error}", MISUSE) from error
    if not isinstance(data, dict) or not isinstance(data.get("nodes"), list):
        raise CommandError(f"{path}: not a graph in node-link form (no list of nodes)", MISUSE)
    links = "edges" if "edges" in data else "links"
    try:
        graph = nx.node_link_graph({"directed": True, "multigraph": False, **data}, edges=links)
    except (KeyError, TypeError, nx.NetworkXError) as error:
        raise CommandError(f"{path}: not a graph in node-link form: {error}", MISUSE) from error
    if not graph.is_directed():
        raise CommandError(f"{path}: the graph must be directed", WRONG)
    for _, attributes in graph.nodes(data=True):
        attributes.update({k: _tuples(v) for k, v in attributes.items()})
    return graph


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value
