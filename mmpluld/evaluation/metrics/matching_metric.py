"""How well embeddings tell which marks of a patient are of one lesion, as an MMEngine metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric

from mmpluld.errors import InputError
from mmpluld.evaluation.functional.matching import matching_curve
from mmpluld.registry import METRICS
from mmpluld.structures import to_array

__all__ = ["MatchingMetric"]


@METRICS.register_module()
class MatchingMetric(BaseMetric):
    """Precision and recall of pairs of marks in two volumes of a patient that lie nearer than delta.

    Data samples need ``gt_instances`` with ``identities`` and ``on_key_slice``
    (:class:`~mmpluld.datasets.transforms.PackLesionPatches`), ``pred_instances.embeddings`` and the names ``patient``
    and ``volume_id``. A mark counts on its own key slice alone, not on those of others that it crosses; marks whose
    lesion has no number are left out. Returned are the ``average_precision``, ``f1``, ``precision``, ``recall`` and
    ``delta`` of the best F-score, and the number of ``pairs`` and of those that are one lesion (``same``).

    Args:
        collect_device: ``cpu`` or ``gpu``, for distributed tests.
        prefix: Replaces ``matching`` in the names of the results.
        collect_dir: Shared folder for ``collect_device='cpu'``.
    """

    default_prefix = "matching"

    def __init__(self, collect_device: str = "cpu", prefix: str | None = None, collect_dir: str | None = None) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)

    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any]]) -> None:
        """Keep the marks of a batch."""
        for sample in data_samples:
            lesions, names = sample["gt_instances"], (sample["patient"], sample["volume_id"])
            numbers, own = to_array(lesions["identities"]), to_array(lesions["on_key_slice"]) > 0
            vectors = to_array(sample["pred_instances"]["embeddings"])
            marks = zip(numbers.astype(int).tolist(), own.tolist(), vectors, strict=True)
            # One entry a sample, with or without marks: MMEngine keeps as many entries as there are samples.
            self.results.append([(*names, number, vector) for number, here, vector in marks if here and number >= 0])

    def compute_metrics(self, results: list[list[tuple[str, str, int, Any]]]) -> dict[str, float]:
        """Evaluate all pairs; see the class."""
        marks = [mark for sample in results for mark in sample]
        patients, volumes, numbers = (np.array([mark[place] for mark in marks]) for place in range(3))
        first, second = np.triu_indices(len(marks), 1)
        paired = (patients[first] == patients[second]) & (volumes[first] != volumes[second])
        first, second = first[paired], second[paired]
        same = numbers[first] == numbers[second]
        if not same.any():
            raise InputError(
                "MatchingMetric: no lesion of the test data is marked in two volumes; give an annotation file whose "
                "lesions have numbers: one that `mmpluld convert deeplesion --lesion-pairs` wrote, or a phantom's "
                "truth/val.json"
            )
        vectors = np.stack([mark[3] for mark in marks]).astype(np.float64)
        curve = matching_curve(np.linalg.norm(vectors[first] - vectors[second], axis=1), same)
        point = curve.best
        precision, recall = float(curve.precision[point]), float(curve.recall[point])
        return {
            "average_precision": curve.average_precision,
            "f1": 2 * precision * recall / (precision + recall),
            "precision": precision,
            "recall": recall,
            "delta": float(curve.deltas[point]),
            "pairs": curve.num_pairs,
            "same": curve.num_same,
        }
