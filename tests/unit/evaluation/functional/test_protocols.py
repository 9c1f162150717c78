from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mmpluld.errors import InputError
from mmpluld.evaluation.functional import (
    CENTRE_3D,
    DEEPLESION_2D,
    LENS_3D,
    LUNA16_LEVELS,
    get_protocol,
    match_detections,
    match_marks,
    sensitivity_at,
)


def test_named_protocols() -> None:
    assert get_protocol("deeplesion-2d") is DEEPLESION_2D
    assert get_protocol(LENS_3D) is LENS_3D
    assert (DEEPLESION_2D.overlap, DEEPLESION_2D.threshold, DEEPLESION_2D.headline_index) == (
        "iou",
        0.5,
        [0, 1, 2, 3],
    )
    assert (LENS_3D.overlap, LENS_3D.threshold, LENS_3D.headline_levels[0], LENS_3D.levels[-1]) == (
        "iobb",
        0.3,
        1 / 8,
        8,
    )


def test_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(InputError, match="one of deeplesion-2d, lens-3d, centre-3d; did you mean 'lens-3d'"):
        get_protocol("lens3d")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("dim", 4, "dim is 4; it must be 2 or 3"),
        ("overlap", "dice", "overlap is 'dice'; it must be one of iou"),
        ("threshold", 0.0, r"threshold is 0.0; it must be in \(0, 1\]"),
        ("levels", (1.0, 0.5), "ascending order"),
        ("levels", (), "ascending order"),
        ("levels", (0.5, float("inf")), "ascending order"),
        ("headline_levels", (3.0,), "some of the levels"),
        ("per", "patient", "'image' or 'volume'"),
        ("duplicates", "tp", "'free' or 'fp'"),
        ("min_iogt", 1.5, r"in \[0, 1\]"),
    ],
)
def test_bad_values_are_refused(field: str, value: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(LENS_3D, **{field: value})  # type: ignore[arg-type]


def test_centre_3d_finds_what_the_challenge_finds() -> None:
    """Boxes in anisotropic voxels by this protocol, against their centres in mm by the challenge's rules."""
    rng, spacing = np.random.default_rng(3), np.array([0.7, 0.7, 2.5])
    boxes, marks, nodule_boxes, nodules, scores = [], [], [], [], []
    for _ in range(6):
        centres, radii = rng.uniform(20, 80, (4, 3)), rng.uniform(3, 12, (4, 1))
        points = np.concatenate([centres[:3] + rng.uniform(-6, 6, (3, 3)), rng.uniform(20, 80, (5, 3))])
        half = rng.uniform(1, 9, (len(points), 3)) * rng.integers(0, 2, (len(points), 3))  # also without extent
        nodules.append(np.concatenate([centres, 2 * radii], axis=1))
        nodule_boxes.append(np.concatenate([centres - radii, centres + radii], axis=1) / np.tile(spacing, 2))
        marks.append(points)
        boxes.append(np.concatenate([points - half, points + half], axis=1) / np.tile(spacing, 2))
        scores.append(rng.random(len(points)))
    ours = match_detections(boxes, scores, nodule_boxes, CENTRE_3D)
    theirs = match_marks(marks, scores, nodules, [[]] * 6)
    found = sensitivity_at(ours, CENTRE_3D.levels)
    assert CENTRE_3D.levels == LUNA16_LEVELS
    assert 0.2 < found[-1] < 1
    assert np.array_equal(found, sensitivity_at(theirs, LUNA16_LEVELS))
