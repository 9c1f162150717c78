"""The map of the key slice on its way to the network."""

from __future__ import annotations

import numpy as np
import pytest

from mmpluld.errors import InputError
from mmpluld.io.array_store import write_array
from mmpluld.registry import TRANSFORMS


@pytest.fixture
def sample(tmp_path):
    rng = np.random.default_rng(0)
    for folder in ("volumes", "organs"):
        (tmp_path / folder).mkdir()
        write_array(tmp_path / folder / "a.npy", rng.integers(0, 18, (4, 12, 10)).astype(np.int16))
    source = {"kind": "npy", "path": str(tmp_path / "volumes" / "a.npy")}
    return {"source": source, "first_slice": 3, "key_slice": 5, "spacing_mm": (2.0, 1.0, 1.0)}


def test_map_of_the_key_slice_is_cropped_and_flipped_with_the_image(sample, tmp_path):
    organs = np.load(tmp_path / "organs" / "a.npy")[2]
    sample = TRANSFORMS.build({"type": "LoadOrgans"})(sample)
    assert sample["gt_seg_map"].dtype == np.uint8
    np.testing.assert_array_equal(sample["gt_seg_map"], organs)
    sample |= {"img": organs[..., None].astype(np.float32), "img_shape": organs.shape}
    np.random.seed(0)  # noqa: NPY002 as mmdet draws
    for step in (
        {"type": "RandomCrop", "crop_size": (6, 6), "allow_negative_crop": True},
        {"type": "RandomFlip", "prob": 1.0},
    ):
        sample = TRANSFORMS.build(step)(sample)
    assert sample["gt_seg_map"].shape == (6, 6)
    np.testing.assert_array_equal(sample["gt_seg_map"], sample["img"][..., 0])


def test_missing_map_is_named(sample, tmp_path):
    (tmp_path / "organs" / "a.npy").unlink()
    with pytest.raises(InputError, match=r"organs/a.npy: no such organ map of .*volumes/a.npy; make the data with"):
        TRANSFORMS.build({"type": "LoadOrgans"})(sample)
