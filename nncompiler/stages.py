"""Takes a model's programs, gives the text of every stage by name, in the pipeline's order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

STAGES = ("graph", "gradient", "simplified", "kernels", "loops", "llvm", "assembly")


class Stages(Mapping[str, str]):
    """Stage name -> text. Texts are made when they are first read."""

    def __init__(self, read: Callable[[str], str]) -> None:
        self._read = read
        self._texts: dict[str, str] = {}

    def __getitem__(self, name: str) -> str:
        if name not in STAGES:
            raise KeyError(f"no stage '{name}'; there are {', '.join(STAGES)}")
        if name not in self._texts:
            self._texts[name] = self._read(name)
        return self._texts[name]

    def __contains__(self, name: object) -> bool:
        return name in STAGES

    def __iter__(self) -> Iterator[str]:
        return iter(STAGES)

    def __len__(self) -> int:
        return len(STAGES)

    def __repr__(self) -> str:
        return f"<stages {', '.join(STAGES)}>"
