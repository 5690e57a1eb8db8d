"""Takes a Network, a loss and an optimizer, gives the graphs that are compiled.

    forward   inputs -> outputs                         as at inference (training=False)
    score     inputs, targets -> loss, metrics          as at inference
    backward  inputs, targets -> loss, grad:<name>      as in training
    update    grad:<name> -> update:<id>                one optimizer step
    step      `update` after `backward` by substitution, with the metrics; advances random counters

Parameters and states are inputs under their names; `update:<id>` is the new value of input `id`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property, reduce

from ir import ops
from ir.graph import Graph, Node, substitute
from ir.types import DType, i64
from nncompiler.autodiff import differentiate
from nncompiler.errors import CompileError
from nncompiler.frontend.initializers import Array
from nncompiler.frontend.losses import (
    DENSE,
    LABELS,
    Loss,
    mean_loss,
    target_kind,
    target_shape,
)
from nncompiler.frontend.metrics import Metric, Result
from nncompiler.frontend.rankings import VALUES, Outcome, Ranking
from nncompiler.frontend.regularizers import Regularizer
from nncompiler.frontend.site import Built, Network, Parameter
from nncompiler.frontend.updates import Optimizer, Update

STAGE = "objective"
GRAPHS = ("forward", "score", "backward", "update", "step")
SAMPLE_WEIGHT = "sample_weight"


@dataclass(frozen=True)
class Target:
    """What the data of one output have to be: input id, kind, and the node that stands for them."""

    output: str
    id: str
    kind: str
    node: Node
    classes: int = 0

    @property
    def dtype(self) -> DType:
        return self.node.dtype


@dataclass(frozen=True)
class Objective:
    """A network with what it is trained for; made by `make_objective`.

    `kinds` says which outputs take class numbers ("labels") instead of values ("dense").
    By output, `metrics` are part of the graphs, `rankings` computed from predictions of a whole
    data set.
    `trained` are patterns of the parameters that this objective changes; `prefix` stands before the
    ids of its optimizer's states.
    """

    network: Network
    losses: Mapping[str, Loss] = field(default_factory=dict)
    optimizer: Optimizer | None = None
    regularizer: Regularizer | None = None
    metrics: Mapping[str, Mapping[str, Metric]] = field(default_factory=dict)
    kinds: Mapping[str, str] = field(default_factory=dict)
    weighted: bool = False
    rankings: Mapping[str, Mapping[str, Ranking]] = field(default_factory=dict)
    loss_weights: Mapping[str, float] = field(default_factory=dict)
    trained: tuple[str, ...] = ("*",)
    prefix: str = ""

    @cached_property
    def inference(self) -> Built:
        return self.network.build(False)

    @cached_property
    def training(self) -> Built:
        return self.network.build(True)

    @cached_property
    def trainable(self) -> dict[str, Parameter]:
        return {
            name: p
            for name, p in self.network.parameters.items()
            if p.trainable and any(fnmatchcase(name, pattern) for pattern in self.trained)
        }

    @cached_property
    def targets(self) -> dict[str, Target]:
        """The target of every output that has a loss, by the output's name."""
        return {name: self._target(name) for name in self.losses}

    def _target(self, name: str) -> Target:
        y = self.inference.outputs[name]
        id = "target" if len(self.losses) == 1 else f"target:{name}"
        kind = self.kinds.get(name, DENSE)
        shape = target_shape(kind, y)
        if kind != LABELS:
            return Target(name, id, kind, ops.input(id, self.network.dtype, shape))
        classes = y.shape[-1]
        assert isinstance(classes, int)
        return Target(name, id, kind, ops.input(id, i64, shape), classes)

    @cached_property
    def sample_weight(self) -> Node | None:
        if not self.weighted:
            return None
        first = self.inference.outputs[next(iter(self.losses))]
        return ops.input(SAMPLE_WEIGHT, self.network.dtype, first.shape[:1])

    @cached_property
    def checks(self) -> dict[str, tuple[int, int] | None]:
        """By input id: the allowed low <= number < high, or None for "must not be NaN"."""
        checks: dict[str, tuple[int, int] | None] = {**self.inference.checks}
        for t in self.targets.values():
            checks[t.id] = (0, t.classes) if t.kind == LABELS else None
        if self.weighted:
            checks[SAMPLE_WEIGHT] = None
        return checks

    @cached_property
    def states(self) -> dict[str, Array]:
        """First values of everything that persists beside the parameters, by id; not copies."""
        return self.draw_states(0)

    def draw_states(self, seed: int) -> dict[str, Array]:
        """As `states`, with the seed that dropout masks depend on."""
        values = self.network.draw_states(seed)
        if self.optimizer is not None:
            values |= {id: state.initial for id, state in self._update.states.items()}
        return values

    @cached_property
    def _graphs(self) -> dict[str, Graph]:
        return {}

    def graph(self, name: str) -> Graph:
        """The graph of that name (see GRAPHS); CompileError where loss or optimizer is missing."""
        if name not in self._graphs:
            self._graphs[name] = self._make(name)
        return self._graphs[name]

    def _make(self, name: str) -> Graph:
        if name in ("score", "backward", "step") and not self.losses:
            raise fail(f"'{name}' needs a loss", hint="compile(graph, loss=...)")
        if name in ("update", "step") and self.optimizer is None:
            raise fail(f"'{name}' needs an optimizer", hint="compile(graph, optimizer=...)")
        makers: Mapping[str, Callable[[], Graph]] = {
            "forward": self._forward,
            "score": self._score,
            "backward": self._backward,
            "update": self._update_graph,
            "step": self._step,
        }
        return makers[name]()

    # ------------------------------------------------------------------ the graphs

    def _forward(self) -> Graph:
        return self._assemble("forward", self.inference.outputs, self.inference.names)

    def _score(self) -> Graph:
        names = dict(self.inference.names)
        outputs = {"loss": self._loss(self.inference, names)} | self._measure(self.inference)
        return self._assemble("score", outputs, names)

    def _backward(self) -> Graph:
        names = dict(self.training.names)
        outputs = {"loss": self._loss(self.training, names)}
        names |= {p.node: name for name, p in self.trainable.items()}
        wrt = [p.node for p in self.trainable.values()]
        gradients = differentiate(outputs["loss"], wrt, names=names)
        for name, gradient in zip(self.trainable, gradients, strict=True):
            names.setdefault(gradient, f"d_{name}")
            outputs[f"grad:{name}"] = gradient
        return self._assemble("backward", outputs, names)

    @cached_property
    def _gradients(self) -> dict[str, Node]:
        return {
            name: ops.input(f"grad:{name}", p.node.dtype, p.node.shape)
            for name, p in self.trainable.items()
        }

    @cached_property
    def _update(self) -> Update:
        assert self.optimizer is not None
        parameters = {name: p.node for name, p in self.trainable.items()}
        tables = [name for name, p in self.trainable.items() if p.is_table]
        try:
            return self.optimizer.build(
                parameters, self._gradients, self.network.dtype, self.prefix, tables
            )
        except ValueError as error:
            raise fail(str(error)) from error

    def _update_graph(self) -> Graph:
        outputs = {f"update:{id}": node for id, node in self._update.values.items()}
        first = tuple(self._gradients.values())
        return self._assemble("update", outputs, self._update.names, first)

    def _step(self) -> Graph:
        backward, update = self.graph("backward"), self.graph("update")
        found = {self._gradients[n]: backward.outputs[f"grad:{n}"] for n in self.trainable}
        fused = substitute(update, found)
        outputs = {"loss": backward.outputs["loss"]} | self._measure(self.training)
        outputs |= fused.outputs
        outputs |= {f"update:{id}": node for id, node in self.training.updates.items()}
        return self._assemble("step", outputs, {**fused.names, **backward.names})

    def _assemble(
        self,
        name: str,
        outputs: Mapping[str, Node],
        names: Mapping[Node, str],
        first: Sequence[Node] = (),
    ) -> Graph:
        """Data inputs and targets first (all of them), then the parameters and states in use."""
        data = tuple(self.network.inputs.values()) if name != "update" else ()
        if "loss" in outputs:
            data += tuple(t.node for t in self.targets.values())
        found = Graph(name, (), dict(outputs), {}).nodes
        leaves = [n for n in found if n.op.name == "input"]
        rank = {n: i for i, n in enumerate([*first, *data, *self._kept()])}
        used = sorted((n for n in leaves if n not in data), key=lambda n: rank.get(n, len(rank)))
        inputs = tuple(dict.fromkeys((*first, *data, *used)))
        known = set(found)
        kept = {n: t for n, t in names.items() if n in known}
        for leaf in inputs:
            kept.setdefault(leaf, leaf.attrs["id"].replace("grad:", "d_").replace(":", "_"))
        return Graph(name, inputs, dict(outputs), kept)

    def _kept(self) -> list[Node]:
        return [p.node for p in self.network.parameters.values()]

    # ------------------------------------------------------------------ loss and metrics

    def _loss(self, built: Built, names: dict[Node, str]) -> Node:
        parts = []
        for name, loss in self.losses.items():
            try:
                scores, target = self.scores(built, name), self.targets[name].node
                mean = mean_loss(loss, scores, target, self.sample_weight)
                weight = self.loss_weights.get(name, 1.0)
                parts.append(mean if weight == 1.0 else mean * weight)
            except CompileError:
                raise
            except (ValueError, TypeError) as error:
                raise fail(f"the loss '{loss.name}' of '{name}': {error}", node=name) from error
        penalties = [r(p.node) for p in self.trainable.values() if (r := self.penalty_of(p))]
        if penalties:
            names.setdefault(reduce(ops.add, parts), "data_loss")
            names.setdefault(reduce(ops.add, penalties), "penalty")
            parts = [reduce(ops.add, parts), reduce(ops.add, penalties)]
        total = reduce(ops.add, parts)
        names.setdefault(total, "loss")
        return total

    def penalty_of(self, parameter: Parameter) -> Regularizer | None:
        if parameter.regularizer is not None:
            return parameter.regularizer
        return self.regularizer if parameter.is_weight else None

    def scores(self, built: Built, name: str) -> Node:
        """The output as the loss takes it: before a last softmax or sigmoid that it undoes."""
        wanted = self.losses[name].logits
        end, z = built.ends.get(name, ("", built.outputs[name]))
        undone = {"softmax": ("softmax", "log_softmax"), "sigmoid": ("sigmoid",)}
        return z if end in undone.get(wanted, ()) else built.outputs[name]

    def _measure(self, built: Built) -> dict[str, Node]:
        values: dict[str, Node] = {}
        for output, loss in self.losses.items():
            target = self.targets[output]
            y, scores = built.outputs[output], self.scores(built, output)
            result = Result(y, scores, target.node, target.kind, loss)
            prefix = f"{output}_" if len(self.losses) > 1 else ""
            for name, metric in self.metrics.get(output, {}).items():
                try:
                    values[f"metric:{prefix}{name}"] = metric(result)
                except (ValueError, TypeError) as error:
                    raise _misfit(name, output, str(error)) from error
            if target.kind == LABELS and (wrong := VALUES & set(self.rankings.get(output, ()))):
                raise _misfit(min(wrong), output, "it needs values as targets, not class numbers")
        return values

    def rank(
        self, predictions: Mapping[str, Array], targets: Mapping[str, Array]
    ) -> dict[str, float]:
        """The rankings of a whole data set: predictions by output, targets by input id."""
        values = {}
        for output, loss in self.losses.items():
            undone = self.scores(self.inference, output) is not self.inference.outputs[output]
            scores = loss.name == "hinge" or (loss.logits == "sigmoid" and not undone)
            target = targets[self.targets[output].id]
            outcome = Outcome(predictions[output], target, 0.0 if scores else 0.5)
            prefix = f"{output}_" if len(self.losses) > 1 else ""
            for name, ranking in self.rankings.get(output, {}).items():
                values[prefix + name] = ranking(outcome)
        return values


def _misfit(metric: str, output: str, why: str) -> CompileError:
    hint = f"choose by output: metrics={{'{output}': (...), ...}}"
    return fail(f"the metric '{metric}' of '{output}': {why}", node=output, hint=hint)


def kinds_of(objective: Objective, data: Mapping[str, tuple[bool, int]]) -> dict[str, str]:
    """Which outputs get class numbers, from (is an integer dtype, rank) of the target arrays."""
    kinds = {}
    for name, loss in objective.losses.items():
        integer, rank = data[name]
        y = objective.inference.outputs[name]
        kinds[name] = target_kind(loss, y, integer=integer, rank=rank)
    return kinds


def fail(message: str, *, node: str = "", hint: str = "") -> CompileError:
    return CompileError(message, node=node, stage=STAGE, hint=hint)
