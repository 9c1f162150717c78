from __future__ import annotations

from dataclasses import replace

import pytest

from mmpluld.errors import InputError
from mmpluld.mining.options import MiningOptions
from mmpluld.mining.strategies import adjacent_slices, propagate_across_slices
from mmpluld.structures import boxes_by_slice, origins_by_slice

A = "1_01_01"
ANNOTATED = (10.0, 10.0, 30.0, 30.0)


def tracklet(number, first, *boxes, expert="deeplesion", score=0.8):
    return [(first + step, box, score, expert, number) for step, box in enumerate(boxes)]


@pytest.fixture
def series(volume):
    return volume(A)  # slices 11 to 20, 2 mm apart, as the grid


def test_boxes_of_the_tracklet_join_the_lesion(series, annotated, lesion, pool):
    # On slice 13 (grid 2) the box overlaps the annotation by 400 / (400 + 480 - 400) = 0.83.
    boxes = [(10, 10, 30, 33), (10, 10, 30, 34), (11, 10, 30, 35)]
    known = annotated([series], [lesion(7, A, 13, ANNOTATED, score=None)])
    mined = propagate_across_slices(known, pool((series, tracklet(0, 1, *boxes))), MiningOptions())
    (found,) = mined.lesions
    assert found.attributes["slice_boxes"] == [[12, 10, 10, 30, 33], [13, *ANNOTATED], [14, 11, 10, 30, 35]]
    assert found.attributes["slice_origins"] == ["propagated", "annotated", "propagated"]
    assert found.box == (10, 10, 12, 30, 35, 15)
    assert (found.id, found.key_slice, found.origin, found.type) == (7, 13, "annotated", "liver")
    assert known.lesions[0].attributes == {}  # what is given is not changed


@pytest.mark.parametrize(
    ("edge", "passes"),
    [
        (50.0, False),  # 400 / 800: not more than half
        (49.9, True),
    ],
)
def test_key_slice_test(series, annotated, lesion, pool, edge, passes):
    rows = tracklet(0, 2, (10, 10, edge, 30), (10, 10, 30, 30))
    mined = propagate_across_slices(
        annotated([series], [lesion(0, A, 13, ANNOTATED)]), pool((series, rows)), MiningOptions()
    )
    assert set(boxes_by_slice(mined.lesions[0])) == ({13, 14} if passes else {13})


def test_a_lesion_is_no_deeper_than_told(series, annotated, lesion, pool):
    # The annotation is 20 mm wide; slices are 2 mm apart. 0.2 reaches 4 mm, two slices to either side of slice 13.
    known = annotated([series], [lesion(0, A, 13, ANNOTATED)])
    found = pool((series, tracklet(0, 0, *[ANNOTATED] * 9)))
    for depth, slices in ((None, range(11, 20)), (0.2, range(11, 16)), (0.19, range(12, 15)), (0.05, [13])):
        mined = propagate_across_slices(known, found, MiningOptions(depth=depth))
        assert list(boxes_by_slice(mined.lesions[0])) == list(slices)
    with pytest.raises(InputError, match="depth is 0; allowed is a number above 0, or none"):
        MiningOptions(depth=0)


def test_a_depth_needs_the_size_of_the_voxels(series, annotated, lesion, pool):
    unknown = replace(series, spacing_mm=(2.0, float("nan"), float("nan")))
    known = annotated([unknown], [lesion(0, A, 13, ANNOTATED)])
    found = pool((series, tracklet(0, 0, *[ANNOTATED] * 9)))
    assert len(boxes_by_slice(propagate_across_slices(known, found, MiningOptions()).lesions[0])) == 9
    with pytest.raises(InputError, match=r"voxels of 2 x nan x nan mm: .*without a depth"):
        propagate_across_slices(known, found, MiningOptions(depth=0.2))


def test_a_lesion_s_boxes_lie_over_its_annotated_one(series, annotated, lesion, pool):
    # 20 mm wide; shifted by 4, 8 and 12 pixels the boxes share 16, 12 and 8 of 24, 28 and 32 columns.
    known = annotated([series], [lesion(0, A, 13, ANNOTATED)])
    x1, y1, x2, y2 = ANNOTATED
    found = pool((series, tracklet(0, 2, *[(x1 + shift, y1, x2 + shift, y2) for shift in (0, 4, 8, 12, 16)])))
    for iou, slices in ((None, range(13, 18)), (0.24, range(13, 17)), (0.25, range(13, 16)), (3 / 7, [13, 14])):
        mined = propagate_across_slices(known, found, MiningOptions(centre_iou=iou))
        assert list(boxes_by_slice(mined.lesions[0])) == list(slices)
    with pytest.raises(InputError, match="centre_iou is 1; allowed is from 0 to below 1, or none"):
        MiningOptions(centre_iou=1)


def test_thick_slices_get_interpolated_boxes(volume, annotated, lesion, pool):
    thick = volume(A, interval=5.0, num_slices=3)  # centres at 0, 5 and 10 mm
    # Grid 0, 2 and 3 at 0, 4 and 6 mm: the tracklet covers 0 and 5 mm, and at 5 mm its box is the mean of two.
    rows = [(0, (10, 10, 30, 30), 0.9, "deeplesion", 4), (2, (12, 10, 30, 30), 0.9, "lits", 4)]
    rows += [(3, (16, 10, 34, 30), 0.9, "lits", 4)]
    mined = propagate_across_slices(
        annotated([thick], [lesion(0, A, 11, ANNOTATED)]), pool((thick, rows)), MiningOptions()
    )
    assert boxes_by_slice(mined.lesions[0]) == {11: ANNOTATED, 12: (14, 10, 32, 30)}


