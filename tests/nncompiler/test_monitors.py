"""Callbacks that watch a number: the learning rate on a plateau, and saved models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest

import nncompiler as nnc

RNG = np.random.default_rng(17)
X = RNG.normal(size=(8, 3))


def model_of() -> nnc.Model:
    g: Any = nx.DiGraph()
    g.add_node("x", op="input", shape=("batch", 3))
    g.add_node("y", op="dense", units=2)
    g.add_edge("x", "y")
    return nnc.compile(g, loss="mse", optimizer=nnc.SGD(0.1))


def feed(callback: Any, values: list[float], name: str = "val_loss") -> list[float]:
    """The learning rate after every epoch with these values."""
    model = model_of()
    callback.set_model(model)
    callback.on_train_begin({})
    rates = []
    for epoch, value in enumerate(values):
        callback.on_epoch_end(epoch, {name: value})
        rates.append(model.learning_rate)
    return rates


def test_a_plateau_lowers_the_learning_rate() -> None:
    found = feed(nnc.ReduceLROnPlateau(factor=0.5, patience=2), [3, 2, 2, 2, 2, 2, 1, 1])
    assert found == pytest.approx([0.1, 0.1, 0.1, 0.05, 0.05, 0.025, 0.025, 0.025])


def test_small_gains_do_not_count_and_the_rate_has_a_floor() -> None:
    callback = nnc.ReduceLROnPlateau(factor=0.1, patience=1, min_delta=0.5, min_lr=0.02)
    assert feed(callback, [3, 2.9, 2.8, 2.7]) == pytest.approx([0.1, 0.02, 0.02, 0.02])


def test_after_a_change_the_plateau_rests() -> None:
    callback = nnc.ReduceLROnPlateau(factor=0.5, patience=1, cooldown=2)
    found = feed(callback, [1, 1, 1, 1, 1])
    assert found == pytest.approx([0.1, 0.05, 0.05, 0.05, 0.025])


def test_an_accuracy_is_better_when_larger() -> None:
    callback = nnc.ReduceLROnPlateau("val_accuracy", factor=0.5, patience=1)
    found = feed(callback, [0.5, 0.6, 0.55], "val_accuracy")
    assert found == pytest.approx([0.1, 0.1, 0.05])


def test_training_lowers_the_rate_itself() -> None:
    model = model_of()
    model.fit(
        X,
        np.zeros((8, 2)),
        epochs=4,
        callbacks=[nnc.ReduceLROnPlateau("loss", factor=0.5, patience=1, min_delta=100.0)],
        verbose=0,
    )
    assert model.learning_rate == pytest.approx(0.1 / 8)


def test_every_epoch_or_only_the_best_is_saved(tmp_path: Path) -> None:
    model, x, t = model_of(), X, np.zeros((8, 2))
    every = nnc.ModelCheckpoint(tmp_path / "all-{epoch:02d}.nnc")
    best = nnc.ModelCheckpoint(tmp_path / "best.npz", "loss", True, True)
    model.fit(x, t, epochs=3, callbacks=[every, best], verbose=0)
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == ["all-01.nnc", "all-02.nnc", "all-03.nnc", "best.npz"]
    np.testing.assert_array_equal(nnc.load(tmp_path / "all-03.nnc").predict(x), model.predict(x))
    other = model_of()
    other.load_weights(tmp_path / "best.npz")
    np.testing.assert_array_equal(other.predict(x), model.predict(x))  # the loss fell throughout


def test_only_better_epochs_are_saved(tmp_path: Path) -> None:
    callback = nnc.ModelCheckpoint(tmp_path / "{val_loss:.1f}.nnc", save_best_only=True)
    feed(callback, [3.0, 2.0, 2.5, 1.0])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["1.0.nnc", "2.0.nnc", "3.0.nnc"]


def test_a_saved_epoch_goes_on_as_training_did(tmp_path: Path) -> None:
    t = RNG.normal(size=(8, 2))
    model = model_of()
    checkpoint = nnc.ModelCheckpoint(tmp_path / "{epoch}.nnc")
    model.fit(X, t, epochs=4, batch_size=3, callbacks=[checkpoint], verbose=0)
    middle = nnc.load(tmp_path / "2.nnc")
    middle.fit(X, t, epochs=2, batch_size=3, verbose=0)
    np.testing.assert_array_equal(middle.predict(X), model.predict(X))


def test_mistakes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="factor"):
        nnc.ReduceLROnPlateau(factor=1.0)
    with pytest.raises(ValueError, match="patience"):
        nnc.ReduceLROnPlateau(patience=-1)
    with pytest.raises(ValueError, match="'val_los'; there are epoch, val_loss"):
        feed(nnc.ModelCheckpoint(tmp_path / "{val_los}.nnc"), [1.0])
    with pytest.warns(RuntimeWarning, match="ReduceLROnPlateau monitors 'val_loss'"):
        feed(nnc.ReduceLROnPlateau(), [1.0], "loss")
