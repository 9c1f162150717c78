from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from mmpluld.structures import RECIST, CTVolume, Finding
from mmpluld.visualization import write_overlays


@pytest.fixture(scope="module")
def volume():
    array = np.full((4, 120, 160), -1000, dtype=np.int16)
    array[:, 10:110, 10:150] = 40
    array[:, 50:70, 60:90] = 200
    return CTVolume.from_canonical(array, (5, 1.0, 1.0))


def find(volume, recist=None):
    return Finding.from_canonical(volume, [60, 50, 0, 90, 70, 3], 0.9, 1, [60, 50, 90, 70], recist)


def coloured(picture):
    """Share of pixels that are not grey."""
    values = picture.astype(int)
    return ((values.max(axis=2) - values.min(axis=2)) > 60).mean()


def green(picture):
    blue, green, red = np.moveaxis(picture.astype(int), 2, 0)
    return ((green - red > 60) & (green - blue > 20)).mean()


def test_a_picture_for_each_finding_with_box_and_diameters(volume, tmp_path):
    recist = RECIST(30.0, 20.0, (60, 60, 90, 60, 75, 50, 75, 70))
    measured = write_overlays(tmp_path / "new", volume, [find(volume, recist)])
    air = replace(volume, array=np.where(volume.array == 200, -900, volume.array).astype(np.int16))
    bare = write_overlays(tmp_path / "lung", air, [find(air)])
    assert [path.name for path in (*measured, *bare)] == ["finding-001.png"] * 2
    first, second = (cv2.imread(str(path)) for path in (*measured, *bare))
    assert first.shape == second.shape and min(first.shape[:2]) > 900
    assert coloured(second) > 0.002
    assert green(first) > 0.0005 and green(second) == 0  # the second has no diameters
    middle = np.s_[first.shape[0] // 2 + 60, first.shape[1] // 5, 0]  # soft tissue beside the lesion
    assert second[middle] > 200 > first[middle]


def test_no_finding_no_picture(volume, tmp_path):
    assert write_overlays(tmp_path / "none", volume, []) == []
    assert not (tmp_path / "none").exists()
