"""Harvest of candidates, by hand."""

from dataclasses import replace

import numpy as np
import pytest

from mmpluld.datasets.folds import volumes_of_fold
from mmpluld.errors import InputError
from mmpluld.inputs import sha256_of
from mmpluld.io.proposals import ProposalHeader, ProposalStore, VolumeProposals
from mmpluld.mining.harvest import HarvestRules, harvest, harvest_files
from mmpluld.postprocess.scan_tracklets import scan_tracklets
from mmpluld.structures import AnnotationSet, LesionRecord, VolumeRecord

HEADER = ProposalHeader("config", "0", "weights.pth", "1", "train.json", "2", ("deeplesion",), {}, "fp32")


def shard(volume, tracklets, gap_mm=2.0, interval_mm=2.0, runs=((10, 20),)):
    """Proposals of a volume: for each tracklet its run, then (grid position, box, score) of each box."""
    rows = [
        (number, run, grid, box, score) for number, (run, chain) in enumerate(tracklets) for grid, box, score in chain
    ]
    number, run, grid = (np.array([row[index] for row in rows], dtype=np.int64) for index in range(3))
    first = np.array(runs)[run, 0] if rows else np.zeros(0, np.int64)
    return VolumeProposals(
        volume,
        gap_mm,
        interval_mm,
        np.array(runs),
        np.array([row[3] for row in rows], dtype=np.float64).reshape(-1, 4),
        np.array([row[4] for row in rows], dtype=np.float64),
        np.zeros(len(rows), np.int64),
        run,
        grid,
        first + np.round(grid * gap_mm / interval_mm).astype(np.int64),
        number,
    )


def store_of(folder, *shards):
    store = ProposalStore.create(folder, HEADER)
    for item in shards:
        store.save(item)
    return store


def annotations(*lesions, volumes=("a",)):
    records = [
        VolumeRecord(
            name, f"patient-{name}", "1", "1", {"kind": "png16", "path": name}, 10, 20, (64, 64), (2.0, 1.0, 1.0)
        )
        for name in volumes
    ]
    return AnnotationSet({"name": "deeplesion", "label_scope": "universal-partial"}, records, list(lesions))


def still(box, score=0.5, grids=(4, 5, 6)):
    """A tracklet of one box on some grid slices; grid slice g is slice 10 + g."""
    return 0, [(grid, box, score) for grid in grids]


def lesion(number, box, key_slice=15, **others):
    x1, y1, x2, y2 = box
    z = 15 if key_slice is None else key_slice
    return LesionRecord(number, "a", (x1, y1, z, x2, y2, z + 1), key_slice, **others)


def kinds(found):
    """Of each candidate the left edge of its box and the lesion."""
    return [(item.box[0], item.lesion) for item in found.candidates]


def test_proposals_of_little_score_are_left_out(tmp_path):
    chains = [still((0, 0, 10, 10), 0.19), still((40, 40, 50, 50), 0.2), still((50, 50, 60, 60), 0.1)]
    found = harvest(
        annotations(lesion(7, (0, 0, 10, 10))), [store_of(tmp_path, shard("a", chains))], HarvestRules(min_score=0.2)
    )
    assert kinds(found) == [(40, None)]
    with pytest.raises(InputError, match=r"min_score is 1\.5; allowed is 0 to 1"):
        HarvestRules(min_score=1.5)


def test_lesions_false_positives_and_what_is_neither(tmp_path):
    # Boxes 10 wide and 10 high; shifted by d pixels in x their IoU is (10 - d) / (10 + d).
    store = store_of(
        tmp_path,
        shard(
            "a",
            [
                still((3, 0, 13, 10)),  # IoU 7/13 = 0.54: lesion
                still((4, 0, 14, 10)),  # 6/14 = 0.43: neither
                still((5, 0, 15, 10)),  # 5/15 = 0.33: neither
                still((6, 0, 16, 10)),  # 4/16 = 0.25: false positive
                still((40, 40, 50, 50)),  # false positive
            ],
        ),
    )
    found = harvest(annotations(lesion(7, (0, 0, 10, 10))), [store])
    assert kinds(found) == [(3, 7), (6, None), (40, None)]
    assert found.candidates[0].box == (3, 0, 14, 13, 10, 17)
    assert found.candidates[0].score == pytest.approx(0.5)
    assert found.rules == {"theta": 0.5, "theta_fp": 0.3, "min_score": 0.0}
    assert kinds(harvest(annotations(lesion(7, (0, 0, 10, 10))), [store], HarvestRules(0.4, 0.4))) == [
        (3, 7), (4, 7), (5, None), (6, None), (40, None)
    ]  # fmt: skip


