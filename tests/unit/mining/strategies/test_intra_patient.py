from __future__ import annotations

import math
from dataclasses import replace

import pytest

from mmpluld.errors import InputError
from mmpluld.mining.options import MiningOptions
from mmpluld.mining.places import EmbeddedPlaces
from mmpluld.mining.strategies import match_within_patients
from mmpluld.structures import LesionRecord, boxes_by_slice

A, B, OTHER = "1_01_01", "1_02_01", "2_01_01"
BOX = (10.0, 10.0, 30.0, 30.0)


@pytest.fixture
def series(volume):
    return [volume(A), volume(B), volume(OTHER)]


@pytest.fixture
def places(embeddings, pool):
    def make(proposals, found):
        (digest,) = proposals.digests.values()
        return EmbeddedPlaces([embeddings(found, "ann", digest)], ["ann"])

    return make


def tracklet(number, first, *boxes, score=0.8):
    return [(first + step, box, score, "deeplesion", number) for step, box in enumerate(boxes)]


def test_the_whole_tracklet_is_mined_in_the_other_volume_alone(series, annotated, lesion, pool, places):
    known = annotated(series, [lesion(5, A, 13, BOX)])
    rows = [*tracklet(0, 1, BOX, (11, 10, 31, 30)), *tracklet(1, 6, (50, 50, 60, 60))]
    proposals = pool((series[0], rows), (series[1], rows), (series[2], rows))
    # Unit vectors 8 degrees apart are 2 sin(4 degrees) = 0.1395 apart; 9 degrees are 0.1569.
    found = {A: ({5: 0}, {0: 0, 1: 0}), B: ({}, {0: 8, 1: 9}), OTHER: ({}, {0: 0, 1: 0})}
    mined = match_within_patients(known, proposals, MiningOptions(), places(proposals, found))
    assert mined.lesions[0] == known.lesions[0]
    (new,) = mined.lesions[1:]
    assert (new.id, new.volume, new.origin, new.ignore, new.type, new.score) == (
        6, B, "matched", False, "liver", pytest.approx(0.8),
    )  # fmt: skip
    assert new.box == (10, 10, 12, 31, 30, 14)
    assert new.attributes == {
        "matched_lesion": 5,
        "distance": pytest.approx(2 * math.sin(math.radians(4)), abs=1e-5),
        "best_slice": 12,
        "slice_boxes": [[12, *BOX], [13, 11, 10, 31, 30]],
        "slice_origins": ["matched", "matched"],
    }


def test_a_tracklet_of_a_known_lesion_joins_it(series, annotated, lesion, pool, places):
    known = annotated(series, [lesion(0, A, 13, BOX), lesion(1, B, 12, (10, 10, 30, 31))])
    proposals = pool((series[0], []), (series[1], tracklet(0, 1, BOX, BOX)), (series[2], []))
    found = {A: ({0: 0}, {}), B: ({1: 90}, {0: 1})}
    mined = match_within_patients(known, proposals, MiningOptions(), places(proposals, found))
    assert len(mined.lesions) == 2
    assert mined.lesions[1].attributes == {
        "slice_boxes": [[12, 10, 10, 30, 31], [13, *BOX]],
        "slice_origins": ["annotated", "matched"],
    }


def test_boxes_on_another_lesion_are_dropped(series, annotated, lesion, pool, places):
    known = annotated(series, [lesion(0, A, 13, BOX), lesion(1, B, 12, (11, 10, 50, 50))])
    rows = tracklet(0, 1, BOX, BOX)  # on slice 12 their IoU is 380 / 1580, and 380 / 400 of it is in the annotation
    proposals = pool((series[0], []), (series[1], rows), (series[2], []))
    found = {A: ({0: 0}, {}), B: ({1: 90}, {0: 1})}
    options = MiningOptions(theta=0.9, conflict_share=0.5)
    mined = match_within_patients(known, proposals, options, places(proposals, found))
    assert [item.origin for item in mined.lesions] == ["annotated", "annotated", "matched"]
    assert boxes_by_slice(mined.lesions[2]) == {13: BOX}
    lenient = match_within_patients(
        known, proposals, MiningOptions(theta=0.9, conflict_share=0.96), places(proposals, found)
    )
    assert boxes_by_slice(lenient.lesions[2]) == {12: BOX, 13: BOX}


def test_most_pairs_and_nearest_annotation(series, annotated, lesion, pool, places):
    known = annotated(series, [lesion(0, A, 13, BOX), lesion(1, A, 15, (60, 60, 70, 70))])
    rows = [*tracklet(0, 1, BOX), *tracklet(1, 3, BOX), *tracklet(2, 7, (60, 60, 70, 70))]
    proposals = pool((series[0], []), (series[1], rows), (series[2], []))
    found = {A: ({0: 0, 1: 6}, {}), B: ({}, {0: 1, 1: 2, 2: 5})}
    every = match_within_patients(known, proposals, MiningOptions(), places(proposals, found))
    assert [(item.box[2], item.attributes["matched_lesion"]) for item in every.lesions[2:]] == [
        (12, 0),
        (14, 0),
        (18, 1),
    ]
    one = match_within_patients(known, proposals, MiningOptions(max_pairs=1), places(proposals, found))
    assert [(item.box[2], item.attributes["matched_lesion"]) for item in one.lesions[2:]] == [(12, 0), (18, 1)]


