"""Takes what a network is to be trained for in the user's words, gives its checked Objective."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, cast

from nncompiler.errors import CompileError
from nncompiler.frontend.losses import Loss, make_loss
from nncompiler.frontend.metrics import Metric, make_metric
from nncompiler.frontend.names import suggest
from nncompiler.frontend.objective import Objective, fail
from nncompiler.frontend.optimizers import make_optimizer
from nncompiler.frontend.rankings import RANKINGS, Ranking
from nncompiler.frontend.regularizers import make_regularizer
from nncompiler.frontend.schedules import check_number
from nncompiler.frontend.site import Network


def make_objective(
    network: Network,
    *,
    loss: object = None,
    optimizer: object = None,
    regularizer: object = None,
    metrics: object = (),
    kinds: str | Mapping[str, str] | None = None,
    weighted: bool = False,
    loss_weights: Mapping[str, float] | None = None,
    trained: Sequence[str] = ("*",),
    prefix: str = "",
) -> Objective:
    """The objective of a network; `loss` may be a dict by output, `kinds` and `loss_weights` too.

    Raises CompileError for what is unknown, and for an optimizer of a network without parameters.
    """
    outputs = tuple(network.build(False).outputs)
    try:
        losses = _losses(loss, network)
        chosen = _metrics(metrics, losses)
        weights = _loss_weights(loss_weights, losses)
        made = make_optimizer(optimizer)
        penalty = make_regularizer(regularizer)
    except CompileError:
        raise
    except (ValueError, TypeError) as error:
        raise fail(str(error)) from error
    for pattern in trained:
        if pattern != "*" and not any(fnmatchcase(name, pattern) for name in network.parameters):
            hint = suggest(pattern, network.parameters)
            raise fail(f"no parameter of the objective's outputs fits '{pattern}'", hint=hint)
    if made is not None and not any(p.trainable for p in network.parameters.values()):
        frozen = next(iter(network.parameters), None)
        raise fail(
            f"output '{outputs[0]}' has no trainable parameters: there is nothing to optimize",
            node=outputs[0],
            hint=f"'{frozen}' is frozen" if frozen else "leave out the optimizer",
        )
    by_output = dict.fromkeys(losses, kinds) if isinstance(kinds, str) else dict(kinds or {})
    rankings = {
        output: {name: RANKINGS[name] for name in some if name in RANKINGS}
        for output, some in chosen.items()
    }
    inside = {
        output: {name: cast(Metric, m) for name, m in some.items() if name not in RANKINGS}
        for output, some in chosen.items()
    }
    return Objective(
        network,
        losses,
        made,
        penalty,
        inside,
        by_output,
        weighted,
        rankings,
        weights,
        tuple(trained),
        prefix,
    )


def _metrics(given: object, losses: Mapping[str, Loss]) -> dict[str, dict[str, Metric | Ranking]]:
    """By output, the same of all where they are not given so; by name."""
    if isinstance(given, Mapping):
        chosen = by_name(given)
        for output in chosen:
            if output not in losses:
                raise fail(
                    f"metrics of '{output}', an output without a loss", hint=suggest(output, losses)
                )
        return {output: dict(map(make_metric, _listed(some))) for output, some in chosen.items()}
    found = dict(map(make_metric, _listed(given)))
    return dict.fromkeys(losses, found)


def by_name(given: Mapping[Any, Any]) -> dict[str, Any]:
    """Values by the names of nodes, which need not be strings."""
    return {str(node): value for node, value in given.items()}


def _listed(metrics: object) -> Sequence[object]:
    return metrics if isinstance(metrics, (list, tuple)) else [metrics]


def _loss_weights(
    given: Mapping[str, float] | None, losses: Mapping[str, Loss]
) -> dict[str, float]:
    chosen = by_name(given or {})
    for name, weight in chosen.items():
        if name not in losses:
            raise fail(
                f"loss_weights of '{name}', an output without a loss", hint=suggest(name, losses)
            )
        check_number(f"loss_weights['{name}']", weight)
    return {name: float(weight) for name, weight in chosen.items()}


def _losses(loss: object, network: Network) -> dict[str, Loss]:
    outputs = network.build(False).outputs
    if loss is None:
        return {}
    chosen = by_name(loss) if isinstance(loss, Mapping) else dict.fromkeys(outputs, loss)
    for name in chosen:
        if name not in outputs:
            raise fail(f"the loss of '{name}', which is not an output", hint=suggest(name, outputs))
    for name in chosen:
        if not outputs[name].dtype.is_float:
            raise fail(
                f"the output '{name}' is {outputs[name].type}: a loss needs real values", node=name
            )
    return {name: make_loss(value) for name, value in chosen.items() if value is not None}
