"""Takes a bound native function, gives the callable that `model.bind` hands out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from runtime.bound import Bound

Array = np.ndarray[Any, Any]


class Binding:
    """Fixed inputs and outputs. `inputs` are live arrays: write into them for other data.

    Array results are live too, overwritten by the next call. Calls go to native code at once, for
    `__call__` is no method but a slot.
    """

    __slots__ = ("__call__", "_bound", "_shape", "inputs")
    __call__: Callable[[], Any]

    def __init__(
        self,
        bound: Bound,
        shape: Callable[[dict[str, Array]], Any],
        *,
        number: str = "",
        live: bool = False,
    ) -> None:
        self._bound = bound
        self._shape = shape
        self.__call__ = bound.callable(shape, number=number, live=live)
        self.inputs = bound.inputs

    def run(self, n: int) -> Any:
        """n calls natively; the result of the last one."""
        return self._shape(self._bound.run(n))
