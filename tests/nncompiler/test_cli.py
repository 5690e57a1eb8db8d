"""The command line: what it prints, its exit codes, and one line for every mistake."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import networkx as nx
import pytest

from nncompiler.__main__ import main
from nncompiler.stages import STAGES
from tests.networks import classifier, compiled, neurons, two_inputs


def written(path: Path, graph: nx.DiGraph, edges: str = "links") -> str:
    path.write_text(json.dumps(nx.node_link_data(graph, edges=edges)))
    return str(path)


def run(capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[int, str, str]:
    try:
        code = main([str(a) for a in arguments])
    except SystemExit as leaving:
        code = int(leaving.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_demo_learns_the_digits(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "demo", "--epochs", 12, "--threads", 1)
    assert code == 0
    accuracy = float(out.split("test accuracy ")[1].split("%")[0])
    assert accuracy >= 97
    assert "steps/s" in out
    assert "loss" in out
    for stage in STAGES:
        assert f"--- stage {stage} (" in out


def test_demo_prints_one_stage_whole(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "demo", "--epochs", 1, "--stage", "gradient")
    assert "%d_hidden1.weight" in out
    assert "--- stage loops" not in out
    _, out, _ = run(capsys, "demo", "--epochs", 1, "--stage", "none")
    assert "--- stage" not in out


def test_demo_says_how_to_install_its_data(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    code, _, err = run(capsys, "demo")
    assert code == 1
    assert "pip install 'nncompiler[demo]'" in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("edges", ["links", "edges"])
def test_inspect_prints_a_stage(
    edges: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path / "g.json", classifier(("leaky_relu", {"slope": 0.1})), edges)
    code, out, _ = run(capsys, "inspect", path)
    assert code == 0
    assert out.startswith('graph "forward"')
    settings = ("--loss", "cross_entropy", "--optimizer", "adam")
    assert "%new_hidden.weight" in run(capsys, "inspect", path, "--stage", "gradient", *settings)[1]
    assert "67 parameters" in run(capsys, "inspect", path, "--summary")[1]
    kernels = run(capsys, "inspect", path, "kernels", *settings)
    assert kernels[0] == 0
    assert "kernel k00" in kernels[1]


def test_inspect_writes_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path / "g.json", neurons())
    code, out, _ = run(capsys, "inspect", path, "--output", tmp_path / "out")
    assert code == 0
    assert all(Path(line).exists() for line in out.splitlines())


@pytest.mark.parametrize("graph", [classifier(), neurons(), two_inputs()])
def test_compare_agrees(
    graph: nx.DiGraph, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path / "g.json", graph)
    for options in ((), ("--loss", "mse"), ("--dtype", "float64", "--batch", "7")):
        code, out, err = run(capsys, "compare", path, *options)
        assert (code, err) == (0, "")
        assert "outputs" in out
        assert "agree" in out


def test_compare_fails_where_results_differ(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path / "g.json", classifier())
    code, _, err = run(capsys, "compare", path, "--tolerance", -1)
    assert code == 1
    assert "exceeds" in err


def test_saved_models_are_read_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "m.nnc"
    compiled().save(path)
    assert run(capsys, "compare", path)[0] == 0
    assert "%new_hidden.weight" in run(capsys, "inspect", path, "--stage", "gradient")[1]
    path.write_text("nothing")
    code, _, err = run(capsys, "inspect", path)
    assert (code, len(err.splitlines())) == (1, 1)


WRONG_FILES = {
    "no file": (None, 2, "No such file"),
    "no json": ("{", 2, "not a JSON file"),
    "a list": ("[]", 2, "node-link"),
    "no nodes": ('{"links": []}', 2, "node-link"),
    "edges of nothing": ('{"nodes": [{"id": 1}], "links": [{"source": 1}]}', 2, "node-link"),
    "undirected": ('{"directed": false, "nodes": [{"id": 1}], "links": []}', 1, "directed"),
    "wrong network": (
        '{"nodes": [{"id": "x", "op": "input", "shape": ["batch", 2]}, {"id": "y", "op": "dens"}],'
        ' "links": [{"source": "x", "target": "y"}]}',
        1,
        "'y'.*dens|dens.*'y'",
    ),
}


@pytest.mark.parametrize("name", WRONG_FILES)
@pytest.mark.parametrize("command", ["inspect", "compare"])
def test_wrong_files_give_one_line_and_a_code(
    name: str, command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content, expected, text = WRONG_FILES[name]
    path = tmp_path / "g.json"
    if content is not None:
        path.write_text(content)
    code, out, err = run(capsys, command, path)
    assert code == expected
    assert out == ""
    assert len(err.splitlines()) == 1
    assert err.startswith("nnc: error: ")
    assert any(part.strip("'") in err for part in text.split(".*"))


@pytest.mark.parametrize(
    "arguments",
    [[], ["fly"], ["inspect"], ["inspect", "g.json", "--stage", "ast"], ["demo", "--epochs", "0"]],
)
def test_wrong_uses_exit_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, *arguments)[0] == 2


@pytest.mark.parametrize("arguments", [[], ["demo"], ["inspect"], ["compare"]])
def test_help_is_there(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, *arguments, "--help")
    assert code == 0
    assert "usage: nnc" in out


def test_module_runs() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "nncompiler", "--version"],
        cwd=Path(__file__).parent.parent.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("nncompiler ")
