"""Pictures: valid SVG that holds every neuron and edge, in colours that follow the numbers."""

from __future__ import annotations

import itertools
from typing import Any
from xml.etree import ElementTree

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nncompiler as nnc
from nncompiler.picture import layout
from nncompiler.picture.colors import NEGATIVE, POSITIVE, filling, line
from nncompiler.picture.layout import Item, lay_out
from nncompiler.picture.ranks import natural, ranks_of
from tests.networks import classifier, two_inputs
from tests.nncompiler.dags import ends, evaluate, random_dag

OPTIONS = nnc.Options(threads=1)
SVG = "{http://www.w3.org/2000/svg}"


def compiled(g: Any, **settings: Any) -> Any:
    return nnc.compile(g, **{"dtype": "float64", "options": OPTIONS, **settings})


def groups(picture: Any, kind: str) -> dict[str, ElementTree.Element]:
    """The groups of a class by their tooltips; the SVG is well formed."""
    root = ElementTree.fromstring(picture.svg)
    assert root.tag == f"{SVG}svg"
    found = [g for g in root.iter(f"{SVG}g") if g.get("class") == kind]
    titles = [g.findtext(f"{SVG}title") or "" for g in found]
    assert len(set(titles)) == len(titles)
    return dict(zip(titles, found, strict=True))


def shape(group: ElementTree.Element, name: str) -> ElementTree.Element:
    found = group.find(f"{SVG}{name}")
    assert found is not None
    return found


def signs() -> nx.DiGraph:
    g = nx.DiGraph()
    g.add_node("y", activation="tanh", bias=0.5)
    weights = {"a": 2.0, "b": 1.0, "c": 0.5, "d": -0.5, "e": -2.0, "f": 0.0}
    g.add_weighted_edges_from((u, "y", w) for u, w in weights.items())
    return g


# --------------------------------------------------------------------------- neurons


@pytest.mark.parametrize("seed", range(4))
def test_every_neuron_and_every_edge_is_there(seed: int) -> None:
    g = random_dag(seed, 30, isolated=1, aggregations=("sum", "max", "median"))
    picture = compiled(g).picture()
    nodes, edges = groups(picture, "node"), groups(picture, "edge")
    assert {title.partition(":")[0] for title in nodes} == {str(n) for n in g}
    assert {title.partition(":")[0] for title in edges} == {f"{u} -> {v}" for u, v in g.edges}
    assert picture._repr_svg_() == picture.svg == str(picture)


def test_colours_and_widths_follow_sign_and_size() -> None:
    edges = groups(compiled(signs()).picture(), "edge")
    by_source = {title[0]: shape(group, "path") for title, group in edges.items()}
    width = {u: float(p.get("stroke-width", "")) for u, p in by_source.items()}
    assert width["a"] > width["b"] > width["c"] > width["f"]
    assert width["c"] == width["d"] and width["a"] == width["e"]

    def color(u: str) -> tuple[int, ...]:
        text = by_source[u].get("stroke", "")
        return tuple(int(text[i : i + 2], 16) for i in (1, 3, 5))

    assert color("a") == POSITIVE and color("e") == NEGATIVE
    assert all(color(u)[2] > color(u)[0] for u in "abc")
    assert all(color(u)[0] > color(u)[2] for u in "de")
    assert color("b")[0] > color("a")[0]  # paler
    assert len(set(color("f"))) == 1  # grey


@given(a=st.floats(-3, 3), b=st.floats(-3, 3))
def test_a_larger_number_is_never_paler_or_thinner(a: float, b: float) -> None:
    if abs(a) > abs(b):
        a, b = b, a
    assert line(a, 3.0)[1] <= line(b, 3.0)[1]
    distance = [sum(247 - int(filling(v, 3.0)[i : i + 2], 16) for i in (1, 3, 5)) for v in (a, b)]
    if a * b > 0:
        assert distance[0] <= distance[1]


def test_values_are_those_of_the_network() -> None:
    g = random_dag(3, 25, aggregations=("sum", "min", "mean", "product"))
    inputs, outputs = ends(g)
    model = compiled(g)
    x = np.random.default_rng(0).normal(size=(1, len(inputs)))
    w = {name: np.array(value) for name, value in model.parameters.items()}
    _, (values, _, _), _ = evaluate(g, x, w, inputs, outputs)
    for given_x in (x, x[0]):
        nodes = groups(model.picture(given_x), "node")
        for title, group in nodes.items():
            name = title.partition(":")[0]
            shown = float(title.rpartition("value ")[2])
            fill = shape(group, "circle").get("fill", "")
            assert shown == pytest.approx(values[name][0], rel=1e-5, abs=1e-12)
            red, blue = int(fill[1:3], 16), int(fill[5:7], 16)
            assert (red < blue) if shown > 0.2 else (red > blue) if shown < -0.2 else True


