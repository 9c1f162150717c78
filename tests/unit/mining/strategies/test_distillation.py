from __future__ import annotations

import pytest

from mmpluld.errors import InputError
from mmpluld.mining.options import MiningOptions
from mmpluld.mining.strategies import distil
from mmpluld.structures import AnnotationSet

A, B = "1_01_01", "2_01_01"
BOX = (10.0, 10.0, 30.0, 30.0)


def test_as_many_boxes_a_slice_as_labelled_ones_have(volume, annotated, lesion, pool):
    # Labelled: slice 11 with two lesions, slice 12 with one: 1.5 a slice. Unlabelled: 2 slices of the first, 4 of the
    # second volume: 9 boxes.
    one, two = volume(A, num_slices=4), volume(B, num_slices=4)
    known = annotated([one, two], [lesion(0, A, 11, BOX), lesion(1, A, 11, (50, 50, 60, 60)), lesion(2, A, 12, BOX)])
    scores = iter([0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5, 0.45, 0.4])
    rows = {A: [(0, BOX, 0.99, "deeplesion", 0), (2, BOX, 0.99, "lits", -1)], B: []}
    for index in range(12):
        name, place = (A, 2 + index % 2) if index < 4 else (B, index % 4)
        rows[name].append((place, (index, 10, index + 20, 30), next(scores), "deeplesion", index))
    mined = distil(known, pool((one, rows[A]), (two, rows[B])), MiningOptions())
    new = mined.lesions[3:]
    assert len(new) == 9
    assert {item.origin for item in new} == {"distilled"}
    assert not any(item.ignore for item in new)
    assert min(item.score for item in new) == pytest.approx(0.55)
    assert {(item.volume, item.box[2]) for item in new} == {(A, 13), (A, 14), (B, 11), (B, 12), (B, 13), (B, 14)}


def test_too_few_boxes_are_all_taken(volume, annotated, lesion, pool):
    series = volume(A)
    mined = distil(
        annotated([series], [lesion(0, A, 11, BOX)]), pool((series, [(4, BOX, 0.01, "deeplesion", 0)])), MiningOptions()
    )
    assert [item.box for item in mined.lesions[1:]] == [(10, 10, 15, 30, 30, 16)]


def test_what_cannot_be_matched_is_refused(volume, annotated, lesion, pool):
    series = volume(A)
    proposals = pool((series, []))
    with pytest.raises(InputError, match="no slice has a lesion"):
        distil(annotated([series], []), proposals, MiningOptions())
    other = AnnotationSet({"name": "nih-ln", "label_scope": "x"}, [series], [lesion(0, A, 11, BOX)])
    with pytest.raises(InputError, match=r"none of which is the annotated nih-ln; propose with a detector of that"):
        distil(other, proposals, MiningOptions())


def test_what_a_person_left_open_stays_so(volume, annotated, lesion, pool):
    series = volume(A)
    known = annotated([series], [lesion(0, A, 11, BOX), lesion(1, A, 15, (12, 10, 30, 30), ignore=True)])
    rows = [(4, BOX, 0.9, "deeplesion", 0), (4, (50, 10, 60, 20), 0.8, "deeplesion", 1)]
    assert [item.box[0] for item in distil(known, pool((series, rows)), MiningOptions()).lesions[2:]] == [50]
