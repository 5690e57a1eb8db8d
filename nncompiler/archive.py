"""Takes JSON and arrays, gives one zip file without pickle, written at once, and the way back."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def write_archive(path: Path, members: Mapping[str, bytes]) -> None:
    """All members or no file at all: written beside the target and renamed."""
    import tempfile
    import zipfile  # not before a model is saved: together 3 ms

    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file, zipfile.ZipFile(file, "w") as archive:
            for member, data in members.items():
                archive.writestr(member, data)
        # mkstemp makes private files; a saved model has the usual permissions
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(name, 0o666 & ~mask)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def read_archive(path: Path, what: str) -> dict[str, bytes]:
    """Every member's bytes; ValueError naming the file where it is damaged or something else."""
    import zipfile

    try:
        with zipfile.ZipFile(path) as archive:
            return {name: archive.read(name) for name in archive.namelist()}
    except FileNotFoundError:
        raise
    except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"{path} is damaged or is not {what}: {error}") from error


def pack(array: Array) -> bytes:
    """The .npy form of an array."""
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.asarray(array), allow_pickle=False)
    return stream.getvalue()


def unpack(data: bytes) -> Array:
    """The array of a .npy member; ValueError where it is damaged or holds Python objects."""
    array: Array = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    return array


def pack_all(prefix: str, arrays: Sequence[Array]) -> dict[str, bytes]:
    return {f"{prefix}/{i:04d}.npy": pack(a) for i, a in enumerate(arrays)}


def unpack_all(prefix: str, members: Mapping[str, bytes]) -> list[Array]:
    names = sorted(n for n in members if n.startswith(prefix + "/"))
    return [unpack(members[n]) for n in names]


def as_json(value: object) -> bytes:
    return json.dumps(value, indent=1, allow_nan=False).encode()
