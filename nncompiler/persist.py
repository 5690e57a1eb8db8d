"""Takes a model, gives one .nnc file without code or pickle, and the way back.

model.json      format version, graph in node-link form, compile arguments, training progress
values/*.npy    graph attributes and settings that are arrays
state/*.npy     parameters, optimizer state, counters, in the order of "state" in model.json
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nncompiler.archive import (
    as_json,
    pack,
    pack_all,
    read_archive,
    unpack,
    unpack_all,
    write_archive,
)
from nncompiler.codec import Decoder, Encoder, decode_graph, encode_graph
from nncompiler.options import Options
from nncompiler.settings import Settings

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    import networkx as nx

    from nncompiler.model import Model

FORMAT = 1
WHAT = "a saved nncompiler model"
Array = np.ndarray[Any, Any]
PathLike = str | os.PathLike[str]


def save_model(model: Model, path: PathLike) -> None:
    """Writes the whole model; TypeError naming the node where a Python function is part of it."""
    encoder = Encoder()
    arguments = {
        name: encoder.encode(value, f"compile's argument '{name}'")
        for name, value in model.settings.saved().items()
    }
    graph = encode_graph(model.source, encoder)
    state = model.state.copy()
    header = {
        "format": FORMAT,
        "graph": graph,
        "arguments": arguments,
        "epoch": model.epoch,
        "seed": model.seed,
        "history": encoder.encode(model.history_data(), "the history"),
        "objectives": {
            name: [part.epoch, encoder.encode(part.history_data(), "the history")]
            for name, part in model.objectives.items()
        },
        "state": list(state),
    }
    members = {
        "model.json": as_json(header),
        **pack_all("values", encoder.arrays),
        **pack_all("state", list(state.values())),
    }
    write_archive(Path(path), members)


@dataclass(frozen=True)
class Saved:
    """What a .nnc file holds."""

    path: Path
    graph: nx.DiGraph[Any]
    settings: Settings
    state: Mapping[str, Array]
    epoch: int
    seed: int
    history: Mapping[str, Any]
    parts: Mapping[str, tuple[int, Mapping[str, Any]]]


def read_model(path: PathLike, options: Options | None = None) -> Saved:
    """ValueError where the file is damaged, no model, or written by a newer version."""
    path = Path(path)
    members = read_archive(path, WHAT)
    header = _header(path, members)
    try:
        decoder = Decoder(unpack_all("values", members))
        return Saved(
            path=path,
            graph=decode_graph(header["graph"], decoder),
            settings=Settings.restored(decoder.decode(header["arguments"]), options),
            state=dict(zip(header["state"], unpack_all("state", members), strict=True)),
            epoch=int(header["epoch"]),
            seed=int(header["seed"]),
            history=decoder.decode(header["history"]),
            parts={
                name: (int(epoch), decoder.decode(history))
                for name, (epoch, history) in header.get("objectives", {}).items()
            },
        )
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, EOFError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def restore(model: Model, saved: Saved) -> None:
    """Puts a saved state into a freshly compiled model; ValueError where it does not fit."""
    missing = [key for key in model.state if key not in saved.state]
    unknown = [key for key in saved.state if key not in model.state]
    if missing or unknown:
        raise ValueError(
            f"{saved.path} does not fit this version: missing {_listed(missing)}, "
            f"unknown {_listed(unknown)}"
        )
    try:
        model.state.restore(saved.state)
        model.resume(saved.epoch, saved.seed, saved.history)
        for name, (epoch, history) in saved.parts.items():
            model.objectives[name].resume(epoch, saved.seed, history)
    except (TypeError, ValueError, KeyError) as error:
        raise ValueError(f"{saved.path} is damaged: {error}") from error


def _header(path: Path, members: Mapping[str, bytes]) -> dict[str, Any]:
    if "model.json" not in members:
        raise ValueError(f"{path} is not {WHAT}: it has no model.json")
    try:
        header = json.loads(members["model.json"])
        version = int(header["format"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged: model.json cannot be read") from error
    if version > FORMAT:
        raise ValueError(
            f"{path} has format {version}, this nncompiler reads up to {FORMAT}: "
            "install a newer version"
        )
    if not isinstance(header, dict):
        raise ValueError(f"{path} is damaged: model.json is no object")
    return header


def save_arrays(arrays: Mapping[str, Array], path: PathLike) -> None:
    """Arrays by name as .npz, or .safetensors where the path ends so."""
    path = Path(path)
    if path.suffix == ".safetensors":
        plain = {name: np.ascontiguousarray(a).reshape(a.shape) for name, a in arrays.items()}
        path.write_bytes(_safetensors().save(plain))
        return
    write_archive(path, {f"{name}.npy": pack(array) for name, array in arrays.items()})


def load_arrays(path: PathLike) -> dict[str, Array]:
    """Arrays by name; ValueError where the file is damaged."""
    path = Path(path)
    if path.suffix == ".safetensors":
        library = _safetensors()
        try:
            return dict(library.load(path.read_bytes()))
        except FileNotFoundError:
            raise
        except Exception as error:
            raise ValueError(f"{path} is damaged or no safetensors file: {error}") from error
    members = read_archive(path, "an .npz file of weights")
    try:
        return {name.removesuffix(".npy"): unpack(data) for name, data in members.items()}
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def assign_arrays(
    target: MutableMapping[str, Array], arrays: Mapping[str, Array], path: PathLike, strict: bool
) -> list[str]:
    """Copies arrays into the entries of the same name; gives the names that were set.

    strict: ValueError unless names and shapes are the same; else what fits by name and shape.
    """
    missing = [name for name in target if name not in arrays]
    unknown = [name for name in arrays if name not in target]
    if strict and (missing or unknown):
        raise ValueError(
            f"{path} does not fit the network: missing {_listed(missing)}, "
            f"not in the network {_listed(unknown)}; strict=False loads what fits"
        )
    fitting = [n for n in target if n in arrays and target[n].shape == arrays[n].shape]
    for name in target:
        if strict and name not in fitting:
            raise ValueError(
                f"{path}: '{name}' has shape {arrays[name].shape}, "
                f"the network needs {target[name].shape}"
            )
    for name in fitting:
        target[name] = arrays[name]
    return fitting


def _listed(names: list[str]) -> str:
    return ", ".join(f"'{n}'" for n in names) or "nothing"


def _safetensors() -> Any:
    try:
        from safetensors import numpy as library
    except ImportError as error:
        raise ImportError(
            "the .safetensors format needs the package of that name: pip install safetensors; "
            "or save as .npz"
        ) from error
    return library