def test_position_alone(series, annotated, lesion, pool):
    known = annotated(series, [lesion(0, A, 13, (90, 40, 110, 60))])  # centre at (0.5, 0.5, 0.25)
    near, far = (104, 40, 124, 60), (70, 20, 110, 40)  # 0.07 and 0.2 + 0.05 aside
    rows = [*tracklet(0, 2, near), *tracklet(1, 5, far), *tracklet(2, 4, (90, 40, 110, 60))]  # the last is 0.2 farther
    proposals = pool((series[0], []), (series[1], rows), (series[2], rows))
    mined = match_within_patients(known, proposals, MiningOptions(match="position", delta=0.1))
    assert [(item.volume, item.box[2]) for item in mined.lesions[1:]] == [(B, 13)]
    assert mined.lesions[1].attributes["distance"] == pytest.approx(0.07)


def test_a_distance_of_delta_is_no_match(series, annotated, lesion, pool):
    known = annotated(series, [lesion(0, A, 13, (90, 40, 110, 60))])
    proposals = pool((series[0], []), (series[1], tracklet(0, 2, (140, 40, 160, 60))), (series[2], []))  # 0.25 aside
    for delta, count in ((0.25, 1), (0.250001, 2)):
        mined = match_within_patients(known, proposals, MiningOptions(match="position", delta=delta))
        assert len(mined.lesions) == count


def test_what_does_not_belong_together_is_refused(series, annotated, lesion, pool, embeddings):
    known = annotated(series, [lesion(0, A, 13, BOX)])
    proposals = pool((series[0], []), (series[1], tracklet(0, 1, BOX)), (series[2], []))
    (digest,) = proposals.digests.values()
    with pytest.raises(InputError, match=r"matching needs embeddings; make them with `mmpluld embed`"):
        match_within_patients(known, proposals, MiningOptions())
    store = embeddings({A: ({0: 0}, {}), B: ({}, {})}, "ann", digest)
    with pytest.raises(InputError, match=r"embeddings of another annotation file"):
        EmbeddedPlaces([store], ["other"])
    with pytest.raises(
        InputError, match=r"begin and end with a score of 0, now 0\.2, .*`mmpluld embed --box-score 0\.2`"
    ):
        EmbeddedPlaces([store], ["ann"], box_score=0.2)
    with pytest.raises(InputError, match=r"volume '1_02_01' lacks the embedding of 1 tracklet \(0\)"):
        match_within_patients(known, proposals, MiningOptions(), EmbeddedPlaces([store], ["ann"]))
    pool((series[1], tracklet(0, 2, BOX)))  # the same tracklet's number, another place
    with pytest.raises(InputError, match=r"the proposals of volume '1_02_01' were made anew since .*embed` again"):
        match_within_patients(known, proposals, MiningOptions(), EmbeddedPlaces([store], ["ann"]))
    (store.folder / "embeddings.json").write_text(
        (store.folder / "embeddings.json").read_text().replace(digest, "0" * 64)
    )
    with pytest.raises(InputError, match=r"embeddings of other proposals than those of volume '1_02_01'"):
        match_within_patients(known, proposals, MiningOptions(), EmbeddedPlaces([type(store)(store.folder)], ["ann"]))


def test_a_matched_tracklet_is_no_deeper_than_told(series, annotated, lesion, pool, places):
    known = annotated(series, [lesion(5, A, 13, BOX)])
    rows = tracklet(0, 0, *[BOX] * 8)
    rows[3] = (3, BOX, 0.9, "deeplesion", 0)  # the best one, slice 14; the box is 20 mm wide
    proposals = pool((series[0], []), (series[1], rows), (series[2], []))
    found = {A: ({5: 0}, {}), B: ({}, {0: 0}), OTHER: ({}, {})}
    mined = match_within_patients(known, proposals, MiningOptions(depth=0.2), places(proposals, found))
    assert list(boxes_by_slice(mined.lesions[1])) == [12, 13, 14, 15, 16]
    again = match_within_patients(mined, proposals, MiningOptions(depth=0.2), places(proposals, found))
    assert again.lesions == mined.lesions


