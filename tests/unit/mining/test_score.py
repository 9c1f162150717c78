"""Truth, oracles and scores on a patient of two series, counted by hand."""

from __future__ import annotations

import pytest

from mmpluld.errors import InputError
from mmpluld.mining.mine import count_boxes
from mmpluld.mining.options import MiningOptions
from mmpluld.mining.score import score_strategy
from mmpluld.mining.strategy_table import ORACLES
from mmpluld.mining.truth import CompleteTruth
from mmpluld.structures import AnnotationSet, LesionRecord, boxes_by_slice, origins_by_slice

A, B = "1_01_01", "1_02_01"
ONE, TWO, THREE = (10.0, 10.0, 30.0, 30.0), (60.0, 60.0, 72.0, 72.0), (100.0, 20.0, 140.0, 60.0)


def true(number, identity, volume, box, first, last, type_name, cap=None):
    """A lesion on slices first to last, with a cap on one more."""
    x1, y1, x2, y2 = box
    boxes = [[index, *box] for index in range(first, last + 1)]
    far = max(last, cap or last)
    return LesionRecord(
        number, volume, (x1, y1, float(first), x2, y2, far + 1.0), type=type_name,
        attributes={"lesion": identity, "slice_boxes": boxes},
    )  # fmt: skip


@pytest.fixture
def series(volume):
    return [volume(A), volume(B)]


@pytest.fixture
def truth(series):
    """Lesion 1 in both series, 2 in both, 3 in the second alone."""
    lesions = [
        true(0, 1, A, ONE, 12, 14, "liver", cap=15),
        true(1, 2, A, TWO, 13, 14, "lung"),
        true(2, 1, B, ONE, 16, 18, "liver"),
        true(3, 2, B, TWO, 16, 17, "lung"),
        true(4, 3, B, THREE, 16, 16, "bone"),
    ]
    return CompleteTruth(AnnotationSet({"name": "phantom", "label_scope": "x"}, series, lesions), "truth.json")


@pytest.fixture
def known(series, annotated, lesion):
    """Lesion 1 is marked on slice 13 of the first series."""
    return annotated(series, [lesion(0, A, 13, ONE)])


def shares(rows, stratum="all", caps=False):
    return {
        (row["measure"], row["group"]): (row["hits"], row["total"])
        for row in rows
        if row["stratum"] == stratum and (row["measure"] == "caps_2d") == caps
    }


def test_oracle_across_slices(known, truth):
    mined = ORACLES["cross-slice"].perfect(known, truth, MiningOptions())
    assert boxes_by_slice(mined.lesions[0]) == {12: ONE, 13: ONE, 14: ONE}
    assert origins_by_slice(mined.lesions[0])[13] == "annotated"
    rows = score_strategy("cross-slice", known, mined, truth, 10)
    assert shares(rows) == {("precision_2d", "all"): (2, 2), ("recall_2d", "all"): (2, 2)}
    assert shares(rows, "type") == {("precision_2d", "liver"): (2, 2), ("recall_2d", "liver"): (2, 2)}
    assert shares(rows, "size") == {("precision_2d", "10 to 30 mm"): (2, 2), ("recall_2d", "10 to 30 mm"): (2, 2)}
    values = {(row["value"], row["low"], row["high"]) for row in rows if row["measure"] != "caps_2d"}
    assert values == {(1, None, None)}, "one patient has no interval"


def test_oracle_across_volumes(known, truth):
    mined = ORACLES["intra-patient"].perfect(known, truth, MiningOptions())
    (new,) = mined.lesions[1:]
    assert (new.volume, new.origin, boxes_by_slice(new)) == (B, "matched", {16: ONE, 17: ONE, 18: ONE})
    rows = score_strategy("intra-patient", known, mined, truth, 10)
    assert shares(rows) == {
        ("precision_2d", "all"): (3, 3), ("recall_2d", "all"): (3, 3), ("precision_3d", "all"): (1, 1),
        ("precision_pair", "all"): (1, 1), ("recall_3d", "all"): (1, 1),
    }  # fmt: skip


