"""Takes a networkx graph and settings, gives the compiled model that users hold."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nncompiler import comparison, persist, report
from nncompiler.binding import Binding
from nncompiler.blueprint import Blueprint, Kinds
from nncompiler.comparison import Comparison
from nncompiler.machine import Machine
from nncompiler.program import Program
from nncompiler.reference import Reference
from nncompiler.settings import Settings
from nncompiler.stages import Stages
from nncompiler.table import Table, in_notebook
from runtime.direct import direct
from runtime.route import Route
from runtime.session import Session
from runtime.state import ParameterView, State

if TYPE_CHECKING:
    import networkx as nx

    from nncompiler.explain.answer import Known
    from nncompiler.explain.explanation import Explanation
    from nncompiler.picture.drawing import Picture
    from nncompiler.roofline import ProfileTable
    from nncompiler.snapshot import Snapshot


class Model(Machine):
    """A network as native code; made by `nnc.compile` and `nnc.load`.

    forward, backward, update and step are compiled functions; `parameters` are the very arrays that
    they read and write. See the methods for the rest.
    """

    def __init__(self, blueprint: Blueprint, shared: State | None = None) -> None:
        super().__init__(blueprint, shared)
        self._programs: dict[tuple[str, Kinds, bool], Program] = {}
        self._definitions: Known = {}
        self._connect()
        if not self.settings.recurrent:  # else compiled for the times that data have
            self.runner(self.main)  # the others when they are first needed

    def _part(self, blueprint: Blueprint) -> Model:
        return Model(blueprint, self.state)

    @property
    def settings(self) -> Settings:
        """What it was compiled with, and the optimizers that it has by now."""
        settings = self.blueprint.settings
        parts = {
            name: replace(o, optimizer=self.objectives[name].blueprint.settings.optimizer)
            for name, o in settings.objectives.items()
        }
        return replace(settings, objectives=parts) if parts else settings

    @property
    def source(self) -> nx.DiGraph[Any]:
        """The graph that was compiled (a copy of the user's)."""
        return self.blueprint.source

    @property
    def main(self) -> str:
        """The graph that the model is for: step, or what comes nearest to it."""
        if not self.blueprint.targets:
            return "forward"
        return "backward" if self.blueprint.objective.optimizer is None else "step"

    @property
    def compilations(self) -> int:
        """How many programs have been compiled so far (from scratch or from the cache)."""
        return sum(program.compiled for program in self._programs.values())

    def program(self, name: str, kinds: Kinds | None = None, weighted: bool = False) -> Program:
        """The graph of that name on its way to native code."""
        key = (name, self.blueprint.kinds if kinds is None else kinds, weighted)
        if key not in self._programs:
            checks = self.blueprint.find(*key[1:]).checks
            graph = self.blueprint.graph(*key)
            self._programs[key] = Program(graph, self.state, checks, self.settings.options)
        return self._programs[key]

    def _open(self, name: str, kinds: Kinds, weighted: bool) -> Session:
        return self.program(name, kinds, weighted).session

    def _replace_optimizer(self, **changes: Any) -> None:
        super()._replace_optimizer(**changes)
        self._connect()
        self._programs = {k: p for k, p in self._programs.items() if k[0] not in ("update", "step")}
        self.__dict__.pop("reference", None)

    # ------------------------------------------------------------------ calls without overhead

    def _connect(self) -> None:
        """Lays the short ways to native code; they open with the first general call."""
        self._forward = direct(super().forward, self._forward_route)
        self._step = direct(super().step, self._step_route)

    def _forward_route(self) -> Route:
        outputs = self.blueprint.outputs
        name = outputs[0] if len(outputs) == 1 else None
        session: Any = self._last_forward
        return Route(session, self.blueprint.inputs, name, casts=True, shape=self._shape_outputs)

    def _step_route(self) -> Route:
        session: Any = self._stepper
        names = (*self.blueprint.inputs, *self.blueprint.targets.values())
        return Route(session, names, "loss", number=True, casts=True)

    def __call__(self, x: Any) -> Any:
        return self._forward(x)

    def forward(self, x: Any, training: bool = False) -> Any:
        return super().forward(x, True) if training else self._forward(x)

    def step(self, x: Any, t: Any, sample_weight: Any = None) -> float:
        if sample_weight is not None:
            return super().step(x, t, sample_weight)
        loss: float = self._step(x, t)
        return loss

    def bind(self, x: Any, t: Any = None, sample_weight: Any = None) -> Binding:
        """A callable on fixed buffers holding a copy of x and t, with the least overhead.

        With an optimizer it makes a step and gives the loss; without, (loss, gradients); without
        targets, the outputs. `.run(n)` makes n calls natively.
        """
        if t is None:
            inputs = self.blueprint.name_inputs(x)
            session: Any = self._forwarder("forward", inputs)
        else:
            inputs = self.blueprint.pack(x, t, sample_weight)
            session = self._runner_for(self.main, inputs)
        name = "forward" if t is None else self.main
        bound = session.bind(inputs)
        if name == "step":
            return Binding(bound, lambda results: float(results["loss"]), number="loss")
        if name == "forward":
            return Binding(bound, self._shape_outputs, live=True)
        return Binding(bound, lambda r: (float(r["loss"]), self._name_gradients(r)))

    def freeze(self) -> Snapshot:
        """Inference on a snapshot of parameters and state, quicker than live ones allow.

        `frozen(x)` is `model(x)` but for rounding, `frozen.bind(x)` as `model.bind(x)`, and
        `frozen.refresh()` takes the parameters anew; until then, writing to them changes nothing
        there. Batch norms are folded into weights, which are packed and transformed once.
        """
        from nncompiler.snapshot import Snapshot  # simplifies graphs: for those who freeze

        return Snapshot(self)

    # ------------------------------------------------------------------ copies and files

    def __deepcopy__(self, memo: Any) -> Model:
        """A model of its own: the same parameters, optimizer state, progress and history."""
        twin = Model(Blueprint(self.source, self.settings))
        twin.state.restore(self.state.copy())
        twin.resume(self.epoch, self.seed, self.history_data())
        for name, part in self.objectives.items():
            twin.objectives[name].resume(part.epoch, part.seed, part.history_data())
        return twin

    def __reduce__(self) -> Any:
        raise TypeError("a model is not pickled: model.save(path) and nnc.load(path) keep it whole")

    def save(self, path: persist.PathLike) -> None:
        """The whole model and its training state in one .nnc file (no code, no pickle)."""
        persist.save_model(self, path)

    def to_networkx(self) -> nx.DiGraph[Any]:
        """The neuron graph that was compiled: its own nodes and attributes, and the weights and
        biases as they are now. ValueError for a graph of layers."""
        if not self.blueprint.network.views:
            raise ValueError("to_networkx gives graphs of neurons; this network has layers")
        from nncompiler.frontend.neurons import write_neurons  # as in frontend/network.py

        return write_neurons(self.source, self.parameters)

    def save_weights(self, path: persist.PathLike) -> None:
        """Parameters by name, and running statistics, as .npz (or .safetensors)."""
        persist.save_arrays(self._weights(), path)

    def load_weights(self, path: persist.PathLike, strict: bool = True) -> list[str]:
        """Sets parameters from a file, gives their names; strict=False takes what fits."""
        return persist.assign_arrays(self._weights(), persist.load_arrays(path), path, strict)

    def _weights(self) -> ParameterView:
        """Parameters, and what layers keep beside them (but for random counters)."""
        if self._views:
            return self.parameters
        names: list[str] = [*self.parameters]
        for machine in (self, *self.objectives.values()):
            states = machine.blueprint.network.states
            names += [n for n, s in states.items() if not (n.startswith("random.") or s.carried)]
        return ParameterView.of(self.state, {name: name for name in names})

    # ------------------------------------------------------------------ looking inside

    @cached_property
    def reference(self) -> Reference:
        """The same network run by NumPy, with its own copy of the parameters as they are now."""
        twin = Reference(self.blueprint, self.state.copy())
        twin.resume(self.epoch, self.seed, self.history_data())
        return twin

    def compare(self, x: Any, t: Any = None) -> Comparison:
        """Largest errors of outputs, loss and gradients against NumPy, from the same parameters."""
        twin = Reference(self.blueprint, self.state.copy())
        return comparison.compare(self, twin, x, t)

    def check_gradients(self, x: Any, t: Any, **options: Any) -> Comparison:
        """Largest errors of the gradients against central differences, by parameter."""
        return comparison.check_gradients(self, x, t, **options)

    @cached_property
    def stages(self) -> Stages:
        """Stage name -> text, of the training step (of forward, where there is no loss)."""
        return Stages(lambda name: report.read_stage(self, name))

    def dump(self, folder: persist.PathLike) -> list[Path]:
        """Writes every stage and DOT pictures of the graphs; gives the files."""
        return report.dump(self, Path(folder))

    def describe(self) -> Table:
        """The table of `summary`."""
        return report.summarize(self)

    def summary(self) -> Table:
        """Layers, parameters, kernels and memory; printed, and shown as HTML in notebooks."""
        table = self.describe()
        if not in_notebook():
            print(table)
        return table

    def explain(self, what: Any, targets: str | None = None) -> Explanation:
        """The derivative of the loss by an edge, a neuron or a parameter, as formulas.

        `what` is a parameter's name ("hidden.weight", "3->6", "6.bias"), an edge's weight_name or
        pair (3, 6), its symbol ("w36"), or a neuron. The result prints as text, shows as LaTeX in
        notebooks, and `.evaluate(x, t)` computes the very formulas. `targets` ("labels" or "dense")
        is what the loss gets, where it takes both. ValueError for what is not there.
        """
        from nncompiler.explain.answer import explain  # for people, not for training

        if self.settings.recurrent:
            raise ValueError("explain does not write derivatives through time (recurrent=True)")
        return explain(self, what, targets, self._definitions)

    def picture(self, x: Any = None) -> Picture:
        """The graph as SVG, shown in notebooks; `.svg` is its text, `.save(path)` writes it.

        Neurons: edges blue above and red below zero, wider the larger the weight, the layers found
        in frames; layers (and graphs of more than 300 neurons or 1500 edges): a box each. With x,
        the data of one example, neurons and layers show their values for it.
        """
        from nncompiler.picture.drawing import picture  # for people, not for training

        return picture(self, x)

    def _repr_svg_(self) -> str:
        return self.picture().svg

    def profile(self, x: Any, t: Any = None, repeats: int = 20) -> ProfileTable:
        """Per kernel: time, GFLOP/s, GB/s, share of one step (of forward without targets), and the
        fraction of what this machine's measured peak and bandwidth allow; `.plot()` draws that.

        Parameters and optimizer state are as before afterwards.
        """
        from nncompiler.roofline import profile_table  # needs the code generator

        blueprint = self.blueprint
        if t is None:
            data = blueprint.name_inputs(x)
            program = self.program("forward", blueprint.kinds_at(data))
        else:
            data = blueprint.pack(x, t)
            program = self.program(self.main, blueprint.kinds_of(data))
        return profile_table(program.timed.profile(data, repeats), blueprint.settings.real)

    def __repr__(self) -> str:
        counts = sum(array.size for array in self.parameters.values())
        inputs = ", ".join(f"'{n}'" for n in self.blueprint.inputs)
        outputs = ", ".join(f"'{n}'" for n in self.blueprint.outputs)
        return f"<Model {inputs} -> {outputs}, {counts} parameters, {self.settings.dtype}>"
