"""Takes the arguments of compile, gives one frozen record that is checked, saved and restored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from ir.types import DType, dtype_of
from nncompiler.errors import CompileError
from nncompiler.options import Options


@dataclass(frozen=True, kw_only=True)
class Objective:
    """One of several things that parts of one network are trained for (the two sides of a GAN).

    loss        a name or function for all outputs, or a dict by node: these nodes are its outputs
    parameters  names or patterns ("d.*", "d1.weight") of the parameters that its optimizer changes
    The rest is as in `compile`.
    """

    loss: Any
    optimizer: Any
    parameters: str | tuple[str, ...] | list[str] = "*"
    regularizer: Any = None
    metrics: Any = ()
    loss_weights: Mapping[str, float] | None = None

    @property
    def patterns(self) -> tuple[str, ...]:
        one = isinstance(self.parameters, str)
        return (self.parameters,) if one else tuple(self.parameters)  # type: ignore[return-value]


@dataclass(frozen=True)
class Settings:
    """What `nnc.compile` was called with, besides the graph."""

    loss: Any = None
    optimizer: Any = None
    regularizer: Any = None
    initializer: Any = "glorot_uniform"
    metrics: tuple[Any, ...] | dict[str, tuple[Any, ...]] = ()
    outputs: tuple[Any, ...] | None = None
    seed: int = 0
    dtype: str = "float32"
    options: Options = field(default_factory=Options)
    loss_weights: Mapping[str, float] | None = None
    objectives: Mapping[str, Objective] = field(default_factory=dict)
    trained: tuple[str, ...] = ("*",)
    prefix: str = ""
    recurrent: bool | str = False

    def __post_init__(self) -> None:
        if self.recurrent not in (True, False, "last"):
            message = f"recurrent is True, False or 'last', not {self.recurrent!r}"
            raise CompileError(message, stage="api")
        if not isinstance(self.options, Options):
            raise TypeError(f"options must be nnc.Options(...), not {type(self.options).__name__}")
        object.__setattr__(self, "seed", check_seed(self.seed))
        _ = self.real  # a wrong dtype shows at once
        if self.objectives and any(
            v is not None and v != ()
            for v in (self.loss, self.optimizer, self.regularizer, self.loss_weights, self.metrics)
        ):
            raise CompileError(
                "loss, optimizer, regularizer, metrics and loss_weights belong into the objectives "
                "where there are any",
                stage="api",
            )
        for name, objective in self.objectives.items():
            if not isinstance(objective, Objective):
                raise CompileError(
                    f"objective '{name}' is a {type(objective).__name__}; write nnc.Objective(...)",
                    stage="api",
                )

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
        if isinstance(outputs, str):
            outputs = (outputs,)
        try:
            name = dtype_of(dtype).numpy.name
        except TypeError as error:
            raise CompileError(f"dtype: {error}", stage="api") from error
        return Settings(
            metrics=_several(metrics),
            outputs=None if outputs is None else tuple(outputs),
            dtype=name,
            **others,
        )

    def part(self, name: str) -> Settings:
        """The settings of one objective."""
        chosen = self.objectives[name]
        outputs = tuple(chosen.loss) if isinstance(chosen.loss, Mapping) else self.outputs
        return replace(
            self,
            loss=chosen.loss,
            optimizer=chosen.optimizer,
            regularizer=chosen.regularizer,
            metrics=_several(chosen.metrics),
            loss_weights=chosen.loss_weights,
            outputs=outputs,
            objectives={},
            trained=chosen.patterns,
            prefix=f"objective.{name}.",
        )

    def saved(self) -> dict[str, Any]:
        """What a file holds; threads and cache belong to the machine, not to the model."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "options"}
        kept = {
            f.name: getattr(self.options, f.name)
            for f in fields(Options)
            if f.name not in ("threads", "cache")
        }
        objectives = {
            name: {f.name: getattr(objective, f.name) for f in fields(Objective)}
            for name, objective in self.objectives.items()
        }
        return {**values, "options": kept, "objectives": objectives}

    @staticmethod
    def restored(values: Mapping[str, Any], options: Options | None) -> Settings:
        """Settings from a file; `options` replaces the saved ones."""
        given = dict(values)
        saved = given.pop("options")
        parts = given.pop("objectives", {})
        given["objectives"] = {name: Objective(**part) for name, part in parts.items()}
        known = {f.name for f in fields(Options)}
        restored = replace(Options(), **{k: v for k, v in saved.items() if k in known})
        return Settings(**given, options=options or restored)


def _several(metrics: Any) -> Any:
    """A tuple of metrics from one or several, by output where they are given so."""
    if isinstance(metrics, Mapping):
        return {output: _several(some) for output, some in metrics.items()}
    if metrics is None:
        return ()
    if isinstance(metrics, str) or callable(metrics):
        return (metrics,)
    if not isinstance(metrics, Iterable):
        raise CompileError(f"metrics are names or functions, not {metrics!r}", stage="api")
    return tuple(metrics)


def check_seed(seed: Any) -> int:
    """The seed as an int, NumPy's integers included; CompileError for anything else."""
    whole = isinstance(seed, (int, np.integer)) and not isinstance(seed, bool)
    if not whole or seed < 0:
        raise CompileError(f"seed must be a non-negative int, not {seed!r}", stage="api")
    return int(seed)
