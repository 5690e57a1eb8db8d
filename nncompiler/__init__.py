"""Takes a networkx graph or a Python function, gives native code that runs and trains it.

    import nncompiler as nnc

    model = nnc.compile(graph, loss="cross_entropy", optimizer=nnc.SGD(0.1))
    model.fit(x, t, epochs=10)

Importing is cheap, about 0.1 s of which NumPy takes half: what every model needs is imported
now; networkx, llvmlite, the lowering, functions and search when they are first needed.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"


def _check_neighbours() -> None:
    """Our packages `ir` and `runtime` have generic names: refuse to run on somebody else's."""
    root = Path(__file__).resolve().parent.parent
    for name in ("ir", "runtime"):
        module = importlib.import_module(name)
        places = [Path(p).resolve() for p in getattr(module, "__path__", [])]
        if root / name not in places:
            found = getattr(module, "__file__", None) or (places and places[0]) or "a built-in"
            raise ImportError(
                f"nncompiler needs its own package '{name}' at {root / name}, but Python found "
                f"{found}; remove or rename the other one, or put {root} first on sys.path"
            )


_check_neighbours()
importlib.import_module("nncompiler.api")

if TYPE_CHECKING:
    from nncompiler.api import compile as compile
    from nncompiler.api import load as load
    from nncompiler.errors import CompileError as CompileError
    from nncompiler.frontend.neat import from_neat as from_neat
    from nncompiler.functions import grad as grad
    from nncompiler.functions import hessian as hessian
    from nncompiler.functions import jit as jit
    from nncompiler.functions import jvp as jvp
    from nncompiler.functions import value_and_grad as value_and_grad
    from nncompiler.functions import vjp as vjp
    from nncompiler.model import Model as Model
    from nncompiler.options import Options as Options
    from nncompiler.population import Population as Population
    from nncompiler.population import compile_population as compile_population
    from nncompiler.pruning import prune as prune
    from nncompiler.settings import Objective as Objective
    from nncompiler.tuning import search as search
    from runtime.history import History as History

# Where each public name lives; a module that is not there yet is imported when it is asked for.
_HOMES = {
    "nncompiler.api": ("compile", "load"),
    "nncompiler.model": ("Model",),
    "nncompiler.options": ("Options",),
    "nncompiler.errors": ("CompileError",),
    "nncompiler.settings": ("Objective",),
    "nncompiler.functions": ("jit", "grad", "value_and_grad", "hessian", "jvp", "vjp"),
    "nncompiler.population": ("Population", "compile_population"),
    "nncompiler.pruning": ("prune",),
    "nncompiler.tuning": ("search",),
    "nncompiler.frontend.neat": ("from_neat",),
    "nncompiler.frontend.optimizers": ("SGD", "Adam", "AdamW", "RMSProp", "Adagrad"),
    "nncompiler.frontend.regularizers": ("L1", "L2"),
    "nncompiler.frontend.schedules": (
        "Constant",
        "InverseTime",
        "Power",
        "ConstantThenDecay",
        "Cosine",
    ),
    "runtime.history": ("History",),
    "runtime.callbacks": ("Callback", "LambdaCallback"),
    "runtime.monitors": ("EarlyStopping", "ModelCheckpoint", "Monitor", "ReduceLROnPlateau"),
}
_NAMES = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    if name in _NAMES:
        value = getattr(importlib.import_module(_NAMES[name]), name)
    else:
        functions = importlib.import_module("nncompiler.numpy_like")
        if name not in functions.__all__:
            raise AttributeError(f"module 'nncompiler' has no attribute '{name}'")
        value = getattr(functions, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    functions = importlib.import_module("nncompiler.numpy_like")
    return sorted({*_NAMES, *functions.__all__, "__version__"})