def test_overlaps_equal_to_a_threshold_are_neither(tmp_path):
    # Within a lesion of 10 x 10: boxes of 5 x 10 and 3 x 10 have IoU 0.5 and 0.3, exactly.
    store = store_of(tmp_path, shard("a", [still((0, 0, 5, 10)), still((1, 0, 4, 10))]))
    known = annotations(lesion(7, (0, 0, 10, 10)))
    assert kinds(harvest(known, [store])) == []
    assert kinds(harvest(known, [store], HarvestRules(0.49, 0.31))) == [(0, 7), (1, None)]


def test_only_the_key_slice_makes_a_lesion_but_any_slice_prevents_a_false_positive(tmp_path):
    drifting = (0, [(4, (0, 0, 10, 10), 0.4), (5, (4, 0, 14, 10), 0.9), (6, (8, 0, 18, 10), 0.3)])
    store = store_of(tmp_path, shard("a", [drifting]))
    boxes = {"slice_boxes": [[14, 0, 0, 10, 10], [15, 20, 0, 30, 10]]}
    whole = {"box": (0, 0, 14, 30, 10, 16)}
    on_14 = LesionRecord(1, "a", whole["box"], 14, attributes=boxes)
    on_15 = LesionRecord(1, "a", whole["box"], 15, attributes=boxes)
    assert kinds(harvest(annotations(on_14), [store]))[0][1] == 1
    assert kinds(harvest(annotations(on_15), [store])) == []  # hits it on slice 14
    away = LesionRecord(1, "a", (0, 0, 17, 10, 10, 18), 17)  # beyond the tracklet
    assert [label for _, label in kinds(harvest(annotations(away), [store]))] == [None]


def test_a_lesion_is_no_false_positive_between_its_marks(tmp_path):
    store = store_of(tmp_path, shard("a", [still((10, 0, 20, 10)), still((30, 0, 40, 10))]))
    marks = {"slice_boxes": [[13, 0, 0, 10, 10], [15, 20, 0, 30, 10]]}
    known = annotations(LesionRecord(1, "a", (0, 0, 13, 30, 10, 16), 15, attributes=marks))
    assert kinds(harvest(known, [store])) == [(30, None)]


def test_uncertain_lesions_are_neither_lesions_nor_false_positives(tmp_path):
    store = store_of(tmp_path, shard("a", [still((0, 0, 10, 10)), still((6, 0, 16, 10)), still((40, 0, 50, 10))]))
    doubtful = lesion(1, (0, 0, 10, 10), ignore=True, origin="mined", score=0.3)
    assert kinds(harvest(annotations(doubtful), [store])) == [(6, None), (40, None)]


def test_a_mined_lesion_without_key_slice_counts_on_that_of_the_proposal(tmp_path):
    chain = (0, [(4, (0, 0, 10, 10), 0.4), (5, (0, 0, 10, 10), 0.9)])
    store = store_of(tmp_path, shard("a", [chain]))
    mined = LesionRecord(3, "a", (0, 0, 15, 10, 10, 16), None, origin="matched", score=0.8)
    assert kinds(harvest(annotations(mined), [store])) == [(0, 3)]
    elsewhere = LesionRecord(3, "a", (0, 0, 14, 10, 10, 15), None, origin="matched", score=0.8)
    assert kinds(harvest(annotations(elsewhere), [store])) == []


def test_proposals_in_slices_of_the_series():
    # Grid of 2 mm in slices of 5 mm, second run from slice 30: grid slices 1 to 6 are 2 to 12 mm, slices 1 and 2.
    chain = (1, [(1, (0, 0, 10, 10), 0.2), (6, (10, 0, 20, 10), 0.6)])
    (item,) = scan_tracklets(shard("a", [chain], interval_mm=5.0, runs=((10, 4), (30, 4))))
    assert item.box == pytest.approx((7.5, 0, 31, 17.5, 10, 33))  # weights 1/4 and 3/4
    assert (item.score, item.key_slice) == (pytest.approx(0.6), 32)
    # Slice 31 lies at grid position 2.5 of 1 to 6, slice 32 at 5.
    assert {index: pytest.approx(box) for index, box in item.boxes.items()} == {31: (3, 0, 13, 10), 32: (8, 0, 18, 10)}


def test_boxes_without_tracklet_are_no_proposals(tmp_path):
    found = shard("a", [still((0, 0, 10, 10))])
    found.tracklet[:] = -1
    assert kinds(harvest(annotations(), [store_of(tmp_path, found)])) == []


