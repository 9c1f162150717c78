"""How well candidates are told apart, as an MMEngine metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric

from mmpluld.evaluation.functional import roc_auc
from mmpluld.registry import METRICS

__all__ = ["CandidateMetric"]


@METRICS.register_module()
class CandidateMetric(BaseMetric):
    """Lesions against false positives, for ``PatchClassifier``.

    Data samples need ``score`` in [0, 1] and ``label``, 1 for a lesion and 0 for a false positive. Returned are
    ``fpr/auc``, the area under the ROC curve, and ``fpr/accuracy``, the mean of the shares of lesions scored 0.5 or
    more and of false positives scored less. They are NaN where there are candidates of one kind only.

    Args:
        collect_device: ``cpu`` or ``gpu``, for distributed tests.
        prefix: Replaces ``fpr`` in the names of the results.
        collect_dir: Shared folder for ``collect_device='cpu'``.
    """

    default_prefix = "fpr"

    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any]]) -> None:
        """Keep scores and labels of a batch."""
        self.results += [(float(sample["score"]), int(sample["label"])) for sample in data_samples]

    def compute_metrics(self, results: list[tuple[float, int]]) -> dict[str, float]:
        """See the class."""
        scores, labels = np.array(results, dtype=np.float64).reshape(-1, 2).T
        positive = labels == 1
        if positive.all() or not positive.any():
            return {"auc": float("nan"), "accuracy": float("nan")}
        right = (scores >= 0.5) == positive
        accuracy = (right[positive].mean() + right[~positive].mean()) / 2
        return {"auc": roc_auc(scores, positive), "accuracy": float(accuracy)}