def test_a_tracklet_of_two_lesions(series, annotated, lesion, pool):
    known = annotated([series], [lesion(0, A, 12, (10, 10, 30, 32)), lesion(1, A, 16, ANNOTATED)])
    proposals = pool((series, tracklet(0, 1, *[ANNOTATED] * 6)))  # slices 12 to 17
    best = propagate_across_slices(known, proposals, MiningOptions())
    # The second is overlapped wholly, the first by 400 / 440. On slice 12 the first's own box is in the way.
    assert [sorted(boxes_by_slice(item)) for item in best.lesions] == [[12], [13, 14, 15, 16, 17]]
    nearest = propagate_across_slices(known, proposals, MiningOptions(several="nearest"))
    # Slice 14 is as near to one as to the other: the better overlap has it.
    assert [sorted(boxes_by_slice(item)) for item in nearest.lesions] == [[12, 13], [14, 15, 16, 17]]


def test_boxes_on_other_lesions_are_dropped(series, annotated, lesion, pool):
    known = annotated([series], [lesion(0, A, 12, ANNOTATED), lesion(1, A, 13, (10, 10, 30, 32), recist=None)])
    rows = tracklet(0, 1, ANNOTATED, (9, 10, 30, 28))  # the second is to 360 / 378 within the other lesion
    kept = propagate_across_slices(known, pool((series, rows)), MiningOptions(theta=0.95, conflict_share=0.96))
    assert sorted(boxes_by_slice(kept.lesions[0])) == [12, 13]
    dropped = propagate_across_slices(known, pool((series, rows)), MiningOptions(theta=0.95))
    assert sorted(boxes_by_slice(dropped.lesions[0])) == [12]


def test_tracklets_of_some_experts(series, annotated, lesion, pool):
    rows = tracklet(0, 1, ANNOTATED, ANNOTATED, expert="lits")
    known = annotated([series], [lesion(0, A, 12, ANNOTATED)])
    own = propagate_across_slices(known, pool((series, rows)), MiningOptions(tracklet_experts=("deeplesion",)))
    assert sorted(boxes_by_slice(own.lesions[0])) == [12]
    theirs = propagate_across_slices(known, pool((series, rows)), MiningOptions(tracklet_experts=("lits", "luna16")))
    assert sorted(boxes_by_slice(theirs.lesions[0])) == [12, 13]
    with pytest.raises(InputError, match=r"tracklet_experts has 'lit'; the proposals are of .*did you mean 'lits'\?"):
        propagate_across_slices(known, pool((series, rows)), MiningOptions(tracklet_experts=("lit",)))


def test_ignored_lesions_do_not_grow(series, annotated, lesion, pool):
    known = annotated([series], [lesion(0, A, 12, ANNOTATED, ignore=True)])
    mined = propagate_across_slices(known, pool((series, tracklet(0, 1, ANNOTATED, ANNOTATED))), MiningOptions())
    assert mined.lesions == known.lesions


def test_adjacent_slices(series, annotated, lesion, pool):
    known = annotated([series], [lesion(0, A, 13, ANNOTATED)])
    # Slices 12 to 14; on slice 14 the tracklet has moved away from the annotation: 200 / 600.
    rows = tracklet(0, 1, ANNOTATED, ANNOTATED, (20, 10, 40, 30))
    mined = adjacent_slices(known, pool((series, rows)), MiningOptions())
    assert boxes_by_slice(mined.lesions[0]) == {12: ANNOTATED, 13: ANNOTATED}
    assert origins_by_slice(mined.lesions[0]) == {12: "propagated", 13: "annotated"}


@pytest.mark.parametrize(
    ("options", "slices"),
    [({}, [12, 13, 14]), ({"reach": 2}, [11, 12, 13, 14, 15]), ({"continuity": 6}, [13])],
)
def test_reach_and_continuity(series, annotated, lesion, pool, options, slices):
    known = annotated([series], [lesion(0, A, 13, ANNOTATED)])
    mined = adjacent_slices(known, pool((series, tracklet(0, 0, *[ANNOTATED] * 5))), MiningOptions(**options))
    assert sorted(boxes_by_slice(mined.lesions[0])) == slices


@pytest.mark.parametrize(("box_score", "slices"), [(0.0, [11, 12, 13, 14]), (0.6, [12, 13, 14]), (0.9, [13])])
def test_ends_of_tracklets(series, annotated, lesion, pool, box_score, slices):
    # The lowest score lies between two better ones and stays.
    scores = [0.5, 0.7, 0.4, 0.8]
    rows = [(place, ANNOTATED, score, "deeplesion", 0) for place, score in enumerate(scores)]
    known = annotated([series], [lesion(0, A, 13, ANNOTATED)])
    mined = propagate_across_slices(known, pool((series, rows)), MiningOptions(box_score=box_score))
    assert sorted(boxes_by_slice(mined.lesions[0])) == slices
