from __future__ import annotations

from dataclasses import replace

import pytest

from mmpluld.errors import InputError
from mmpluld.evaluation.functional import DEEPLESION_2D, LENS_3D, get_protocol


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
    with pytest.raises(
        InputError, match="'lens3d' is not one of deeplesion-2d, lens-3d, centre-3d; did you mean 'lens-3d'"
    ):
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
