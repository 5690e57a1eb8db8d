"""Looking inside: summary, stages, dump, profile."""

from __future__ import annotations

from pathlib import Path

import networkx as nx
import numpy as np
import pytest

import nncompiler as nnc
from ir.text import parse_graph, print_graph
from nncompiler.table import Table, bytes_text
from tests.networks import classifier, compiled, data

X, T = data()
STAGES = ("graph", "gradient", "simplified", "kernels", "loops", "llvm", "assembly")


def digits_network() -> nx.DiGraph:
    g = nx.DiGraph()
    g.add_node("pixels", op="input", shape=("batch", 64))
    g.add_node("hidden1", op="dense", units=128, activation="relu")
    g.add_node("hidden2", op="dense", units=64, activation="relu")
    g.add_node("scores", op="dense", units=10)
    nx.add_path(g, ["pixels", "hidden1", "hidden2", "scores"])
    return g


def test_summary_prints_layers_kernels_and_memory(capsys: pytest.CaptureFixture[str]) -> None:
    model = nnc.compile(digits_network(), loss="cross_entropy", optimizer=nnc.SGD(0.1))
    table = model.summary()
    text = capsys.readouterr().out
    assert text.strip() == str(table).strip()
    for part in ("hidden1", "f32[batch,128]", "8,320", "17,226 parameters", "kernels", "arena"):
        assert part in text
    kernels = model.program("step").artifact.plan.kernels
    assert f"training step: {len(kernels)} kernels (" in text
    assert all(kernel.label in text for kernel in kernels)


def test_summary_says_what_form_each_kernel_has() -> None:
    neurons, rng = nx.DiGraph(), np.random.default_rng(0)
    for target in range(20, 60):
        neurons.add_node(target, activation="tanh", bias=0.0)
        for source in rng.choice(target, size=3, replace=False):
            neurons.add_edge(int(source), target, weight=0.5)
    text = str(nnc.compile(neurons).describe())
    assert "sums along edges: " in text
    g = nx.DiGraph()
    g.add_node("word", op="input", shape=("batch",), dtype="i64")
    g.add_node("y", op="embedding", num_embeddings=10, embedding_dim=3)
    nx.add_path(g, ["word", "y"])
    text = str(nnc.compile(g, loss="mse", optimizer=nnc.SGD(0.1)).describe())
    assert "rows added at an index: " in text


def test_fused_values_have_no_kernel_of_their_own() -> None:
    """Bias and activation run with their contraction, updates with the gradient of their weight,
    and softmax, cross-entropy and its gradient in one row loop."""
    model = nnc.compile(digits_network(), loss="cross_entropy", optimizer=nnc.SGD(0.1))
    kernels = model.program("step").artifact.plan.kernels
    where = {
        node.split(" = ")[0]: i
        for i, kernel in enumerate(kernels)
        for node in kernel.nodes
        if " = " in node
    }
    for layer in ("hidden1", "hidden2"):
        assert where[layer] == where[f"{layer}.z"]
        contraction = kernels[where[layer]]
        assert any("contract" in node for node in contraction.nodes)
    for name in model.parameters:
        assert f"new_{name}" in where
        assert where[f"new_{name}"] == where[f"d_{name}"]


def test_table_as_html_escapes_names() -> None:
    table = Table(("layer", "n"), (("<a>", "1,000"), ("b", "2")), ("note",))
    html = table._repr_html_()
    assert "&lt;a&gt;" in html
    assert "<a>" not in html
    assert str(table).splitlines()[2] == "<a>    1,000"
    assert [row["n"] for row in table] == ["1,000", "2"]
    assert len(table) == 2
    assert bytes_text(100) == "100 B"
    assert bytes_text(3 << 20) == "3.0 MiB"


@pytest.mark.parametrize("settings", [{}, {"optimizer": None}, {"loss": None, "metrics": ()}])
def test_stages_are_those_of_the_pipeline_in_order(settings: dict) -> None:
    model = compiled(**settings)
    assert tuple(model.stages) == STAGES
    assert len(model.stages) == len(STAGES)
    for name, text in model.stages.items():
        assert text.strip(), name
    assert "hidden" in model.stages["graph"]
    assert "define" in model.stages["llvm"]
    assert "sum over" in model.stages["kernels"]


def test_gradient_stage_shows_derivatives_under_readable_names() -> None:
    text = compiled().stages["gradient"]
    for name in ("d_hidden.weight", "d_scores.bias", "new_hidden.weight"):
        assert f"%{name} =" in text, name


@pytest.mark.parametrize("stage", ["graph", "gradient", "simplified"])
def test_graph_stages_can_be_parsed(stage: str) -> None:
    text = compiled().stages[stage]
    assert print_graph(parse_graph(text)) == text


def test_stages_are_read_lazily_and_missing_ones_are_told() -> None:
    stages = compiled().stages
    assert "kernels" in stages
    assert "ast" not in stages
    assert repr(stages).startswith("<stages graph")
    with pytest.raises(KeyError, match="simplified"):
        stages["ast"]


def test_dump_writes_every_stage_and_pictures(tmp_path: Path) -> None:
    model = compiled()
    written = model.dump(tmp_path / "new" / "folder")
    names = [path.name for path in written]
    assert names == [
        "0_graph.txt",
        "1_gradient.txt",
        "2_simplified.txt",
        "3_kernels.txt",
        "4_loops.txt",
        "5_llvm.ll",
        "6_assembly.s",
        "graph.dot",
        "gradient.dot",
    ]
    assert written[4].read_text() == model.stages["loops"]
    assert written[7].read_text().startswith("digraph")


def test_profile_accounts_for_all_the_time_and_changes_nothing() -> None:
    model = compiled()
    before = model.state.copy()
    profile = model.profile(X, T)
    rows = list(profile)
    assert [r["kernel"] for r in rows] == [
        k.label for k in model.program("step").artifact.plan.kernels
    ]
    assert sum(float(r["share"].rstrip("%")) for r in rows) == pytest.approx(100, abs=1)
    assert set(rows[0]) == {"kernel", "us", "GFLOP/s", "GB/s", "share", "of roofline"}
    assert all(np.array_equal(model.state[k], before[k]) for k in before)
    assert len(model.profile(X)) >= 1


def test_models_and_results_show_what_they_are() -> None:
    model = compiled(classifier())
    assert repr(model) == "<Model 'x' -> 'scores', 67 parameters, float32>"
    assert "gradients" in str(model.compare(X, T))
    assert "GFLOP/s" in str(model.profile(X, T))
    assert "<table>" in model.describe()._repr_html_()


def test_only_profiles_compile_the_entry_that_times_kernels() -> None:
    model = compiled()
    assert "define i64 @step_profile" not in model.stages["llvm"]
    timed = model.program("step").timed
    assert timed.program.profile is not None and model.program("step").session is not timed


def test_profile_holds_kernels_against_the_measured_roofline() -> None:
    profile = compiled().profile(X, T)
    assert profile.limits.peak > profile.limits.bandwidth > 0
    assert all(0 < profile.limits.fraction(row) < 1000 for row in profile.kernels)
    assert all(row["of roofline"].endswith("%") for row in profile)


def test_profile_plots_a_roofline(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "roofline.png"
    compiled().profile(X, T).plot(str(path))
    assert path.stat().st_size > 1000
