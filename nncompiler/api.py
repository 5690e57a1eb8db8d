"""Takes a networkx graph and what it is trained for, gives a compiled Model; reads saved ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nncompiler.blueprint import Blueprint
from nncompiler.model import Model
from nncompiler.options import Options
from nncompiler.persist import PathLike, read_model, restore
from nncompiler.settings import Objective, Settings

if TYPE_CHECKING:
    import networkx as nx


def compile(
    graph: nx.DiGraph[Any],
    *,
    loss: str | Callable[..., Any] | Mapping[str, Any] | tuple[Any, ...] | None = None,
    optimizer: Any = None,
    regularizer: Any = None,
    initializer: Any = "glorot_uniform",
    metrics: str | Sequence[Any] | Mapping[str, Any] = (),
    loss_weights: Mapping[str, float] | None = None,
    objectives: Mapping[str, Objective] | None = None,
    outputs: str | Sequence[Any] | None = None,
    recurrent: bool | str = False,
    seed: int = 0,
    dtype: Any = "float32",
    options: Options | None = None,
) -> Model:
    """A layer graph or neuron graph as native code.

    loss         a name, a function (prediction, target), a dict by output; None: inference only
    optimizer    nnc.SGD(0.1), ... or a name; None: no update
    regularizer  nnc.L2(1e-4), nnc.L1(...): of weights, not of biases
    initializer  of weights that have none of their own: a name, (name, {...}), a number, an array
    metrics      names ("accuracy", "top_3", ...) or functions (prediction, target), of all outputs;
                 a dict by output: of each its own
    loss_weights factors of the losses by output, 1 where there is none
    objectives   nnc.Objective(...) by name instead of loss and optimizer: each is trained on its
                 own part of the graph, by `model.objectives[name].step(x, t)`, fit ...
    outputs      names of nodes; all sinks where it is None
    recurrent    True: a graph of neurons that may have cycles, on data (batch, time, inputs) ->
                 (batch, time, outputs); "last": -> (batch, outputs) of the last time. An edge that
                 closes a cycle brings what its neuron gave one time before (0 before the first),
                 one with the attribute `delay=k` what it gave k times before
    seed         of the first parameters, of shuffles and of dropout; a non-negative int
    dtype        of parameters and values: "float32" or "float64"; data are cast to it
    options      threads, cache, winograd, debug: see nnc.Options

    Raises CompileError (a ValueError) naming the node for whatever is wrong with the network.
    """
    settings = Settings.of(
        loss=loss,
        optimizer=optimizer,
        regularizer=regularizer,
        initializer=initializer,
        metrics=metrics,
        loss_weights=loss_weights,
        objectives=dict(objectives or {}),
        outputs=outputs,
        recurrent=recurrent,
        seed=seed,
        dtype=dtype,
        options=Options() if options is None else options,
    )
    return Model(Blueprint(graph, settings))


def load(path: PathLike, options: Options | None = None) -> Model:
    """The model of a .nnc file; training goes on exactly where it stopped.

    ValueError where the file is damaged, is no model, or comes from a newer version.
    """
    saved = read_model(path, options)
    model = Model(Blueprint(saved.graph, saved.settings))
    restore(model, saved)
    return model
