"""How many pixels are given to the right class, as an MMEngine metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric

from mmpluld.registry import METRICS
from mmpluld.structures import to_array
from mmpluld.typing import IntArray

__all__ = ["PixelAccuracyMetric"]


@METRICS.register_module()
class PixelAccuracyMetric(BaseMetric):
    """Share of the pixels that are given to their class.

    Data samples need ``gt_sem_seg`` and ``pred_sem_seg``, each with ``sem_seg`` (1, H, W), class numbers. Returned are
    ``pixels/accuracy`` over all pixels and ``pixels/recall``, the mean over the classes that occur.

    Args:
        num_classes: Classes; pixels with another number are left out.
        collect_device: ``cpu`` or ``gpu``, for distributed tests.
        prefix: Replaces ``pixels`` in the names of the results.
        collect_dir: Shared folder for ``collect_device='cpu'``.
    """

    default_prefix = "pixels"

    def __init__(
        self,
        num_classes: int,
        collect_device: str = "cpu",
        prefix: str | None = None,
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)
        self.num_classes = num_classes

    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any]]) -> None:
        """Count the pixels of a batch by true and predicted class."""
        for sample in data_samples:
            maps = (sample[name]["sem_seg"] for name in ("gt_sem_seg", "pred_sem_seg"))
            truth, found = (to_array(item).ravel().astype(np.int64) for item in maps)
            known = truth < self.num_classes
            pairs = truth[known] * self.num_classes + found[known]
            self.results.append(np.bincount(pairs, minlength=self.num_classes**2))

    def compute_metrics(self, results: list[IntArray]) -> dict[str, float]:
        """Average over all pixels; see the class."""
        counts = np.sum(results, axis=0).reshape(self.num_classes, self.num_classes)
        right, number = counts.diagonal(), counts.sum(axis=1)
        return {
            "accuracy": float(right.sum() / max(number.sum(), 1)),
            "recall": float(np.mean(right[number > 0] / number[number > 0])),
        }
