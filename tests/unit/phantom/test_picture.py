from __future__ import annotations

from pathlib import Path

import cv2

from mmpluld.phantom.picture import save_picture


def test_picture_is_small_and_shows_boxes(tmp_path: Path) -> None:
    path = save_picture(tmp_path / "phantom.png", size=64)
    assert path.stat().st_size < 400_000
    image = cv2.imread(str(path)).astype(int)
    assert image.shape[:2] == (560, 960)
    assert (image.max(axis=2) - image.min(axis=2) > 60).sum() > 100, "coloured outlines"
