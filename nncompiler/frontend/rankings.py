"""Takes predictions and targets of a whole data set, gives scores that are no mean over its rows.

Precision, recall, F1, the area under the ROC curve and R2 of batches do not add up to those of the
set, so they are computed by NumPy, in float64, from the predictions of one pass (training=False).
Definitions are those of scikit-learn: of class 1 where there are two, the mean over classes (the
area: one class against the others) where there are more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Outcome:
    """Predictions and targets, one row per example; `border`: above it a single score means 1."""

    prediction: Array
    target: Array
    border: float

    @property
    def is_wide(self) -> bool:
        """Whether every row has a score for each class."""
        return self.prediction.ndim > 1 and self.prediction.shape[-1] > 1

    @property
    def labels(self) -> tuple[Array, Array]:
        """The classes of predictions and targets, flat."""
        y, t = self.prediction, self.target
        if not self.is_wide:
            high = t > (0.0 if t.min(initial=0) < 0 else 0.5)
            return (y > self.border).reshape(-1).astype(int), high.reshape(-1).astype(int)
        found = t.argmax(-1) if t.ndim == y.ndim else t
        return y.argmax(-1).reshape(-1), found.reshape(-1).astype(int)

    @property
    def scores(self) -> Array:
        """(rows, classes), or (rows,) where a single score tells two classes apart."""
        y = self.prediction.astype(np.float64)
        if not self.is_wide:
            return y.reshape(-1)
        return y.reshape(-1, y.shape[-1])


Ranking = Callable[[Outcome], float]


def precision(o: Outcome) -> float:
    """The share of what was taken for a class that belongs to it; 0 where nothing was."""
    return _over_classes(o, lambda hits, taken, there: _ratio(hits, taken))


def recall(o: Outcome) -> float:
    """The share of a class that was found; 0 where it has no members."""
    return _over_classes(o, lambda hits, taken, there: _ratio(hits, there))


def f1(o: Outcome) -> float:
    """The harmonic mean of precision and recall."""
    return _over_classes(o, lambda hits, taken, there: _ratio(2 * hits, taken + there))


def auc(o: Outcome) -> float:
    """The chance that a member of a class is scored above a non-member; NaN without one of both."""
    _, t = o.labels
    scores = o.scores
    if scores.ndim == 1:
        return _area(scores, t == 1)
    if scores.shape[1] == 2:
        return _area(scores[:, 1] - scores[:, 0], t == 1)
    return float(np.mean([_area(scores[:, c], t == c) for c in range(scores.shape[1])]))


def r2(o: Outcome) -> float:
    """1 - squared error / squared deviation from the mean, averaged over columns."""
    y, t = (a.astype(np.float64).reshape(len(a), -1) for a in (o.prediction, o.target))
    left, spread = np.sum((t - y) ** 2, axis=0), np.sum((t - t.mean(0)) ** 2, axis=0)
    exact = np.where(left == 0.0, 1.0, 0.0)
    return float(
        np.mean(np.where(spread > 0.0, 1.0 - left / np.where(spread > 0, spread, 1), exact))
    )


RANKINGS: Mapping[str, Ranking] = {
    "precision": precision,
    "recall": recall,
    "f1": f1,
    "auc": auc,
    "r2": r2,
}


VALUES = frozenset({"r2"})  # are of targets that are values


def _over_classes(o: Outcome, share: Callable[[int, int, int], float]) -> float:
    """share(hits, taken for the class, members) of class 1, or its mean over classes that occur."""
    y, t = o.labels
    classes = np.union1d(y, t) if o.is_wide and o.prediction.shape[-1] > 2 else [1]
    parts = [
        share(int(np.sum((y == c) & (t == c))), int(np.sum(y == c)), int(np.sum(t == c)))
        for c in classes
    ]
    return float(np.mean(parts))


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _area(scores: Array, members: Array) -> float:
    """Mann and Whitney's statistic; ties count one half."""
    inside, outside = int(members.sum()), int((~members).sum())
    if not inside or not outside:
        return float("nan")
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return float((ranks[members].sum() - inside * (inside + 1) / 2) / (inside * outside))
