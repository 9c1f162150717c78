"""MatchingMetric: which marks are paired, through what MMEngine does with the results of a test."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mmpluld.errors import InputError
from mmpluld.evaluation.metrics import MatchingMetric

ANGLES = {1: 0.0, 2: 90.0, 3: 180.0, -1: 45.0}


def _sample(volume, *marks, patient="p"):
    """A key slice with marks: (number, whether it is on its own key slice, degrees off the lesion's vector)."""
    angles = [np.deg2rad(ANGLES[number] + turn) for number, _, turn in marks]
    vectors = torch.tensor([[np.cos(angle), np.sin(angle)] for angle in angles], dtype=torch.float32).reshape(-1, 2)
    return {
        "patient": patient,
        "volume_id": volume,
        "gt_instances": {
            "identities": torch.tensor([number for number, _, _ in marks], dtype=torch.long),
            "on_key_slice": torch.tensor([own for _, own, _ in marks], dtype=torch.bool),
        },
        "pred_instances": {"embeddings": vectors},
    }


def _evaluate(*samples, size=None):
    metric = MatchingMetric()
    for sample in samples:
        metric.process({}, [sample])
    return {key.removeprefix("matching/"): value for key, value in metric.evaluate(size or len(samples)).items()}


def test_every_mark_of_every_sample_counts():
    # Three marks on each of two slices: more marks than samples, and the pairs that are wrong are those of the last.
    first, second = (_sample(name, *((number, True, 0) for number in (1, 2, 3))) for name in "ab")
    found = _evaluate(first, second)
    assert (found["pairs"], found["same"]) == (9, 3)
    assert (found["average_precision"], found["precision"], found["recall"]) == (1, 1, 1)
    found = _evaluate(first, _sample("b", (1, True, 0), (2, True, 0), (3, True, 90)))
    assert found["pairs"] == 9 and found["average_precision"] < 1


def test_a_mark_counts_once_on_its_own_key_slice():
    # Lesion 1 of volume a crosses the key slice of lesion 2, where its vector is another.
    slices = [_sample("a", (1, True, 0)), _sample("a", (1, False, 120), (2, True, 0)), _sample("b", (1, True, 0))]
    found = _evaluate(*slices, _sample("b", (2, True, 0)))
    assert (found["pairs"], found["same"], found["average_precision"]) == (4, 2, 1)


def test_what_is_left_out():
    samples = [_sample("a", (1, True, 0), (-1, True, 0)), _sample("b", (1, True, 0)), _sample("b", (-1, True, 0))]
    assert _evaluate(*samples, _sample("d", (1, True, 0), patient="q"))["pairs"] == 1
    # Processes pad their shares with samples from the beginning; the surplus is at the end.
    padded = [*samples, _sample("a", (1, True, 0))]
    assert _evaluate(*padded, size=len(samples))["pairs"] == 1


def test_no_pairs():
    for samples in ([_sample("a")], [_sample("a", (1, True, 0)), _sample("b", (2, True, 0))]):
        with pytest.raises(InputError, match="no lesion of the test data is marked in two volumes"):
            _evaluate(*samples)