def test_one_example_and_no_more() -> None:
    with pytest.raises(ValueError, match="one example"):
        compiled(signs()).picture(np.ones((2, 6)))
    with pytest.raises(ValueError, match="one example"):
        compiled(signs()).picture(np.ones(5))


def test_layers_that_were_found_are_framed() -> None:
    g = nx.DiGraph()
    g.add_nodes_from((f"h{i}" for i in range(12)), activation="tanh")
    g.add_edges_from((f"x{i}", f"h{j}") for i in range(3) for j in range(12))
    g.add_edges_from((f"h{j}", "y") for j in range(12))
    model = compiled(g)
    picture = model.picture()
    (title,) = groups(picture, "layer")
    assert title == "layer1: 12 neurons, tanh, 36 weights"
    frame = shape(groups(picture, "layer")[title], "rect").attrib
    top, bottom = float(frame["y"]), float(frame["y"]) + float(frame["height"])
    for tip, group in groups(picture, "node").items():
        center = float(shape(group, "circle").get("cy", ""))
        beside = float(shape(group, "circle").get("cx", ""))
        inside = top < center < bottom and 0 < beside - float(frame["x"]) < float(frame["width"])
        assert inside == tip.startswith("h")


def test_frozen_shared_and_unused_edges_are_told_apart() -> None:
    g = signs()
    g.edges["a", "y"]["trainable"] = False
    g.edges["b", "y"]["weight_name"] = "w"
    g.add_edge("c", "aside", weight=1.0)
    g.graph["outputs"] = ["y"]
    edges = groups(compiled(g, loss="mse").picture(), "edge")
    assert shape(edges["a -> y: weight 2, frozen"], "path").get("stroke-dasharray") == "1 5"
    assert shape(edges["b -> y: weight 1, shared as w"], "path").get("stroke-dasharray") is None
    assert shape(edges["c -> aside: weight 1, takes no part"], "path").get("stroke-dasharray")


def test_delayed_edges_are_told_apart() -> None:
    g = nx.DiGraph()
    g.add_node("h", activation="tanh")
    g.add_weighted_edges_from(
        [("x", "h", 1.0), ("h", "y", 0.5), ("y", "h", -1.0), ("h", "h", 0.25)]
    )
    g.graph.update(inputs=["x"], outputs=["y"])
    model = compiled(g, recurrent=True)
    edges = groups(model.picture(), "edge")
    back = shape(edges["y -> h: weight -1, delay 1"], "path")
    assert back.get("stroke-dasharray") == "9 3"
    assert "h -> h: weight 0.25, delay 1" in edges and "x -> h: weight 1" in edges
    with pytest.raises(ValueError, match="without memory"):
        model.picture(np.ones(1))


def test_trained_weights_are_drawn_as_they_are_now() -> None:
    model = compiled(signs())
    before = model.picture().svg
    model.parameters["a->y"][...] = -7.0
    assert "a -&gt; y: weight -7" in model.picture().svg
    assert model.picture().svg != before


def test_a_picture_does_not_depend_on_the_order_of_insertion() -> None:
    g = random_dag(7, 25)
    inputs, outputs = ends(g)
    g.graph.update(inputs=sorted(inputs), outputs=sorted(outputs))
    for _, _, data in g.edges(data=True):
        data.setdefault("weight", 0.25)
    other = nx.DiGraph(**g.graph)
    other.add_nodes_from(sorted(g.nodes(data=True), key=lambda n: str(n[0]), reverse=True))
    other.add_edges_from(sorted(g.edges(data=True), key=lambda e: (str(e[1]), str(e[0]))))
    assert compiled(g).picture().svg == compiled(g).picture().svg == compiled(other).picture().svg


def test_odd_names_are_escaped() -> None:
    g = nx.DiGraph()
    g.add_edge('<a & "b">', "tab\tbell\x07", weight=1.0)
    g.nodes["tab\tbell\x07"]["activation"] = lambda x: x * x
    picture = compiled(g).picture([1.0])
    titles = " ".join([*groups(picture, "node"), *groups(picture, "edge")])
    assert '<a & "b">' in titles
    assert "bell?" in titles and "\x07" not in picture.svg


def test_a_large_graph_is_one_box_per_layer(tmp_path: Any) -> None:
    sizes = (40, 60, 30)
    columns = [[f"{c}{i}" for i in range(n)] for c, n in zip("xhy", sizes, strict=True)]
    g = nx.DiGraph()
    g.add_nodes_from(columns[1] + columns[2], activation="tanh")
    for a, b in itertools.pairwise(columns):
        g.add_edges_from(itertools.product(a, b))
    picture = compiled(g).picture(np.linspace(-1, 1, 40))
    assert list(groups(picture, "node")) == [
        "inputs: 40 neurons",
        "layer1: 60 neurons, tanh, 2,400 weights",
        "layer2: 30 neurons, tanh, 1,800 weights",
    ]
    assert "layer1 -> layer2: 1,800 edges" in groups(picture, "edge")
    assert "130 neurons and 4,200 edges" in picture.svg
    assert len(picture.svg) < 100_000
    path = picture.save(tmp_path / "graph.svg")
    assert path.read_text() == picture.svg


