"""COCO's run lengths against the library that writes them."""

from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as coco

from mmpluld.structures.run_lengths import run_lengths


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 1.0])
def test_runs_of_random_masks(share):
    mask = np.asfortranarray(np.random.default_rng(3).random((37, 53)) < share, dtype=np.uint8)
    runs = run_lengths(coco.encode(mask)["counts"].decode())
    np.testing.assert_array_equal(np.repeat(np.arange(len(runs)) % 2, runs).reshape(53, 37).T, mask)


@pytest.mark.parametrize(("text", "message"), [("P", "cut off"), ("~", "character"), ("O", "a run of -1")])
def test_text_that_is_none(text, message):
    with pytest.raises(ValueError, match=message):
        run_lengths(text)