def test_stores_of_several_folds(tmp_path):
    lesions = annotations(volumes=("a", "b"))
    one = store_of(tmp_path / "one", shard("a", [still((0, 0, 10, 10))]))
    two = store_of(tmp_path / "two", shard("b", [still((20, 0, 30, 10))]))
    found = harvest(lesions, [two, one])
    assert [(item.volume, item.store) for item in found.candidates] == [("a", 1), ("b", 0)]
    assert [item["checkpoint_sha256"] for item in found.stores] == ["1", "1"]
    with pytest.raises(InputError, match=r"two: volume 'b' is in .*two too; give each volume's proposals once"):
        harvest(lesions, [two, two])
    with pytest.raises(InputError, match=r"two: volume 'b' is not in the annotations"):
        harvest(annotations(), [two])
    with pytest.raises(InputError, match=r"no volumes; run `mmpluld propose` first"):
        harvest(lesions, [ProposalStore.create(tmp_path / "empty", HEADER)])


def test_proposals_of_other_annotations_are_refused(tmp_path):
    lesions = annotations(lesion(7, (0, 0, 10, 10)))
    lesions.save(tmp_path / "train.json")
    digest = sha256_of(tmp_path / "train.json")
    store = ProposalStore.create(tmp_path / "store", replace(HEADER, annotations_sha256=digest))
    store.save(shard("a", [still((0, 0, 10, 10))]))
    assert kinds(harvest_files(tmp_path / "train.json", [store.folder])) == [(0, 7)]
    lesions.dataset["mined"] = [{"annotations_sha256": digest, "strategies": [], "oracles": []}]
    lesions.save(tmp_path / "mined.json")
    assert kinds(harvest_files(tmp_path / "mined.json", [store.folder])) == [(0, 7)]
    other = annotations()
    other.save(tmp_path / "other.json")
    with pytest.raises(InputError, match=r"store: proposals of another annotation file, train.json"):
        harvest_files(tmp_path / "other.json", [store.folder])
    lesions.dataset["mined"] = ["by hand"]
    lesions.save(tmp_path / "hand.json")
    with pytest.raises(InputError, match=r"hand\.json: dataset\.mined is not what `mmpluld mine` writes there"):
        harvest_files(tmp_path / "hand.json", [store.folder])


@pytest.mark.parametrize("fold", [None, (0, 2, 0)])
def test_proposals_that_were_cut_off_are_refused(tmp_path, fold):
    volumes = [replace(annotations().volumes[0], id=name, patient=name) for name in "abcd"]
    AnnotationSet({"name": "made", "label_scope": "all"}, volumes, []).save(tmp_path / "train.json")
    digest = sha256_of(tmp_path / "train.json")
    store = ProposalStore.create(tmp_path / "store", replace(HEADER, annotations_sha256=digest, fold=fold))
    wanted = [volume.id for volume in volumes_of_fold(volumes, fold)]
    for name in wanted[:-1]:
        store.save(shard(name, [still((0, 0, 10, 10))]))
    with pytest.raises(InputError, match=rf"store: no proposals of 1 volume of .*train\.json \({wanted[-1]}\); run"):
        harvest_files(tmp_path / "train.json", [store.folder])
    store.save(shard(wanted[-1], [still((0, 0, 10, 10))]))
    folders = [store.folder]
    if fold is not None:
        with pytest.raises(
            InputError, match=r"store: of folds that leave out 2 volumes of .*; give the .* of all folds"
        ):
            harvest_files(tmp_path / "train.json", folders)
        other = ProposalStore.create(tmp_path / "other", replace(store.header, fold=(1, 2, 0)))
        for name in sorted(set("abcd") - set(wanted)):
            other.save(shard(name, [still((0, 0, 10, 10))]))
        folders.append(other.folder)
    assert len(harvest_files(tmp_path / "train.json", folders).candidates) == 4
    with pytest.raises(
        InputError, match=r"of the 3D proposals that score 1 or more none is .*; give a lower min_score"
    ):
        harvest_files(tmp_path / "train.json", folders, HarvestRules(min_score=1))


@pytest.mark.parametrize(("theta", "theta_fp"), [(0.3, 0.5), (0.5, 0.0), (1.0, 0.3)])
def test_thresholds_are_checked(theta, theta_fp):
    with pytest.raises(InputError, match="allowed is 0 < theta_fp <= theta < 1"):
        HarvestRules(theta, theta_fp)
