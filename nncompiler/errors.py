"""Takes what went wrong and where, gives the one error that the compiler raises."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class CompileError(ValueError):
    """The network cannot be compiled; names the user's node, the stage, and what to do.

    `node` is the user's node name ("" where the whole graph is meant), `stage` the stage that found
    it ("network", "objective", "fuse", ...), `hint` a sentence that helps ("" where there is none).
    """

    def __init__(self, message: str, *, node: str = "", stage: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.node = str(node)
        self.stage = stage
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (self.message, self.node, self.stage, self.hint)


def _rebuild(message: str, node: str, stage: str, hint: str) -> CompileError:
    return CompileError(message, node=node, stage=stage, hint=hint)


def call_user(what: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """What a user's function gives; whatever it raises becomes a ValueError that says where.

    Callers add the node's name, as to every ValueError.
    """
    try:
        return function(*arguments)
    except CompileError:
        raise
    except Exception as error:
        hint = "; use nnc.exp, ... instead of np.exp" if "__array_ufunc__" in str(error) else ""
        raise ValueError(f"{what} raised {type(error).__name__}: {error}{hint}") from error
