"""Imports go one way: ir <- nncompiler -> runtime, and outside libraries stay where they belong."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
OPTIONAL = {"safetensors", "sklearn"}  # used where they are installed
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
