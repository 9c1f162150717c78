"""Errors of RECIST diameters over the lesions that were found."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mmpluld.errors import InputError
from mmpluld.evaluation.functional import recist_errors, select_found


def test_the_best_scored_box_that_overlaps_stands_for_a_lesion():
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [50, 50, 60, 60], [0, 0, 3, 3]], dtype=float)
    truth = np.array([[0, 0, 10, 10], [50, 50, 60, 70], [80, 80, 90, 90]], dtype=float)
    assert select_found(boxes, np.array([0.2, 0.6, 0.1, 0.9]), truth).tolist() == [1, 2, -1]
    assert select_found(boxes[:0], np.zeros(0), truth).tolist() == [-1, -1, -1]
    assert select_found(boxes, np.ones(4), truth[:0]).shape == (0,)


def test_errors_by_hand():
    errors = recist_errors(
        [[10, 5], [22, 9], [math.nan, math.nan], [7, 7]], [[12, 5], [20, 10], [3, 3], [math.nan] * 2]
    )
    assert errors.count == 2
    assert (errors.long_mm, errors.short_mm) == (2.0, 0.5)
    assert (errors.long_std_mm, errors.short_std_mm) == (0.0, 0.5)


def test_errors_of_nothing():
    errors = recist_errors(np.zeros((0, 2)), np.zeros((0, 2)))
    assert errors.count == 0
    assert math.isnan(errors.long_mm) and math.isnan(errors.short_std_mm)


def test_errors_need_pairs():
    with pytest.raises(InputError, match=r"shapes \(2, 2\) and \(3, 2\)"):
        recist_errors(np.zeros((2, 2)), np.zeros((3, 2)))
