"""What of a slice's boxes is proposed."""

from __future__ import annotations

import numpy as np

from mmpluld.inference.lesions_3d import SliceBoxes
from mmpluld.inference.propose import _sorted


def test_boxes_without_an_area_in_the_files_are_left_out() -> None:
    # 400 and the next number up that a double has and a float32 has not.
    lost, kept = [400.0, 10, 400.00001, 20], [399.9, 10, 400.1, 20]
    found = _sorted(SliceBoxes(boxes=np.array([lost, kept]), scores=np.array([0.9, 0.8])))
    assert found.scores.tolist() == [0.8]
    assert (found.boxes == found.boxes.astype(np.float32)).all()
