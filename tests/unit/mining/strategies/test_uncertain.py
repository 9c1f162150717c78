from __future__ import annotations

import pytest

from mmpluld.errors import InputError
from mmpluld.mining.options import MiningOptions
from mmpluld.mining.strategies import cross_dataset, unlabeled_slices

A = "1_01_01"
BOX, FAR = (10.0, 10.0, 30.0, 30.0), (60.0, 60.0, 80.0, 80.0)


@pytest.fixture
def series(volume):
    return volume(A)


def found(annotations):
    """Slice, x1, expert of the uncertain boxes."""
    return [
        (int(item.box[2]), item.box[0], item.attributes["expert"])
        for item in annotations.lesions
        if item.ignore and item.origin == "mined"
    ]


def test_single_type_boxes_that_no_lesion_explains(series, annotated, lesion, pool):
    known = annotated([series], [lesion(3, A, 13, BOX)])
    rows = [
        (2, FAR, 0.51, "lits", -1),
        (2, (120, 60, 130, 80), 0.5, "lits", -1),  # not more than sigma
        (2, (30, 10, 40, 30), 0.9, "luna16", -1),  # touches the annotation
        (2, (29, 10, 40, 30), 0.8, "lits", -1),  # overlaps it by 20 / 600
        (2, (150, 10, 160, 20), 0.9, "deeplesion", 0),  # the universal expert's
        (3, FAR, 0.9, "lits", -1),  # slice 14 has no lesion
    ]
    mined = cross_dataset(known, pool((series, rows)), MiningOptions())
    assert found(mined) == [(13, 30, "luna16"), (13, 60, "lits")]
    assert mined.lesions[0] == known.lesions[0]
    first = mined.lesions[2]
    assert (first.id, first.box, first.score, first.key_slice) == (
        5,
        (60, 60, 13, 80, 80, 14),
        pytest.approx(0.51),
        None,
    )
    lenient = cross_dataset(known, pool((series, rows)), MiningOptions(uncertain_iou=0.3, sigma=0.4))
    # The box at 29 overlaps the better one at 30 by 10 / 11: it is the same.
    assert found(lenient) == [(13, 30, "luna16"), (13, 60, "lits"), (13, 120, "lits")]
    assert found(cross_dataset(known, pool((series, rows)), MiningOptions(single_types=("luna16",)))) == [
        (13, 30, "luna16")
    ]


def test_slices_without_a_lesion(series, annotated, lesion, pool):
    known = annotated([series], [lesion(0, A, 13, BOX)])
    rows = [(2, FAR, 0.9, "lits", -1), (3, FAR, 0.9, "lits", -1), (9, BOX, 0.9, "luna16", -1)]
    assert found(unlabeled_slices(known, pool((series, rows)), MiningOptions())) == [
        (14, 60, "lits"),
        (20, 10, "luna16"),
    ]


@pytest.mark.parametrize(
    ("interval", "slices"),
    [
        (1.0, [11, 12, 13, 14, 15, 16]),  # grid 0, 0, 1, 1, 2, 2: two slices between positions take the lower
        (5.0, [11, 12, 13]),  # at 0, 5 and 10 mm: grid 0, 2 and 5
    ],
)
def test_boxes_lie_on_the_slices_of_the_scan(volume, annotated, pool, interval, slices):
    series = volume(A, interval=interval, num_slices=len(slices))
    # Each box says on which grid slice it is.
    rows = [(place, (10 + place, 10, 30 + place, 30), 0.9, "lits", -1) for place in range(6 if interval > 2 else 3)]
    mined = unlabeled_slices(annotated([series], []), pool((series, rows)), MiningOptions())
    places = [0, 0, 1, 1, 2, 2] if interval < 2 else [0, 2, 5]
    assert found(mined) == [(number, 10 + place, "lits") for number, place in zip(slices, places, strict=True)]


def test_boxes_of_two_experts_are_one(series, annotated, pool):
    rows = [(0, BOX, 0.8, "lits", -1), (0, (10, 10, 30, 31), 0.9, "luna16", -1), (0, (10, 25, 30, 45), 0.7, "lits", -1)]
    mined = unlabeled_slices(annotated([series], []), pool((series, rows)), MiningOptions())
    assert found(mined) == [(11, 10, "luna16"), (11, 10, "lits")]
    assert [item.score for item in mined.lesions] == pytest.approx([0.9, 0.7])


def test_again_nothing_doubles_and_what_became_a_lesion_goes(series, annotated, lesion, pool):
    rows = [(0, BOX, 0.8, "lits", -1), (1, FAR, 0.8, "lits", -1)]
    once = unlabeled_slices(annotated([series], []), pool((series, rows)), MiningOptions())
    assert unlabeled_slices(once, pool((series, rows)), MiningOptions()).lesions == once.lesions
    once.lesions.append(lesion(9, A, 11, (12, 10, 30, 30), origin="matched"))
    assert found(cross_dataset(once, pool((series, rows)), MiningOptions())) == [(12, 60, "lits")]


def test_no_single_type_expert(series, annotated, pool):
    known = annotated([series], [])
    known.dataset["name"] = "other"
    proposals = pool((series, []))
    with pytest.raises(InputError, match=r"annotations are of other, .* experts deeplesion, .*say with --single-types"):
        cross_dataset(known, proposals, MiningOptions())
    assert cross_dataset(known, proposals, MiningOptions(single_types=("lits",))).lesions == []
    proposals.experts = ("other",)
    with pytest.raises(InputError, match=r"of the expert of other alone; .*propose with a detector"):
        cross_dataset(known, proposals, MiningOptions())