# --------------------------------------------------------------------------- layers


def test_a_layer_graph_has_a_box_per_layer() -> None:
    model = compiled(classifier(), loss="cross_entropy")
    picture = model.picture(np.arange(4.0))
    boxes = groups(picture, "node")
    assert [t.partition(":")[0] for t in boxes] == ["x", "hidden", "scores"]
    texts = [t.text for t in boxes[[*boxes][1]].iter(f"{SVG}text")]
    assert texts == ["hidden", "dense, tanh", "f64[batch,8]", "40 parameters"]
    cells = list(boxes[[*boxes][1]].iter(f"{SVG}rect"))
    assert len(cells) == 1 + 4 * 8 + 8  # the box, its weights, its values
    assert [t.partition(":")[0] for t in groups(picture, "edge")] == [
        "x -> hidden",
        "hidden -> scores",
    ]
    assert model._repr_svg_() == model.picture().svg
    two = (np.ones(2), np.ones((1, 3)))
    assert len(groups(compiled(two_inputs()).picture(two), "node")) == 5


def test_layers_of_objectives_take_part_and_unused_ones_do_not() -> None:
    g = classifier()
    g.add_node("other", op="dense", units=2)
    g.add_edge("hidden", "other")
    parts = {n: nnc.Objective(loss={n: "mse"}, optimizer="sgd") for n in ("scores", "other")}
    boxes = groups(compiled(g, outputs=["scores"], objectives=parts).picture(), "node")
    assert any(t.startswith("other: dense, f64[batch,2]\nother.weight (8, 2)") for t in boxes)
    g = classifier()
    g.add_node("aside", op="dense", units=2)
    g.add_edge("hidden", "aside")
    boxes = groups(compiled(g, outputs=["scores"]).picture(), "node")
    assert "aside: takes no part" in boxes


# --------------------------------------------------------------------------- layout


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 30))
def test_nodes_of_a_column_never_overlap_and_groups_stay_together(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    items = [
        Item(
            i, int(rng.integers(0, 4)), float(rng.integers(10, 40)), int(rng.integers(0, 3)) or None
        )
        for i in range(count)
    ]
    edges = [
        (a.key, b.key) for a in items for b in items if a.column < b.column and rng.random() < 0.2
    ]
    found = lay_out(items, edges, 8.0)
    for number in range(4):
        row = sorted((i for i in items if i.column == number), key=lambda i: found.place[i.key])
        for a, b in itertools.pairwise(row):
            distance = found.place[b.key] - found.place[a.key]
            assert distance >= (a.size + b.size) / 2 + 8 - 1e-6
        runs = [g for g, _ in itertools.groupby(row, lambda i: i.group) if g is not None]
        assert len(runs) == len(set(runs))
    for (u, v), route in found.routes.items():
        column = {i.key: i.column for i in items}
        assert len(route) == column[v] - column[u] - 1


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10**6))
def test_crossings_are_counted_as_by_pairs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    left, right = [Item(("l", i), 0, 1.0) for i in range(6)], [Item(i, 1, 1.0) for i in range(6)]
    columns = layout._Columns([left, right])
    pairs = [(i, j) for i in range(6) for j in range(6) if rng.random() < 0.4]
    for i, j in pairs:
        columns.link(("l", i), j)
    by_pairs = sum((a[0] - b[0]) * (a[1] - b[1]) < 0 for a, b in itertools.combinations(pairs, 2))
    assert layout._crossings(columns) == by_pairs


def test_what_can_be_drawn_without_crossings_is() -> None:
    tree = nx.balanced_tree(2, 4, create_using=nx.DiGraph)
    items = [Item(n, r, 10.0) for n, r in ranks_of(tree).items()]
    mixed = np.random.default_rng(1).permutation(len(items))
    found = lay_out([items[i] for i in mixed], list(tree.edges), 5.0)
    assert found.crossings == 0


def test_ranks_are_longest_paths_and_bear_cycles() -> None:
    g = nx.DiGraph([("a", "b"), ("b", "c"), ("a", "c"), ("a", "end")])
    assert ranks_of(g) == {"a": 0, "b": 1, "c": 2, "end": 2}
    g.add_edges_from([("c", "b"), ("b", "b")])
    ranks = ranks_of(g)
    assert ranks["a"] == 0 and set(ranks) == set(g)
    assert sorted(["h10", "h2", "g", 3], key=natural) == [3, "g", "h2", "h10"]
