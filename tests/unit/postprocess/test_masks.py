"""Masks over boxes to pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmpluld.postprocess import paste_mask


def test_mask_of_the_box_size_is_copied():
    probs = np.arange(6, dtype=float).reshape(2, 3) / 6
    pasted, origin = paste_mask(probs, (4, 7, 7, 9))
    assert origin == (3, 6)
    assert pasted.shape == (4, 5)
    np.testing.assert_allclose(pasted[1:-1, 1:-1], probs)
    assert not pasted[0].any() and not pasted[:, -1].any()


def test_twice_the_size_by_hand():
    pasted, origin = paste_mask([[0.0, 1.0]], (0, 0, 4, 1))
    assert origin == (-1, -1)
    # Pixel centres at cells -0.25, 0.25, 0.75, 1.25; beyond the last cell the mask fades.
    np.testing.assert_allclose(pasted[1, 1:5], [0, 0.25, 0.75, 0.75])


@settings(max_examples=60)
@given(*[st.integers(-20, 80).map(lambda n: n / 4)] * 2, *[st.integers(2, 100).map(lambda n: n / 4)] * 2)
def test_shifting_the_box_by_pixels_shifts_the_mask(x, y, width, height):
    probs = np.random.default_rng(0).random((7, 5))
    box = np.array([x, y, x + width, y + height])
    pasted, (left, top) = paste_mask(probs, box)
    moved, origin = paste_mask(probs, box + [16, 32, 16, 32])
    assert origin == (left + 16, top + 32)
    np.testing.assert_allclose(moved, pasted, atol=1e-9)
    assert 0 <= pasted.min() <= pasted.max() <= 1
    assert left + pasted.shape[1] >= box[2] and top + pasted.shape[0] >= box[3]


def test_one_cell_fills_its_box():
    pasted, _ = paste_mask(np.ones((28, 28)), (10.0, 10.0, 20.0, 16.0))
    assert (pasted >= 0.5).sum() == 60
    assert pasted.max() == pytest.approx(1.0)
