"""README, pyproject and the tree say the same."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PACKAGES = ("ir", "nncompiler", "runtime")


def project() -> Any:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_every_package_is_installed() -> None:
    folders = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for name in PACKAGES
        for path in (ROOT / name).rglob("__init__.py")
    }
    assert folders == set(project()["tool"]["setuptools"]["packages"])


def test_readme_lists_every_module_once_and_no_other() -> None:
    listing = README.split("## The pipeline")[1].split("`ir` imports only")[0]
    listed = sorted(re.findall(r"[a-z_]+\.py\b", listing))
    modules = [p for name in PACKAGES for p in (ROOT / name).rglob("*.py")]
    assert listed == sorted(p.name for p in modules if p.name != "__init__.py")


def test_readme_has_two_commands_that_set_everything_up() -> None:
    commands = re.findall(r"^    (python3 -m venv .*)$", README, re.MULTILINE)
    assert len(commands) == 2
    extras = project()["project"]["optional-dependencies"]
    for command, extra in zip(commands, ("demo", "test"), strict=True):
        assert f"'.[{extra}]'" in command
        assert extra in extras


def test_first_example_of_the_readme_works() -> None:
    code = README.split("```python\n")[1].split("```")[0]
    code = code.replace("print(", "results.append(")
    scope: dict[str, Any] = {"results": []}
    exec(code, scope)
    outputs, gradient = scope["results"]
    assert [round(float(v)) for v in outputs.ravel()] == [0, 1, 1, 0]
    assert "hidden" in gradient


def test_version_stands_in_one_more_place_only() -> None:
    import nncompiler

    assert project()["project"]["version"] == nncompiler.__version__
    assert f"## {nncompiler.__version__}" in (ROOT / "CHANGELOG.md").read_text()
