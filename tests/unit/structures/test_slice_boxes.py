from __future__ import annotations

import pytest

from mmpluld.errors import InputError
from mmpluld.structures import (
    AnnotationSet,
    LesionRecord,
    VolumeRecord,
    boxes_between,
    boxes_by_slice,
    key_box,
    origins_by_slice,
)

SERIES = VolumeRecord("a", "p", "1", "1", {"kind": "png16", "path": "a"}, 1, 9, (64, 64), (2.0, 1.0, 1.0))


def lesion(**attributes) -> LesionRecord:
    return LesionRecord(0, "a", (1, 2, 3, 5, 6, 5), attributes=attributes)


def test_boxes_and_origins():
    assert boxes_by_slice(lesion()) == {3: (1, 2, 5, 6), 4: (1, 2, 5, 6)}
    assert origins_by_slice(lesion()) == {3: "annotated", 4: "annotated"}
    own = lesion(slice_boxes=[[4, 1, 2, 5, 6], [3, 2, 2, 5, 5]], slice_origins=["annotated", "propagated"])
    assert boxes_by_slice(own) == {4: (1, 2, 5, 6), 3: (2, 2, 5, 5)}
    assert boxes_by_slice(own, own=False) == {3: (1, 2, 5, 6), 4: (1, 2, 5, 6)}
    assert origins_by_slice(own) == {4: "annotated", 3: "propagated"}


def test_boxes_between_marks_are_interpolated():
    assert boxes_between({3: (0, 0, 4, 4)}) == boxes_between({3: (0, 0, 4, 4), 4: (0, 0, 4, 4)}) == {}
    marks = {7: (3.0, 1.0, 9.0, 4.0), 4: (0.0, 1.0, 3.0, 10.0), 9: (3.0, 1.0, 9.0, 4.0)}
    assert boxes_between(marks) == {5: (1, 1, 5, 8), 6: (2, 1, 7, 6), 8: (3, 1, 9, 4)}


ROWS = [[6, 1, 1, 2, 2], [7, 2, 2, 3, 3], [8, 3, 3, 4, 4], [9, 4, 4, 5, 5]]


@pytest.mark.parametrize(
    ("key_slice", "origins", "place"),
    [
        (8, None, (8, (3, 3, 4, 4))),
        (None, None, (7, (2, 2, 3, 3))),
        (None, ["propagated", "propagated", "propagated", "annotated"], (9, (4, 4, 5, 5))),
        (8, ["matched"] * 4, (8, (3, 3, 4, 4))),
        (None, ["mined"] * 4, (7, (2, 2, 3, 3))),
    ],
)
def test_which_box_stands_for_a_lesion(key_slice, origins, place):
    attributes = {"slice_boxes": ROWS} | ({"slice_origins": origins} if origins else {})
    assert key_box(LesionRecord(1, "a", (1, 1, 6, 5, 5, 10), key_slice=key_slice, attributes=attributes)) == place


@pytest.mark.parametrize(
    ("z1", "z2", "slices"), [(3.4, 5.4, [3, 4]), (3.6, 5.6, [4, 5]), (3.5, 5.5, [3, 4]), (3.6, 4.4, [4]), (3, 3, [])]
)
def test_a_box_is_on_the_slices_whose_centres_it_holds(z1, z2, slices):
    assert list(boxes_by_slice(LesionRecord(0, "a", (1, 2, z1, 5, 6, z2)))) == slices


def test_no_box_stands_for_a_lesion_on_no_slice():
    for record in (lesion(slice_boxes=[]), LesionRecord(0, "a", (1, 2, 3, 5, 6, 3))):
        with pytest.raises(InputError, match=r"lesion 0 of volume a is on no slice: .* mend or remove it"):
            key_box(record)


@pytest.mark.parametrize(
    ("origins", "message"),
    [
        (["annotated"], r"1 slice_origins for 2 slice_boxes; give one for each"),
        (["annotated", "guessed"], r"slice_origins.*must be one of .*found .guessed."),
    ],
)
def test_faulty_origins_are_refused(tmp_path, origins, message):
    faulty = lesion(slice_boxes=[[3, 1, 2, 5, 6], [4, 1, 2, 5, 6]], slice_origins=origins)
    with pytest.raises(InputError, match=message):
        AnnotationSet({"name": "x", "label_scope": "y"}, [SERIES], [faulty]).save(tmp_path / "a.json")