def test_oracles_of_uncertain_lesions(known, truth):
    labelled = ORACLES["cross-dataset"].perfect(known, truth, MiningOptions())
    assert [(item.box[2], item.ignore) for item in labelled.lesions[1:]] == [(13, True)]
    assert shares(score_strategy("cross-dataset", known, labelled, truth, 10)) == {
        ("precision_2d", "all"): (1, 1), ("recall_2d", "all"): (1, 1),
    }  # fmt: skip
    every = ORACLES["unlabeled"].perfect(labelled, truth, MiningOptions())
    # Slices 12 and 14 of the first series have three boxes without label, the second series six; slice 15 has a cap.
    assert len(every.lesions) == 2 + 9 + 1
    assert [boxes_by_slice(item) for item in every.lesions if item.box[2] == 15] == [{15: ONE}]
    rows = score_strategy("unlabeled", labelled, every, truth, 10)
    assert shares(rows) == {("precision_2d", "all"): (9, 9), ("recall_2d", "all"): (9, 9)}
    assert shares(rows, "expert") == {("precision_2d", "truth"): (9, 9)}
    assert shares(rows, "type")["recall_2d", "bone"] == (1, 1)


def test_experts_without_fault_find_the_kinds_that_they_know(known, truth):
    every = ORACLES["unlabeled"].perfect(known, truth, MiningOptions())
    bone = ORACLES["unlabeled"].perfect(known, truth, MiningOptions(oracle_types=("bone", "lung")))
    assert 0 < len(bone.lesions) - len(known.lesions) < len(every.lesions) - len(known.lesions)
    rows = shares(score_strategy("unlabeled", known, bone, truth, 10), "type")
    assert {kind: rows["recall_2d", kind] for _, kind in rows}["bone"] == (1, 1)
    assert all(hits == (total if kind in ("bone", "lung") else 0) for (name, kind), (hits, total) in rows.items())


@pytest.mark.parametrize("name", ORACLES)
def test_an_oracle_adds_what_its_strategy_is_after_and_nothing_else(name, known, truth):
    mined = ORACLES[name].perfect(known, truth, MiningOptions())
    old = {(item.id, number) for item in known.lesions for number in boxes_by_slice(item)}
    added = {
        (origin, item.ignore)
        for item in mined.lesions
        for number, origin in origins_by_slice(item).items()
        if (item.id, number) not in old
    }
    assert added == {(ORACLES[name].origin, ORACLES[name].uncertain)}
    rows = shares(score_strategy(name, known, mined, truth, 10))
    assert all(hits == total > 0 for hits, total in rows.values()), rows


def test_scores_of_flawed_boxes(known, truth, series):
    flawed = LesionRecord(
        0, A, (10, 10, 12, 30, 30, 16), key_slice=13, type="liver",
        attributes={
            # Half of the lesion on slice 12 is just enough; slice 14 is missed, 15 is a cap, 11 and 16 are beside it.
            "slice_boxes": [[11, *ONE], [12, 10, 10, 30, 20], [13, *ONE], [15, *ONE], [16, *ONE]],
            "slice_origins": ["propagated", "propagated", "annotated", "propagated", "propagated"],
        },
    )  # fmt: skip
    rows = score_strategy("cross-slice", known, AnnotationSet(known.dataset, series, [flawed]), truth, 10)
    assert shares(rows) == {("precision_2d", "all"): (1, 3), ("recall_2d", "all"): (1, 2)}
    assert shares(rows, caps=True) == {("caps_2d", "all"): (1, 4)}


