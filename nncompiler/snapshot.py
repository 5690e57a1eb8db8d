"""Takes a model, gives its inference on a snapshot of parameters and state: `model.freeze()`.

    fast = model.freeze()
    fast(x)                  as model(x), for any batch size
    fast.bind(x)()           as model.bind(x)()
    fast.refresh()           takes the parameters as they are now

All that depends on parameters and state alone is computed when the snapshot is taken: batch norms
become biases, weights are packed and transformed for the kernels that read them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ir.text import print_graph
from nncompiler.binding import Binding
from nncompiler.blueprint import Kinds
from nncompiler.program import Program
from nncompiler.separate import separate
from nncompiler.stages import Stages
from runtime.artifact import FIXED
from runtime.direct import direct
from runtime.route import Route
from runtime.state import State

if TYPE_CHECKING:
    from nncompiler.model import Model
    from nncompiler.roofline import ProfileTable


class _Part:
    """The programs for one kind of data, and the arrays between them."""

    def __init__(self, model: Model, kinds: Kinds) -> None:
        options, checks = model.settings.options, model.blueprint.find(kinds, False).checks
        graph = model.blueprint.graph("forward", kinds, False)
        self.source = graph
        self.halves = separate(graph, frozenset(model.state))
        self.taken = {FIXED + id: model.state[id] for id in self.halves.taken}
        self.once = Program(self.halves.once, model.state, {}, options)
        self.arrays = State(self._values())
        self.program = Program(self.halves.rest, self.arrays, checks, options)
        self.session = self.program.session

    def _values(self) -> Mapping[str, Any]:
        computed = self.once.session({}) if self.halves.once.outputs else {}
        return {**self.taken, **computed}

    def refresh(self) -> None:
        self.arrays.restore(self._values())
        self.session.refresh()

    def stage(self, name: str) -> str:
        if name == "graph":
            return print_graph(self.source)
        if name == "gradient":  # there is none; instead, what the graph was made of
            return print_graph(self.halves.once) + "\n\n" + print_graph(self.halves.rest)
        return self.program.stage(name)


class Snapshot:
    """Inference on a snapshot of a model's parameters and state; made by `model.freeze()`.

    Later writes to `model.parameters`, and later training, change nothing here until `refresh`.
    Outputs are those of the model but for rounding, the same for any number of threads. The
    snapshot takes as much memory as the parameters, once or twice, and up to 16 / 9 of the weights
    of 3 x 3 convolutions.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._parts: dict[Kinds, _Part] = {}
        self._last: _Part | None = None
        if not model.settings.recurrent:  # else made for the times that data have
            self._part(model.blueprint.kinds)
        self._call = direct(self._general, self._route)

    def _part(self, kinds: Kinds) -> _Part:
        if kinds not in self._parts:
            self._parts[kinds] = _Part(self._model, kinds)
        return self._parts[kinds]

    def _part_for(self, inputs: Mapping[str, Any]) -> _Part:
        self._last = self._part(self._model.blueprint.kinds_at(inputs))
        return self._last

    def __call__(self, x: Any) -> Any:
        """The outputs for any batch size: an array, or a dict by name where there are several.

        x is as for the model. ValueError and TypeError as there.
        """
        return self._call(x)

    def _general(self, x: Any) -> Any:
        inputs = self._model.blueprint.name_inputs(x)
        return self._model._shape_outputs(self._part_for(inputs).session(inputs))

    def _route(self) -> Route:
        assert self._last is not None
        outputs = self._model.blueprint.outputs
        name = outputs[0] if len(outputs) == 1 else None
        shape = self._model._shape_outputs
        names = self._model.blueprint.inputs
        return Route(self._last.session, names, name, casts=True, shape=shape)

    def bind(self, x: Any) -> Binding:
        """A callable on fixed buffers holding a copy of x, with the least overhead, which gives
        the outputs. `refresh` is for it too."""
        inputs = self._model.blueprint.name_inputs(x)
        bound = self._part_for(inputs).session.bind(inputs)
        return Binding(bound, self._model._shape_outputs, live=True)

    def refresh(self) -> None:
        """Takes the model's parameters and state as they are now, for all calls and bindings.

        No other thread may be in a call meanwhile.
        """
        for part in self._parts.values():
            part.refresh()

    @property
    def stages(self) -> Stages:
        """Stage name -> text, as of a model; "gradient" is the graph in two: what is computed once,
        and what is left."""
        return Stages(self._some_part().stage)

    def profile(self, x: Any, repeats: int = 20) -> ProfileTable:
        """Per kernel: time, rates and share of one call, as `model.profile`."""
        from nncompiler.roofline import profile_table  # needs the code generator

        inputs = self._model.blueprint.name_inputs(x)
        timed = self._part_for(inputs).program.timed
        timed.refresh()
        return profile_table(timed.profile(inputs, repeats), self._model.blueprint.settings.real)

    def _some_part(self) -> _Part:
        return self._last or self._part(self._model.blueprint.kinds)

    def __repr__(self) -> str:
        return f"<snapshot of {self._model!r}>"
