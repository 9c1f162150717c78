"""How well scores part two groups."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["roc_auc"]


def roc_auc(scores: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Area under the ROC curve: how often a positive scores more than a negative, ties counted half.

    Args:
        scores: (N,).
        labels: (N,) true for positives.

    Returns:
        In [0, 1]; NaN where a group is empty.
    """
    from scipy.stats import rankdata  # slow to import, and only trainings of the false-positive reduction come here

    positive = np.asarray(labels, dtype=bool)
    count, others = int(positive.sum()), int((~positive).sum())
    if not (count and others):
        return float("nan")
    above = rankdata(np.asarray(scores, dtype=np.float64))[positive].sum() - count * (count + 1) / 2
    return float(above / (count * others))