def test_scores_of_wrong_matches(known, truth, series):
    def matched(number, box, slices):
        return LesionRecord(
            number, B, (*box[:2], float(slices[0]), *box[2:], slices[-1] + 1.0), origin="matched", score=0.9,
            attributes={"slice_boxes": [[index, *box] for index in slices], "matched_lesion": 0, "distance": 0.1},
        )  # fmt: skip

    # A lesion, but another one; nothing at all; the right one, on two of its three slices and one beyond; it again.
    found = [matched(1, TWO, [16, 17]), matched(2, (0, 0, 5, 5), [16])]
    found += [matched(3, ONE, [17, 18, 19]), matched(4, ONE, [17])]
    mined = AnnotationSet(known.dataset, series, [*known.lesions, *found])
    rows = score_strategy("intra-patient", known, mined, truth, 10)
    assert shares(rows) == {
        ("precision_3d", "all"): (2, 4), ("precision_pair", "all"): (2, 4), ("recall_3d", "all"): (1, 1),
        ("precision_2d", "all"): (5, 7), ("recall_2d", "all"): (2, 3),
    }  # fmt: skip


def test_uncertain_boxes_on_labelled_lesions_are_wrong(known, truth, series):
    def doubtful(number, index, box):
        return LesionRecord(
            number, A, (*box[:2], float(index), *box[2:], index + 1.0), ignore=True, origin="mined", score=0.9,
            attributes={"expert": "lits"},
        )  # fmt: skip

    mined = AnnotationSet(known.dataset, series, [*known.lesions, doubtful(1, 13, ONE), doubtful(2, 13, TWO)])
    rows = score_strategy("cross-dataset", known, mined, truth, 10)
    assert shares(rows) == {("precision_2d", "all"): (1, 2), ("recall_2d", "all"): (1, 1)}


def test_counts(known, truth):
    lengths = {A: 10, B: 10}
    assert count_boxes("none", known, lengths, every=False) == {
        "strategy": "none", "lesions_3d": 1, "boxes_2d": 1, "uncertain_2d": 0, "slices": 1,
    }  # fmt: skip
    mined = known
    for name in ORACLES:
        mined = ORACLES[name].perfect(mined, truth, MiningOptions())
    assert count_boxes("all", mined, lengths, every=True) == {
        "strategy": "all", "lesions_3d": 2, "boxes_2d": 6, "uncertain_2d": 6, "slices": 20,
    }  # fmt: skip
    assert count_boxes("some", mined, lengths, every=False)["slices"] == 6


def test_counts_of_a_file_by_hand(series, lesion):
    origins = ["propagated", "annotated", "matched"]
    spread = {"slice_boxes": [[number, *ONE] for number in (12, 13, 14)], "slice_origins": origins}
    doubtful = {"ignore": True, "origin": "mined", "key_slice": None}
    mined = [
        lesion(0, A, 13, ONE, attributes=spread),  # three boxes on slices 12 to 14
        lesion(1, A, 14, TWO, origin="matched", key_slice=None),  # one more, on slice 14 too
        lesion(2, B, 13, TWO),
        lesion(3, A, 12, TWO, **doubtful),
        lesion(4, A, 19, TWO, **doubtful),  # on a slice that has no certain lesion
        lesion(5, B, 16, ONE, ignore=True),  # a person's doubt is not mined
    ]
    row = count_boxes("x", AnnotationSet({"name": "deeplesion"}, series, mined), {A: 10, B: 8}, every=False)
    assert row == {"strategy": "x", "lesions_3d": 3, "boxes_2d": 5, "uncertain_2d": 2, "slices": 4}
    row = count_boxes("x", AnnotationSet({"name": "deeplesion"}, series, mined), {A: 10, B: 8}, every=True)
    assert row["slices"] == 18


def test_a_truth_without_identities_is_refused(series, lesion):
    complete = AnnotationSet({"name": "x", "label_scope": "y"}, series, [lesion(0, A, 13, ONE)])
    with pytest.raises(InputError, match=r"truth\.json: lesion 0 has no attributes\.lesion"):
        CompleteTruth(complete, "truth.json")
