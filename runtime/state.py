"""Takes initial arrays by id, gives the live store of parameters and state that native code shares.

Compiled code reads and writes these very arrays: their memory never moves, assignment copies into
it, and reading gives the array itself.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.buffers import Array, aligned_copy


class State(MutableMapping[str, Array]):
    """Live arrays by id; `lock` is held by whoever writes them from native code."""

    def __init__(self, initial: Mapping[str, npt.ArrayLike] | None = None) -> None:
        self._arrays: dict[str, Array] = {}
        self.lock = threading.RLock()
        for key, value in (initial or {}).items():
            self.add(key, value)

    def add(self, key: str, value: npt.ArrayLike) -> Array:
        """Creates an entry with the value's own dtype and shape; ValueError where it exists."""
        if key in self._arrays:
            raise ValueError(f"'{key}' exists already")
        self._arrays[key] = aligned_copy(value)
        return self._arrays[key]

    def drop(self, key: str) -> None:
        """Forgets an entry that nothing new will use; code compiled with it keeps its array."""
        del self._arrays[key]

    def __getitem__(self, key: str) -> Array:
        try:
            return self._arrays[key]
        except KeyError:
            raise KeyError(_unknown(key, self._arrays)) from None

    def __setitem__(self, key: str, value: npt.ArrayLike) -> None:
        target = self[key]
        with self.lock:
            assign(target, value, name=key)

    def __delitem__(self, key: str) -> None:
        raise TypeError(f"'{key}' cannot be deleted: compiled code uses it")

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def copy(self) -> dict[str, Array]:
        """A snapshot that later writes do not change."""
        with self.lock:
            return {key: array.copy() for key, array in self._arrays.items()}

    def restore(self, snapshot: Mapping[str, npt.ArrayLike]) -> None:
        """Writes back what `copy` gave; entries that it does not name stay."""
        for key, value in snapshot.items():
            self[key] = value


class ParameterView(MutableMapping[str, Array]):
    """Some entries of a State under names of their own, and 0-d views into them.

    `names` maps a name to (id, index): the empty index stands for the whole array, a tuple of
    integers for one element, seen as a live 0-d array.
    """

    def __init__(self, state: State, names: Mapping[str, tuple[str, tuple[int, ...]]]) -> None:
        self._state = state
        self._names = dict(names)
        for name in self._names:
            self[name]  # a wrong id or index shows at once

    @staticmethod
    def of(state: State, names: Mapping[str, str]) -> ParameterView:
        """Whole arrays: name -> id."""
        return ParameterView(state, {name: (key, ()) for name, key in names.items()})

    def __getitem__(self, name: str) -> Array:
        if name not in self._names:
            raise KeyError(_unknown(name, self._names))
        key, index = self._names[name]
        array = self._state[key]
        place: Any = (*index, ...)
        return array[place] if index else array

    def __setitem__(self, name: str, value: npt.ArrayLike) -> None:
        target = self[name]
        with self._state.lock:
            assign(target, value, name=name)

    def __delitem__(self, name: str) -> None:
        raise TypeError(f"parameter '{name}' cannot be deleted: the network uses it")

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __repr__(self) -> str:
        rows = (f"{name!r}: {self[name].dtype}{list(self[name].shape)}" for name in self)
        return "{" + ", ".join(rows) + "}"


def assign(target: Array, value: npt.ArrayLike, *, name: str) -> None:
    """Copies the value into the live array; ValueError on a shape, TypeError on a dtype."""
    source = np.asarray(value)
    if source.dtype.kind not in "biuf":
        raise TypeError(f"'{name}' holds {target.dtype}; {source.dtype} cannot be assigned to it")
    if source.dtype.kind == "f" and target.dtype.kind != "f":
        raise TypeError(f"'{name}' holds {target.dtype}; {source.dtype} would be cut to integers")
    if source.shape != target.shape:
        raise ValueError(f"'{name}' has shape {target.shape}; the new value has {source.shape}")
    target[...] = source


def _unknown(name: Any, known: Mapping[str, Any]) -> str:
    return f"no entry '{name}'; there are {', '.join(known) or 'none'}"