def test_a_matched_lesion_without_its_best_box_is_no_deeper_than_told_from_the_next(
    series, annotated, lesion, pool, places
):
    # Its best box, on slice 13, lay on another lesion and was left out.
    attributes = {
        "matched_lesion": 5, "distance": 0.0, "best_slice": 13,
        "slice_boxes": [[14, *BOX], [15, *BOX]], "slice_origins": ["matched"] * 2,
    }  # fmt: skip
    matched = LesionRecord(7, B, (*BOX[:2], 14, *BOX[2:], 16), origin="matched", score=0.9, attributes=attributes)
    known = annotated(series, [lesion(5, A, 13, BOX), matched])
    proposals = pool((series[0], []), (series[1], tracklet(0, 0, *[BOX] * 8)), (series[2], []))
    found = {A: ({5: 0}, {}), B: ({7: 0}, {0: 0}), OTHER: ({}, {})}
    mined = match_within_patients(known, proposals, MiningOptions(depth=0.2), places(proposals, found))
    assert list(boxes_by_slice(mined.lesions[1])) == [12, 13, 14, 15, 16]


def test_most_pairs_are_those_of_all_rounds(series, annotated, lesion, pool, places):
    known = annotated(series, [lesion(0, A, 13, BOX)])
    options = MiningOptions(max_pairs=1)
    first = pool((series[0], []), (series[1], tracklet(0, 1, BOX)), (series[2], []))
    found = {A: ({0: 0}, {}), B: ({}, {0: 1})}
    once = match_within_patients(known, first, options, places(first, found))
    elsewhere = pool((series[0], []), (series[1], tracklet(0, 7, (60, 60, 70, 70))), (series[2], []))
    twice = match_within_patients(once, elsewhere, options, places(elsewhere, found))
    assert [item.box[2] for item in twice.lesions[1:]] == [12]


def test_a_mark_without_key_slice_is_matched_by_its_middle(series, annotated, lesion, pool, places):
    known = annotated(series, [replace(lesion(0, A, 13, BOX), key_slice=None)])
    proposals = pool((series[0], []), (series[1], tracklet(0, 1, BOX)), (series[2], []))
    mined = match_within_patients(
        known, proposals, MiningOptions(), places(proposals, {A: ({0: 0}, {}), B: ({}, {0: 1})})
    )
    assert len(mined.lesions) == 2


def test_a_joined_lesion_is_no_deeper_than_told_from_its_mark(series, annotated, lesion, pool, places):
    origins = ["annotated", "propagated", "propagated"]
    rows = {"slice_boxes": [[number, *BOX] for number in (12, 13, 14)], "slice_origins": origins}
    marked = replace(lesion(1, B, 12, BOX), box=(10, 10, 12, 30, 30, 15), attributes=rows)
    known = annotated(series, [lesion(0, A, 13, BOX), marked])
    proposals = pool((series[0], []), (series[1], tracklet(0, 0, *[BOX] * 8)), (series[2], []))
    found = {A: ({0: 0}, {}), B: ({1: 90}, {0: 1})}
    mined = match_within_patients(known, proposals, MiningOptions(depth=0.2), places(proposals, found))
    assert list(boxes_by_slice(mined.lesions[1])) == [11, 12, 13, 14]


@pytest.mark.parametrize("number", [1, -1, -5])
def test_lesions_may_have_any_ids(series, annotated, lesion, pool, places, number):
    # The first tracklet is a new lesion, the second the one that is marked beside it.
    beside = (60.0, 60.0, 80.0, 80.0)
    known = annotated(series, [lesion(0, A, 13, BOX), lesion(number, B, 12, beside)])
    rows = [*tracklet(0, 0, *[BOX] * 3), *tracklet(1, 0, *[beside] * 3)]
    proposals = pool((series[0], []), (series[1], rows), (series[2], []))
    found = {A: ({0: 0}, {}), B: ({number: 90}, {0: 1, 1: 2})}
    mined = match_within_patients(known, proposals, MiningOptions(), places(proposals, found))
    assert [(item.origin, item.id in (0, number), len(boxes_by_slice(item))) for item in mined.lesions] == [
        ("annotated", True, 1),
        ("annotated", True, 3),
        ("matched", False, 3),
    ]


def test_what_a_person_left_open_stays_so(series, annotated, lesion, pool, places):
    proposals = pool((series[0], []), (series[1], tracklet(0, 1, BOX, BOX)), (series[2], []))
    found = {A: ({0: 0}, {}), B: ({}, {0: 1})}
    known = annotated(series, [lesion(0, A, 13, BOX), lesion(1, B, 12, (12, 10, 30, 30), ignore=True)])
    mined = match_within_patients(known, proposals, MiningOptions(), places(proposals, found))
    assert boxes_by_slice(mined.lesions[2]) == {13: BOX}
    known.lesions[1].origin = "mined"  # an uncertain box may become a lesion
    mined = match_within_patients(known, proposals, MiningOptions(), places(proposals, found))
    assert boxes_by_slice(mined.lesions[2]) == {12: BOX, 13: BOX}
