"""Takes a blueprint and its state, gives everything that a model does with data.

How a graph is run is left to the subclasses: natively (Model) or by NumPy (Reference). Both train
through the runtime's `fit`, so they see the same batches in the same order.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np

from nncompiler.blueprint import Blueprint, Kinds
from nncompiler.data import rows_of
from nncompiler.frontend.losses import DENSE
from nncompiler.frontend.objective import SAMPLE_WEIGHT
from nncompiler.frontend.updates import AVERAGE, LEARNING_RATE, STEP_COUNT
from nncompiler.portions import batch_rows, check_rows, mean_of, portions
from nncompiler.settings import check_seed
from runtime.history import History
from runtime.recycle import result_empty
from runtime.state import ParameterView, State
from runtime.trainer import fit, plain

Array = np.ndarray[Any, Any]
Data = dict[str, Any]

SCORE_BATCH = 1024


class Runner(Protocol):
    """What runs one graph: a Session, or the interpreter."""

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, Array]: ...

    def prepare(self, data: Mapping[str, Any]) -> dict[str, Array]: ...

    def train(
        self, data: Mapping[str, Any], batch_size: int, order: Array | None = None
    ) -> dict[str, float]: ...


class Machine(ABC):
    """A network with its parameters, optimizer state and history."""

    def __init__(self, blueprint: Blueprint, shared: State | None = None) -> None:
        """`shared` is the state of the machine whose objective this one is."""
        self.blueprint = blueprint
        self.seed = blueprint.settings.seed
        self.epoch = 0
        self.stop_training = False
        self.history: Any = History()
        self.state = State() if shared is None else shared
        for name, value in blueprint.initial_state(self.seed).items():
            if name not in self.state:
                self.state.add(name, value)
        settings = blueprint.settings
        self.objectives: Mapping[str, Machine] = {
            name: self._part(Blueprint(blueprint.source, settings.part(name)))
            for name in settings.objectives
        }
        self._runners: dict[tuple[str, Kinds, bool], Runner] = {}
        self._stepper: Runner | None = None  # what made the last step
        self._last_forward: Runner | None = None
        self._views = blueprint.network.views
        self._parameters = self._view_parameters()

    @abstractmethod
    def _part(self, blueprint: Blueprint) -> Machine:
        """A machine of the same kind for one objective, on this one's state."""

    def _view_parameters(self, prefix: str = "") -> ParameterView:
        """Live arrays by the parameters' names, of the state's entries with that prefix."""
        if self._views:
            names = {n: (prefix + view.array, view.index) for n, view in self._views.items()}
        else:
            parts = [self.blueprint, *(part.blueprint for part in self.objectives.values())]
            names = {n: (prefix + n, ()) for part in parts for n in part.network.parameters}
        return ParameterView(self.state, {n: p for n, p in names.items() if p[0] in self.state})

    @abstractmethod
    def _open(self, name: str, kinds: Kinds, weighted: bool) -> Runner:
        """What runs the graph of that name for such targets."""

    def runner(self, name: str, kinds: Kinds | None = None, weighted: bool = False) -> Runner:
        """What runs the graph of that name for such targets; made when first needed."""
        if kinds is None or name == "update":
            kinds, weighted = self.blueprint.kinds, False
        key = (name, kinds, weighted)
        if key not in self._runners:
            self._runners[key] = self._open(*key)
        return self._runners[key]

    def _runner_for(self, name: str, data: Mapping[str, Array]) -> Runner:
        return self.runner(name, self.blueprint.kinds_of(data), SAMPLE_WEIGHT in data)

    # ------------------------------------------------------------------ parameters

    @property
    def parameters(self) -> ParameterView:
        """Live arrays by name: writing into them changes the network."""
        return self._parameters

    @property
    def averages(self) -> ParameterView:
        """Live moving averages of the parameters, with an optimizer that has `average=`."""
        optimizer = self.blueprint.objective.optimizer
        if optimizer is None or optimizer.average is None:
            raise ValueError("there are no averages: compile with an optimizer with average=0.999")
        return self._view_parameters(self._prefix + AVERAGE)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within `with model.averaged():` the parameters are their averages."""
        averages = self.averages
        kept = {name: array.copy() for name, array in self.parameters.items()}
        try:
            if self.state[self._prefix + STEP_COUNT] > 0:  # the first update begins the average
                for name, array in averages.items():
                    self.parameters[name] = array
            yield
        finally:
            for name, array in kept.items():
                self.parameters[name] = array

    @property
    def learning_rate(self) -> float:
        """The base rate of the optimizer; a schedule shapes it over the updates."""
        self._need_optimizer()
        return float(self.state[self._prefix + LEARNING_RATE])

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        self._need_optimizer()
        if isinstance(value, (int, float, np.number)) and not isinstance(value, bool):
            if not np.isfinite(value) or value < 0:
                raise ValueError(f"learning_rate must be a non-negative number, not {value}")
            self.state[self._prefix + LEARNING_RATE] = np.asarray(value, np.float64)
            return
        self._replace_optimizer(learning_rate=value)

    @property
    def _prefix(self) -> str:
        return self.blueprint.settings.prefix

    def _need_optimizer(self) -> None:
        self.blueprint.refuse_several()
        if self.blueprint.objective.optimizer is None:
            raise ValueError("the model was compiled without an optimizer")

    def _replace_optimizer(self, **changes: Any) -> None:
        """Another schedule is another graph: what contains the update is compiled again."""
        before = self.blueprint.objective.states
        self.blueprint = self.blueprint.with_optimizer(**changes)
        for key in before.keys() - self.blueprint.objective.states.keys():
            self.state.drop(key)
        for key, value in self.blueprint.objective.states.items():
            if key not in self.state:
                self.state.add(key, value)
        rate = self._prefix + LEARNING_RATE
        self.state[rate] = self.blueprint.objective.states[rate]
        self._runners = {k: r for k, r in self._runners.items() if k[0] not in ("update", "step")}
        self._stepper = None

    def reset(self, seed: int | None = None) -> None:
        """Draws new parameters (from the first seed where none is given), clears the optimizer."""
        self.seed = self.blueprint.settings.seed if seed is None else check_seed(seed)
        self.state.restore(self.blueprint.initial_state(self.seed))
        self.epoch = 0
        self.history = History()
        for part in self.objectives.values():
            part.reset(self.seed)

    def reset_states(self) -> None:
        """Stateful layers begin a new stream of data: what they carry is as at first.

        ValueError where no layer is stateful.
        """
        carried = self._carried()
        for part in self.objectives.values():
            carried |= part._carried()
        if not carried:
            raise ValueError("no layer of the model is stateful: there are no states to reset")
        self.state.restore(carried)

    @property
    def goes_on(self) -> bool:
        """Whether layers are stateful: a row's batches are the pieces of one sequence."""
        return bool(self._carried())

    def _carried(self) -> dict[str, Array]:
        """What stateful layers begin with, by name."""
        states = self.blueprint.network.states
        return {name: state.initial for name, state in states.items() if state.carried}

    # ------------------------------------------------------------------ running

    def __call__(self, x: Any) -> Any:
        return self.forward(x)

    def forward(self, x: Any, training: bool = False) -> Any:
        """The outputs: an array, or a dict by name where there are several.

        x is an array of the input's shape (a dict by name or a tuple where there are several);
        with `training` dropout is active and batch norm uses the batch.
        """
        inputs = self.blueprint.name_inputs(x)
        run = self._forwarder("forward_training" if training else "forward", inputs)
        return self._shape_outputs(run(inputs))

    def _forwarder(self, name: str, inputs: Mapping[str, Any]) -> Runner:
        self._last_forward = self.runner(name, self.blueprint.kinds_at(inputs))
        return self._last_forward

    def predict(self, x: Any, batch_size: int | None = None) -> Any:
        """The outputs, computed in batches of that size."""
        if batch_size is None and self.blueprint.rows is None:
            return self.forward(x)
        data = {k: np.asarray(v) for k, v in self.blueprint.name_inputs(x).items()}
        run = self._forwarder("forward", data)
        size = batch_rows(rows_of(data), batch_size, self.blueprint.rows)
        parts = [run(part) for part in portions(data, size)] or [run(data)]
        names = self.blueprint.outputs
        return self._shape_outputs({n: _joined([p[n] for p in parts]) for n in names})

    def _shape_outputs(self, outputs: dict[str, Array]) -> Any:
        return next(iter(outputs.values())) if len(self.blueprint.outputs) == 1 else outputs

    def backward(self, x: Any, t: Any, sample_weight: Any = None) -> tuple[float, dict[str, Array]]:
        """(loss, gradients by parameter name), both with the regularizer, as in training."""
        data = self.blueprint.pack(x, t, sample_weight)
        results = self._runner_for("backward", data)(data)
        return float(results["loss"]), self._name_gradients(results)

    def _name_gradients(self, results: Mapping[str, Array]) -> dict[str, Array]:
        arrays = {
            name.removeprefix("grad:"): array
            for name, array in results.items()
            if name.startswith("grad:")
        }
        if not self._views:
            return arrays
        return {
            name: np.asarray(arrays[view.array][view.index])
            for name, view in self._views.items()
            if view.array in arrays
        }

    def update(self, gradients: Mapping[str, Any]) -> None:
        """One optimizer step along these gradients; they need every trainable name."""
        self._need_optimizer()
        if not isinstance(gradients, Mapping):
            raise TypeError(f"gradients are a dict by name, not a {type(gradients).__name__}")
        trainable = self.blueprint.objective.trainable
        wanted = [n for n, v in self._views.items() if v.array in trainable] or list(trainable)
        for name in wanted:
            if name not in gradients:
                raise ValueError(f"the gradient of '{name}' is missing")
        for name in gradients:
            if name not in wanted:
                raise ValueError(f"'{name}' is not a trainable parameter")
        arrays = dict(gradients)
        if self._views:
            arrays = {n: np.zeros_like(self.state[n]) for n in trainable}
            for name in wanted:
                view = self._views[name]
                arrays[view.array][view.index] = gradients[name]
        self.runner("update")({f"grad:{name}": array for name, array in arrays.items()})

    def step(self, x: Any, t: Any, sample_weight: Any = None) -> float:
        """forward, backward and update in one; the loss is the one before the update."""
        data = self.blueprint.pack(x, t, sample_weight)
        self._stepper = run = self._runner_for("step", data)
        return float(run(data)["loss"])

    # ------------------------------------------------------------------ whole data sets

    def fit(
        self,
        x: Any,
        t: Any = None,
        epochs: int = 1,
        batch_size: int = 32,
        validation_data: Any = None,
        validation_split: float = 0.0,
        shuffle: bool = True,
        callbacks: Iterable[Any] = (),
        verbose: str | int = "auto",
        sample_weight: Any = None,
        class_weight: Mapping[int, float] | None = None,
    ) -> History:
        """Trains for some epochs; the history holds loss, metrics and the same with val_.

        x, t              arrays with one row per example (dicts or tuples of them where there are
                          several); or x an iterable of batches (x, t) and t None
        batch_size        rows of a batch; a network of a fixed number of rows has its own
        shuffle           a new order of the rows in every epoch; not for stateful layers
        validation_data   (x, t) or (x, t, sample_weight)
        validation_split  the last part of the rows, 0 to 1, is not trained on but scored
        callbacks         objects with Keras' methods, or functions (epoch, logs)
        verbose           0 nothing, 1 a bar, 2 a line per epoch; "auto" a bar on a terminal
        sample_weight     (rows,) factors of the rows' losses
        class_weight      class number -> factor of the losses of its rows, in training alone

        ValueError or TypeError for data that do not fit: arrays are checked before the first step.
        """
        self._need_optimizer()
        return fit(
            self,
            x,
            t,
            epochs=epochs,
            batch_size=batch_size,
            validation_data=validation_data,
            validation_split=validation_split,
            shuffle=shuffle,
            callbacks=callbacks,
            verbose=verbose,
            sample_weight=sample_weight,
            class_weight=class_weight,
        )

    def evaluate(
        self, x: Any, t: Any, batch_size: int | None = None, sample_weight: Any = None
    ) -> dict[str, float]:
        """Loss (with the regularizer) and metrics, means over the rows, without training.

        x and t are as in `fit`; batch_size rows are scored at a time, 1024 where it is None.
        """
        data = self.pack(x, t, sample_weight)
        if rows_of(data) == 0:
            raise ValueError("empty data set: there are no rows to evaluate")
        size = SCORE_BATCH if batch_size is None else batch_size
        return plain(self.evaluate_data(data, size))

    def pack(self, x: Any, t: Any, sample_weight: Any = None) -> Data:
        """Inputs by id, cast once and checked whole; ValueError where their rows disagree."""
        data = self.blueprint.pack(x, t, sample_weight)
        name = "score" if self.blueprint.objective.optimizer is None else "step"
        prepare, fixed = self._runner_for(name, data).prepare, self.blueprint.rows
        rows = rows_of(data)
        if fixed is None:
            return prepare(data)
        check_rows(rows, fixed)
        parts = [prepare(part) for part in portions(data, fixed)]
        return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}

    def train_epoch(self, data: Data, batch_size: int, order: Array | None) -> dict[str, float]:
        return {**self._train("step", data, batch_size, order), **self._rank(data, batch_size)}

    def train_batch(self, data: Data) -> tuple[dict[str, float], int]:
        return self._run_batch("step", data), rows_of(data)

    def evaluate_data(self, data: Data, batch_size: int) -> dict[str, float]:
        return {**self._train("score", data, batch_size, None), **self._rank(data, batch_size)}

    def _train(
        self, name: str, data: Data, batch_size: int, order: Array | None
    ) -> dict[str, float]:
        """The means over rows of the graph's loss and metrics, batch after batch."""
        if self.blueprint.rows is None:
            return self._runner_for(name, data).train(data, batch_size, order)
        check_rows(rows_of(data) if order is None else len(order), self.blueprint.rows)
        parts = portions(data, self.blueprint.rows, order)
        return mean_of([self._run_batch(name, part) for part in parts])

    def _run_batch(self, name: str, data: Data) -> dict[str, float]:
        results = self._runner_for(name, data)(data)
        return {n: float(v) for n, v in results.items() if n == "loss" or _is_metric(n)}

    def _rank(self, data: Data, batch_size: int) -> dict[str, float]:
        """The metrics that need the predictions of all rows, from one more pass over them."""
        objective = self.blueprint.objective
        if not any(objective.rankings.values()):
            return {}
        found = self.predict({name: data[name] for name in self.blueprint.inputs}, batch_size)
        outputs = found if isinstance(found, dict) else {self.blueprint.outputs[0]: found}
        return objective.rank(outputs, data)

    def history_data(self) -> dict[str, Any]:
        """What a file keeps of the last fit."""
        return {"history": dict(self.history.history), "epoch": list(self.history.epoch)}

    def resume(self, epoch: int, seed: int, history: Mapping[str, Any]) -> None:
        """Goes on where a saved model stopped."""
        self.epoch, self.seed = epoch, seed
        self.history = History()
        self.history.history = {n: list(v) for n, v in history["history"].items()}
        self.history.epoch = list(history["epoch"])

    def example_data(self, rows: int, seed: int = 0) -> tuple[dict[str, Array], Any]:
        """Random data of the right shapes, for comparisons."""
        rng = np.random.default_rng(seed)
        x = {n: _draw(rng, node, rows) for n, node in self.blueprint.network.inputs.items()}
        targets = self.blueprint.objective.targets
        t = {
            name: _draw(rng, target.node, rows)
            if target.kind == DENSE
            else rng.integers(0, target.classes, _bind(target.node, rows))
            for name, target in targets.items()
        }
        return x, t or None


def _bind(node: Any, rows: int) -> tuple[int, ...]:
    return tuple(d if isinstance(d, int) else d.coefficient * rows for d in node.shape)


def _joined(parts: list[Array]) -> Array:
    first = parts[0]
    whole = result_empty((sum(map(len, parts)), *first.shape[1:]), first.dtype)
    return np.concatenate(parts, out=whole)


def _draw(rng: np.random.Generator, node: Any, rows: int) -> Array:
    shape = _bind(node, rows)
    if node.dtype.is_float:
        return rng.normal(size=shape).astype(node.dtype.numpy)
    return rng.integers(0, 2, shape).astype(node.dtype.numpy)


def _is_metric(name: str) -> bool:
    return name.startswith("metric:")
