"""Every example runs from its own command line, says something, and stays short."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def run(*command: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def needs(path: Path) -> str:
    """A library that the example cannot do without."""
    return "neat" if path.stem.endswith("_neat") else "numpy"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_example_runs(path: Path) -> None:
    pytest.importorskip(needs(path))
    assert len(run(str(path)).splitlines()) >= 3


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_example_is_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) < 90


def test_there_are_five_examples() -> None:
    names = {"xor_neurons", "digits", "custom_activation", "look_inside", "scipy_minimize"}
    assert names <= {p.stem for p in EXAMPLES}


def test_evolution_balances_the_pole() -> None:
    pytest.importorskip("neat")
    assert "stays up for 500 steps" in run("examples/cartpole_neat.py")


def test_the_gan_covers_the_ring() -> None:
    assert "8 of 8 modes" in run("examples/gan_ring.py")


def test_the_transformer_learns_brackets() -> None:
    share = re.search(r"12 epochs ([\d.]+)%", run("examples/brackets_transformer.py"))
    assert share is not None and float(share[1]) > 96.0


def test_the_text_classifier_beats_the_most_frequent_answer() -> None:
    most, network = re.findall(r"([\d.]+)%", run("examples/text_classifier.py"))
    assert float(network) > float(most) + 40


def test_look_inside_prints_one_stage() -> None:
    text = run("examples/look_inside.py", "gradient")
    assert "hidden" in text


def test_an_example_without_neat_python_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "neat.py").write_text("raise ImportError('not there')")
    code = "import runpy, sys; sys.path[:0] = sys.argv[1:2]; runpy.run_path(sys.argv[2])"
    for path in EXAMPLES:
        if needs(path) == "neat":
            done = subprocess.run(
                [sys.executable, "-c", code, str(tmp_path), str(path)],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 1
            assert done.stderr.strip() == "this example needs neat-python: pip install neat-python"
