"""Precision and recall of pairs over delta, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from mmpluld.evaluation.functional.matching import matching_curve


def test_curve_by_hand():
    distances = np.array([0.3, 0.1, 0.2, 0.2, 0.5])
    same = np.array([True, True, False, True, False])
    curve = matching_curve(distances, same)
    # Up to 0.1: 1 of 1; 0.2 (two pairs at once): 2 of 3; 0.3: 3 of 4; 0.5: 3 of 5.
    np.testing.assert_allclose(curve.deltas, [0.15, 0.25, 0.4, 1.0])
    np.testing.assert_allclose(curve.precision, [1, 2 / 3, 3 / 4, 3 / 5])
    np.testing.assert_allclose(curve.recall, [1 / 3, 2 / 3, 1, 1])
    assert (curve.num_pairs, curve.num_same) == (5, 3)
    assert curve.average_precision == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)
    assert curve.best == 2
    assert [curve.at_precision(least) for least in (0.9, 0.75, 0.5)] == [0, 2, 2]
    for point, delta in enumerate(curve.deltas):
        taken = distances < delta
        assert same[taken].mean() == pytest.approx(curve.precision[point])


def test_no_pair_is_one_lesion():
    curve = matching_curve(np.array([0.1, 0.2]), np.array([False, False]))
    assert curve.average_precision == 0 and curve.at_precision(0.5) is None


def test_infinite_distances_are_never_taken():
    curve = matching_curve(np.array([np.inf, 0.2, 0.1, np.inf]), np.array([True, False, True, False]))
    np.testing.assert_allclose(curve.deltas, [0.15, 0.7])
    np.testing.assert_allclose(curve.recall, [0.5, 0.5])
    assert (curve.num_pairs, curve.num_same) == (4, 2)
