"""Takes a workload, gives it in scikit-learn where MLPClassifier.partial_fit is the same work.

Left out: its Adam (epsilon beside the uncorrected root), its regressor (no activation of the
output), its predict_proba (softmax included).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle
from typing import Any

import numpy as np
from sklearn.neural_network import MLPClassifier

from tests.bench.workloads import Workload, batches, weights

NAME = "sklearn"


def build(w: Workload) -> dict[str, Callable[[], Any]]:
    if w.mode not in ("step", "epoch") or w.loss != "ce" or w.optimizer == "adam" or w.output:
        return {}
    model = classifier(w)
    turns = cycle(batches(w))  # an epoch's are cut into w.batch rows by partial_fit itself

    def call() -> float:
        model.partial_fit(*next(turns))
        return float(model.loss_)

    return {"": call}


def classifier(w: Workload) -> MLPClassifier:
    model = MLPClassifier(
        hidden_layer_sizes=w.sizes[1:-1],
        activation=w.activation,
        solver="sgd",
        alpha=0.0,
        batch_size=w.batch,
        learning_rate_init=w.lr,
        momentum=0.9 if w.optimizer == "momentum" else 0.0,
        nesterovs_momentum=False,
        shuffle=False,
    )
    # the first call allocates everything; then the given weights go in and momentum starts at 0
    zeros = np.zeros((w.batch, w.sizes[0]), np.float32)
    model.partial_fit(zeros, np.zeros(w.batch, np.int64), classes=np.arange(w.sizes[-1]))
    for i, (matrix, bias) in enumerate(weights(w)):
        model.coefs_[i][...] = matrix
        model.intercepts_[i][...] = bias
    for velocity in model._optimizer.velocities:
        velocity[...] = 0
    return model
