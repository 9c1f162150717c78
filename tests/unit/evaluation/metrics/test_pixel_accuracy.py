"""Pixels that are given to their class."""

from __future__ import annotations

import pytest
import torch

from mmpluld.registry import METRICS


def sample(truth, found):
    return {
        name: {"sem_seg": torch.tensor([value])} for name, value in (("gt_sem_seg", truth), ("pred_sem_seg", found))
    }


def test_accuracy_counts_pixels_and_recall_classes_that_occur():
    metric = METRICS.build({"type": "PixelAccuracyMetric", "num_classes": 3})
    metric.process(None, [sample([[0, 0], [0, 1]], [[0, 0], [2, 1]]), sample([[1, 255]], [[0, 0]])])
    assert metric.evaluate(2) == pytest.approx({"pixels/accuracy": 3 / 5, "pixels/recall": (2 / 3 + 1 / 2) / 2})
