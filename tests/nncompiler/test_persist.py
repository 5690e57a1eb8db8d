"""Saved models: whole, exact, without pickle; damaged and foreign files are told apart."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest

import nncompiler as nnc
from nncompiler.archive import pack
from nncompiler.codec import Decoder, Encoder, decode_graph, encode_graph
from tests.networks import classifier, compiled, data, neurons, two_inputs

X, T = data(70)


def with_dropout() -> nx.DiGraph:
    g = classifier()
    g.remove_edge("hidden", "scores")
    g.add_node("dropped", op="dropout", rate=0.25)
    nx.add_path(g, ["hidden", "dropped", "scores"])
    return g


@pytest.mark.parametrize(
    "optimizer",
    [
        nnc.SGD(0.1, momentum=0.9, nesterov=True, clip_norm=1.0),
        nnc.Adam(nnc.Cosine(0.01, steps=50)),
        nnc.RMSProp(0.01, clip_value=0.5),
        "adagrad",
    ],
)
def test_training_goes_on_exactly(optimizer: Any, tmp_path: Path) -> None:
    settings = {"regularizer": nnc.L2(1e-3), "seed": 3}
    model = compiled(with_dropout(), optimizer=optimizer, **settings)
    model.fit(X, T, epochs=2, batch_size=16, verbose=0)
    model.learning_rate = model.learning_rate / 2
    model.save(tmp_path / "m.nnc")
    again = nnc.load(tmp_path / "m.nnc")
    assert again.history.history == model.history.history
    np.testing.assert_array_equal(again(X), model(X))
    ours = model.fit(X, T, epochs=3, batch_size=16, verbose=0).history
    assert again.fit(X, T, epochs=3, batch_size=16, verbose=0).history == ours
    assert all(np.array_equal(again.state[k], model.state[k]) for k in model.state)


def test_a_model_without_its_first_schedule_is_saved(tmp_path: Path) -> None:
    model = compiled(optimizer=nnc.SGD(nnc.Cosine(0.1, steps=9)))
    bound = model.bind(X, T)
    model.step(X, T)
    model.learning_rate = nnc.Constant(0.05)
    bound()
    model.step(X, T)
    model.save(tmp_path / "m.nnc")
    again = nnc.load(tmp_path / "m.nnc")
    assert again.step(X, T) == model.step(X, T)
    assert set(again.state) == set(model.state)


def test_a_saved_reset_model_keeps_its_new_seed(tmp_path: Path) -> None:
    model = compiled()
    model.reset(5)
    model.save(tmp_path / "m.nnc")
    again = nnc.load(tmp_path / "m.nnc")
    ours = model.fit(X, T, epochs=2, verbose=0).history
    assert again.fit(X, T, epochs=2, verbose=0).history == ours


def test_neuron_graphs_and_several_inputs_are_saved(tmp_path: Path) -> None:
    model = nnc.compile(neurons(), loss="mse", optimizer="sgd")
    model.step(X[:, :2], X[:, :1])
    model.save(tmp_path / "m.nnc")
    again = nnc.load(tmp_path / "m.nnc")
    np.testing.assert_array_equal(again(X[:, :2]), model(X[:, :2]))
    assert list(again.parameters) == list(model.parameters)


def test_graphs_come_back_with_order_slots_and_values() -> None:
    g = nx.MultiDiGraph(purpose="test")
    g.add_node("c", op="constant", value=np.arange(3.0))
    g.add_node(("a", 1), op="input", shape=("batch", 3), note=[1, None, float("inf")])
    g.add_node("d", op="sub", options={1: "x"})
    g.add_edge("c", "d")
    g.add_edge(("a", 1), "d")
    g.add_edge(("a", 1), "d")
    encoder = Encoder()
    text = json.dumps(encode_graph(g, encoder))
    back = decode_graph(json.loads(text), Decoder(encoder.arrays))
    assert list(back) == list(g)
    assert back.graph == g.graph
    assert back.nodes["a", 1] == g.nodes["a", 1]
    assert back.nodes["d"] == g.nodes["d"]
    np.testing.assert_array_equal(back.nodes["c"]["value"], np.arange(3.0))
    assert [(u, d["slot"]) for u, _, d in back.in_edges("d", data=True)] == [
        ("c", 0),
        (("a", 1), 1),
        (("a", 1), 2),
    ]


def test_numbers_of_numpy_stay_numbers(tmp_path: Path) -> None:
    units, slope = (np.arange(9, dtype=np.int64)[8], np.float32(0.25))
    g = nx.DiGraph([("x", np.int64(1))])
    g.add_node("x", op="input", shape=("batch", np.int64(4)))
    g.add_node(np.int64(1), op="dense", units=units, activation=("leaky_relu", {"slope": slope}))
    model = nnc.compile(g, loss="mse", optimizer=nnc.SGD(np.float64(0.1)))
    model.save(tmp_path / "m.nnc")
    again = nnc.load(tmp_path / "m.nnc")
    np.testing.assert_array_equal(again(X), model(X))
    assert list(again.parameters) == list(model.parameters)


def test_order_of_operands_is_kept() -> None:
    encoder = Encoder()
    saved = encode_graph(two_inputs(), encoder)
    slots = {e["source"]: e["data"] for e in saved["edges"] if e["target"] == "both"}
    assert slots == {"a": {"slot": 0}, "b": {"slot": 1}}


def test_files_hold_no_code(tmp_path: Path) -> None:
    compiled().save(tmp_path / "m.nnc")
    with zipfile.ZipFile(tmp_path / "m.nnc") as archive:
        assert all(n == "model.json" or n.endswith(".npy") for n in archive.namelist())
        assert json.loads(archive.read("model.json"))["format"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["m.nnc"]


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"graph": classifier(lambda x: x / (1 + abs(x)))}, "activation of node 'hidden'"),
        ({"loss": lambda y, t: (y - t) ** 2}, "'loss'"),
        ({"optimizer": nnc.SGD(lambda t: 0.1 / (1 + t))}, "learning_rate.*'optimizer'"),
    ],
)
def test_functions_cannot_be_saved(settings: dict[str, Any], text: str, tmp_path: Path) -> None:
    model = compiled(**{"metrics": (), **settings})
    with pytest.raises(TypeError, match=text):
        model.save(tmp_path / "m.nnc")
    assert not list(tmp_path.iterdir())


# --------------------------------------------------------------------------- damaged files


def rewritten(path: Path, change: Callable[[dict[str, bytes]], object]) -> None:
    with zipfile.ZipFile(path) as archive:
        members = {n: archive.read(n) for n in archive.namelist()}
    change(members)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def edit_header(**changes: Any) -> Callable[[dict[str, bytes]], object]:
    def change(members: dict[str, bytes]) -> None:
        header = json.loads(members["model.json"])
        members["model.json"] = json.dumps({**header, **changes}).encode()

    return change


def flip_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[content.index(b"\x93NUMPY") + 128] ^= 0xFF  # in an array's data
    path.write_bytes(content)


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut": (lambda p: p.write_bytes(p.read_bytes()[:200]), "damaged"),
    "flipped": (flip_byte, "damaged"),
    "text": (lambda p: p.write_text("hello"), "damaged or is not"),
    "empty": (lambda p: p.write_bytes(b""), "damaged or is not"),
    "other zip": (lambda p: rewritten(p, lambda m: m.clear()), "not a saved"),
    "newer": (lambda p: rewritten(p, edit_header(format=99)), "format 99.*newer"),
    "no state": (lambda p: rewritten(p, lambda m: m.pop("state/0000.npy")), "damaged"),
    "wrong state": (
        lambda p: rewritten(p, lambda m: m.update({"state/0000.npy": pack(np.zeros(3))})),
        "damaged",
    ),
    "pickle": (
        lambda p: rewritten(
            p, lambda m: m.update({"state/0000.npy": pickled(np.array([None], object))})
        ),
        "damaged",
    ),
    "header": (lambda p: rewritten(p, lambda m: m.update({"model.json": b"{"})), "damaged"),
    "no graph": (lambda p: rewritten(p, edit_header(graph=None)), "damaged"),
    "foreign object": (
        lambda p: rewritten(p, edit_header(arguments={"loss": {"$type": "os.system"}})),
        "damaged.*os.system",
    ),
}


def pickled(array: np.ndarray) -> bytes:
    import io

    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_files_are_refused(name: str, tmp_path: Path) -> None:
    damage, text = DAMAGES[name]
    path = tmp_path / "m.nnc"
    compiled().save(path)
    damage(path)
    with pytest.raises(ValueError, match=text) as caught:
        nnc.load(path)
    assert "m.nnc" in str(caught.value)


def test_missing_files_and_folders_are_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        nnc.load(tmp_path / "nothing.nnc")
    with pytest.raises(FileNotFoundError):
        compiled().save(tmp_path / "no" / "m.nnc")


# --------------------------------------------------------------------------- weights


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_weights_go_from_model_to_model(suffix: str, tmp_path: Path) -> None:
    if suffix == ".safetensors":
        pytest.importorskip("safetensors")
    path = tmp_path / f"w{suffix}"
    one, two = compiled(seed=1), compiled(seed=2)
    one.save_weights(path)
    assert two.load_weights(path) == list(one.parameters)
    np.testing.assert_array_equal(two(X), one(X))


def test_npz_weights_are_numpys(tmp_path: Path) -> None:
    model = compiled()
    model.save_weights(tmp_path / "w.npz")
    with np.load(tmp_path / "w.npz") as arrays:
        for name, value in model.parameters.items():
            np.testing.assert_array_equal(arrays[name], value)
    np.savez(tmp_path / "v.npz", **dict(model.parameters))
    assert len(model.load_weights(tmp_path / "v.npz")) == 4


def test_neuron_weights_go_by_edges(tmp_path: Path) -> None:
    model = nnc.compile(neurons())
    model.save_weights(tmp_path / "w.npz")
    with np.load(tmp_path / "w.npz") as arrays:
        assert arrays["h2->y"] == -2.0


def test_strict_loading_needs_the_same_names_and_shapes(tmp_path: Path) -> None:
    path = tmp_path / "w.npz"
    wide = classifier()
    wide.nodes["hidden"]["units"] = 9
    compiled(wide).save_weights(path)
    model = compiled()
    before = model.state.copy()
    with pytest.raises(ValueError, match=r"hidden.*\(4, 9\).*\(4, 8\)"):
        model.load_weights(path)
    assert all(np.array_equal(model.state[k], before[k]) for k in before)
    assert model.load_weights(path, strict=False) == ["scores.bias"]
    np.savez(path, other=np.zeros(3))
    with pytest.raises(ValueError, match="missing 'hidden.weight'.*'other'"):
        model.load_weights(path)
    path.write_text("no")
    with pytest.raises(ValueError, match="damaged"):
        model.load_weights(path)
