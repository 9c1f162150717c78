"""Small phantoms in the layouts of the real datasets; a test that changes one takes a copy."""

from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as coco

from mmpluld.phantom import write_lits_layout, write_luna16_layout, write_nih_ln_layout

SMALL = {"size": 64, "max_slices": 10, "lesions_per_series": 14.0, "intervals_mm": (5.0,)}


@pytest.fixture(scope="session")
def luna16(tmp_path_factory):
    return write_luna16_layout(tmp_path_factory.mktemp("raw") / "luna16", 3, seed=3, **SMALL)


@pytest.fixture(scope="session")
def lits(tmp_path_factory):
    return write_lits_layout(tmp_path_factory.mktemp("raw") / "lits", 4, seed=7, **SMALL)


@pytest.fixture(scope="session")
def nih_ln(tmp_path_factory):
    return write_nih_ln_layout(tmp_path_factory.mktemp("raw") / "nih-ln", 3, seed=3, **SMALL)


@pytest.fixture(scope="session")
def decode_mask():
    """``decode_mask(encoded)``: the mask (H, W) of an annotation file's run lengths, by COCO's own code."""
    return lambda encoded: coco.decode(encoded).astype(np.bool_)
