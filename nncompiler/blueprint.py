"""Takes a networkx graph and settings, gives the graphs of a model for every kind of data.

Class numbers and dense targets, with and without sample weights, and every number of times that
data have, need graphs of their own; they are made when first asked for. A model and its NumPy
reference share one blueprint.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ir.graph import Graph
from nncompiler.data import as_rows, name_values
from nncompiler.frontend.goals import make_objective
from nncompiler.frontend.losses import DENSE, LABELS
from nncompiler.frontend.network import read_network
from nncompiler.frontend.objective import SAMPLE_WEIGHT, Objective, kinds_of
from nncompiler.frontend.site import Network, Times
from nncompiler.portions import fixed_rows
from nncompiler.settings import Settings

if TYPE_CHECKING:
    import networkx as nx

Array = np.ndarray[Any, Any]
Kinds = tuple[tuple[str, str], ...]
TIME = ""  # instead of an output's name: of how many times the data of a recurrent network are
TIMES = 8  # as long as no data have said so


class Blueprint:
    """The network and its objectives, by the kinds of targets and whether rows are weighted."""

    def __init__(self, source: nx.DiGraph[Any], settings: Settings) -> None:
        self.source = source.copy() if hasattr(source, "copy") else source
        self.settings = settings
        self._networks: dict[int, Network] = {}
        self.network = self._network(TIMES)
        self._objectives: dict[tuple[Kinds, bool], Objective] = {}
        plain = self._make({}, False)
        kinds = [
            (name, LABELS if loss.takes_labels and loss.logits else DENSE)
            for name, loss in plain.losses.items()
        ]
        self.kinds: Kinds = self._at_times(kinds, TIMES)
        self.objective = self.find(self.kinds, False)
        self.inputs = tuple(self.network.inputs)
        self.rows = fixed_rows(self.network.inputs.values())
        self.outputs = tuple(self.objective.inference.outputs)
        self.targets = {name: t.id for name, t in self.objective.targets.items()}

    def _network(self, times: int) -> Network:
        """The network on data of so many times, where they have any."""
        if times not in self._networks:
            s = self.settings
            self._networks[times] = read_network(
                self.source,
                dtype=s.real,
                outputs=s.outputs,
                initializer=s.initializer,
                times=Times(times, s.recurrent == "last") if s.recurrent else None,
            )
        return self._networks[times]

    def _at_times(self, kinds: Iterable[tuple[str, str]], times: int) -> Kinds:
        plain = tuple((name, kind) for name, kind in kinds if name != TIME)
        return (*plain, (TIME, str(times))) if self.settings.recurrent else plain

    def kinds_at(self, inputs: Mapping[str, Any]) -> Kinds:
        """The usual kinds of targets, for as many times as the inputs have."""
        if not self.settings.recurrent:
            return self.kinds
        return self._at_times(self.kinds, self._times_of(inputs))

    def _times_of(self, inputs: Mapping[str, Any]) -> int:
        """ValueError where data that have to have times have none."""
        if not self.settings.recurrent:
            return TIMES
        ((name, node),) = self.network.inputs.items()
        shape = np.shape(inputs[name])
        if len(shape) != 3 or shape[2] != node.shape[2] or not shape[1]:
            wanted = f"(batch, time, {node.shape[2]})"
            raise ValueError(f"input '{name}': expected shape {wanted}, got {shape}")
        return int(shape[1])

    def _make(self, kinds: Mapping[str, str], weighted: bool) -> Objective:
        s = self.settings
        plain = dict(kinds)
        return make_objective(
            self._network(int(plain.pop(TIME, TIMES))),
            loss=s.loss,
            optimizer=s.optimizer,
            regularizer=s.regularizer,
            metrics=s.metrics,
            kinds=plain,
            weighted=weighted,
            loss_weights=s.loss_weights,
            trained=s.trained,
            prefix=s.prefix,
        )

    def find(self, kinds: Kinds, weighted: bool) -> Objective:
        key = (kinds, weighted)
        if key not in self._objectives:
            self._objectives[key] = self._make(dict(kinds), weighted)
        return self._objectives[key]

    def graph(self, name: str, kinds: Kinds, weighted: bool) -> Graph:
        """forward, forward_training, score, backward, training_loss, update or step."""
        objective = self.find(kinds, weighted)
        if name == "training_loss":
            backward = objective.graph("backward")
            return Graph(name, backward.inputs, {"loss": backward.outputs["loss"]}, backward.names)
        if name != "forward_training":
            return objective.graph(name)
        built = objective.training
        data = tuple(objective.network.inputs.values())
        found = Graph(name, (), built.outputs).nodes
        others = tuple(n for n in found if n.op.name == "input" and n not in data)
        names = {n: t for n, t in built.names.items() if n in set(found)}
        return Graph(name, (*data, *others), built.outputs, names)

    def with_optimizer(self, **changes: Any) -> Blueprint:
        """The same network under an optimizer with other hyper-parameters."""
        assert self.objective.optimizer is not None
        optimizer = replace(self.objective.optimizer, **changes)
        return Blueprint(self.source, replace(self.settings, optimizer=optimizer))

    def initial_state(self, seed: int) -> dict[str, Array]:
        """First values of parameters and of all that persists beside them, by input id."""
        values = self.network.draw(seed)
        return {**values, **self.objective.states, **self.network.draw_states(seed)}

    # ------------------------------------------------------------------ data

    def name_inputs(self, x: Any) -> dict[str, Any]:
        return name_values(x, self.inputs, "input")

    def refuse_several(self) -> None:
        """ValueError where it is one of several objectives that has loss and optimizer."""
        if self.settings.objectives:
            known = ", ".join(f"'{name}'" for name in self.settings.objectives)
            raise ValueError(
                f"the model has several objectives: use model.objectives[...] with one of {known}"
            )

    def pack(self, x: Any, t: Any, sample_weight: Any = None) -> dict[str, Array]:
        """Inputs, targets and weights by input id, not yet converted."""
        self.refuse_several()
        data = self.name_inputs(x)
        if not self.targets:
            raise ValueError("the model was compiled without a loss: compile(graph, loss=...)")
        for name, value in name_values(t, tuple(self.targets), "target").items():
            data[self.targets[name]] = value
        if sample_weight is not None:
            data[SAMPLE_WEIGHT] = sample_weight
        return as_rows(data)

    def kinds_of(self, data: Mapping[str, Array]) -> Kinds:
        """Which targets are class numbers, told from dtypes and ranks."""
        forms = {
            name: (data[id].dtype.kind in "iu", data[id].ndim) for name, id in self.targets.items()
        }
        found = kinds_of(self.objective, forms)
        kinds = [(name, self._kind(name, found[name], forms[name][1])) for name in found]
        return self._at_times(kinds, self._times_of(data))

    def _kind(self, name: str, found: str, rank: int) -> str:
        """The default kind where the data fit neither, so that the error names what is expected."""
        expected = self.objective.inference.outputs[name].ndim
        default = dict(self.kinds)[name]
        if found == DENSE and default == LABELS and rank != expected:
            return LABELS
        return found
