from __future__ import annotations

import numpy as np

from mmpluld.structures import SliceMask


def test_mask_comes_back_where_it_was():
    inside = np.random.default_rng(0).random((11, 7)) > 0.6
    whole = np.zeros((30, 40), bool)
    whole[5:16, 20:27] = inside
    mask = SliceMask.from_array(inside, (20, 5), (30, 40))
    np.testing.assert_array_equal(mask.on_slice((30, 40)), whole)
    assert len(mask.packed) <= 10
    assert mask == SliceMask.from_array(whole, (0, 0), (30, 40))


def test_what_lies_outside_the_slice_is_left_out():
    inside = np.ones((4, 5), bool)
    mask = SliceMask.from_array(inside, (-2, 28), (30, 40))
    assert (mask.origin_xy, mask.shape_yx) == ((0, 28), (2, 3))
    assert mask.array().all()
    assert SliceMask.from_array(inside, (-9, 0), (30, 40)) is None
    assert SliceMask.from_array(~inside, (0, 0), (30, 40)) is None
