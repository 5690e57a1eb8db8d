"""Imports go one way: ir <- nncompiler -> runtime, and outside libraries stay where they belong."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
OPTIONAL = {"safetensors", "sklearn", "matplotlib"}  # used where they are installed
ALLOWED = {
    "ir": {"ir", "numpy", "networkx"},
    "runtime": {"runtime", "numpy", "llvmlite", "tqdm"},
    "nncompiler": {"nncompiler", "ir", "runtime", "numpy", "networkx", "llvmlite", *OPTIONAL},
}
# The two files that touch llvmlite: one compiles with it, the other loads.
BINDINGS = {"nncompiler/codegen/llvm.py", "runtime/loader.py"}
FILES = [p for package in ALLOWED for p in sorted((ROOT / package).rglob("*.py"))]


def imports(path: Path) -> set[str]:
    """The dotted names of every module that the file imports, late imports included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found.add(node.module or "")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_file_imports_only_what_its_layer_may(path: Path) -> None:
    name = str(path.relative_to(ROOT))
    roots = {module.partition(".")[0] for module in imports(path)} - sys.stdlib_module_names
    assert roots <= ALLOWED[name.partition("/")[0]] | {"__future__"}
    if "llvmlite" in roots:
        assert name in BINDINGS
    if name.startswith("ir/") and "networkx" in roots:
        assert name == "ir/convert.py"


HEAVY = (
    "networkx",
    "llvmlite",
    "nncompiler.pipeline",
    "nncompiler.functions",
    "zipfile",
    "tempfile",
)


def test_importing_nncompiler_imports_nothing_that_can_wait() -> None:
    code = f"import sys, nncompiler; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


MODEL = """
import sys, networkx as nx, nncompiler as nnc
g = nx.DiGraph()
g.add_node("x", op="input", shape=("batch", 2))
g.add_node("y", op="dense", units=1)
nx.add_path(g, ["x", "y"])
print(nnc.compile(g, loss="mse", optimizer="sgd").step([[1, 2]], [[3]]))
print("nncompiler.pipeline" in sys.modules)
"""
POPULATION = """
import sys, networkx as nx, nncompiler as nnc
g = nx.DiGraph()
g.add_edge("x", "y", weight=2.0)
print(nnc.compile_population([g])([[3]]).item())
print("nncompiler.codegen.evaluator" in sys.modules)
"""


@pytest.mark.parametrize("code", [MODEL, POPULATION], ids=["model", "population"])
def test_what_is_in_the_cache_needs_no_lowering(code: str, tmp_path: Path) -> None:
    results = [
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={**os.environ, "NNC_CACHE_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        for _ in range(2)
    ]
    assert results[0][0] == results[1][0]
    assert [lowered for _, lowered in results] == ["True", "False"]
