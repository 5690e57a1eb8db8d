"""Takes the arguments of compile, gives one frozen record that is checked, saved and restored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from ir.types import DType, dtype_of
from nncompiler.errors import CompileError
from nncompiler.options import Options


@dataclass(frozen=True)
class Settings:
    """What `nnc.compile` was called with, besides the graph."""

    loss: Any = None
    optimizer: Any = None
    regularizer: Any = None
    initializer: Any = "glorot_uniform"
    metrics: tuple[Any, ...] = ()
    outputs: tuple[Any, ...] | None = None
    seed: int = 0
    dtype: str = "float32"
    options: Options = field(default_factory=Options)

    def __post_init__(self) -> None:
        if not isinstance(self.options, Options):
            raise TypeError(f"options must be nnc.Options(...), not {type(self.options).__name__}")
        if not isinstance(self.seed, int) or isinstance(self.seed, bool) or self.seed < 0:
            raise CompileError(f"seed must be a non-negative int, not {self.seed!r}", stage="api")
        _ = self.real  # a wrong dtype shows at once

    @property
    def real(self) -> DType:
        """The floating dtype of the model."""
        try:
            dtype = dtype_of(self.dtype)
        except TypeError as error:
            raise CompileError(f"dtype: {error}", stage="api") from error
        if not dtype.is_float:
            raise CompileError(
                f"dtype must be 'float32' or 'float64', not {self.dtype!r}", stage="api"
            )
        return dtype

    @staticmethod
    def of(
        *, metrics: Any = (), outputs: Any = None, dtype: Any = "float32", **others: Any
    ) -> Settings:
        """Settings from the user's spelling: one metric or output instead of several."""
        if isinstance(metrics, str) or callable(metrics):
            metrics = (metrics,)
        if isinstance(outputs, str):
            outputs = (outputs,)
        try:
            name = dtype_of(dtype).numpy.name
        except TypeError as error:
            raise CompileError(f"dtype: {error}", stage="api") from error
        return Settings(
            metrics=tuple(metrics),
            outputs=None if outputs is None else tuple(outputs),
            dtype=name,
            **others,
        )

    def saved(self) -> dict[str, Any]:
        """What a file holds; threads and cache belong to the machine, not to the model."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "options"}
        kept = {
            f.name: getattr(self.options, f.name)
            for f in fields(Options)
            if f.name not in ("threads", "cache")
        }
        return {**values, "options": kept}

    @staticmethod
    def restored(values: Mapping[str, Any], options: Options | None) -> Settings:
        """Settings from a file; `options` replaces the saved ones."""
        given = dict(values)
        saved = given.pop("options")
        known = {f.name for f in fields(Options)}
        restored = replace(Options(), **{k: v for k, v in saved.items() if k in known})
        return Settings(**given, options=options or restored)
