"""Truth beside a phantom: what counts, what is to be ignored, what each file holds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mmpluld.phantom import PhantomSpec, write_deeplesion_layout
from mmpluld.phantom.case import make_case
from mmpluld.phantom.truth import WHOLE_SHARE, truth_on_key_slices
from mmpluld.structures import AnnotationSet

SETTINGS = {"size": 64, "max_slices": 32, "lesions_per_series": 30.0, "min_long_mm": 14, "intervals_mm": (2.0,)}


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("truth") / "dl"
    return write_deeplesion_layout(root, (2, 1, 2), seed=4, mark_prob=0.4, **SETTINGS) / "truth"


def load(truth: Path, name: str) -> AnnotationSet:
    return AnnotationSet.load(truth / f"{name}.json")


def test_small_cross_sections_of_large_lesions_are_ignored_in_2d() -> None:
    case = make_case(4, "deeplesion/train", 1, PhantomSpec(**(SETTINGS | {"mark_prob": 0.4})))
    (series,) = case.series
    ignored = {}
    for record in truth_on_key_slices(case, series, "50"):
        lesion = next(item for item in series.lesions if item.number == record.attributes["lesion"])
        largest = max(mark.long_px for mark in lesion.slices.values())
        share = lesion.slices[record.key_slice - 1].long_px / largest
        ignored[record.ignore] = True
        assert record.ignore == (share < WHOLE_SHARE) or record.key_slice - 1 == lesion.key_slice
        assert not (record.ignore and record.attributes["marked"])
    assert set(ignored) == {True, False}


def test_boxes_of_slices_leave_the_same_out_of_3d_truth(truth: Path) -> None:
    """The 3D box holds the whole lesion, its slice boxes the part that training on slices takes."""
    shorter = 0
    for split in ("train", "val", "test"):
        counted = {(item.volume, item.attributes["lesion"], item.key_slice): item
                   for item in load(truth, f"{split}_key_slices").lesions}  # fmt: skip
        for lesion in load(truth, split).lesions:
            rows = {row[0]: tuple(row[1:]) for row in lesion.attributes["slice_boxes"]}
            assert lesion.key_slice in rows
            assert lesion.box[2] <= min(rows) and max(rows) + 1 <= lesion.box[5]
            shorter += len(rows) < lesion.box[5] - lesion.box[2]
            for (volume, number, key), item in counted.items():
                if (volume, number) == (lesion.volume, lesion.attributes["lesion"]):
                    assert (key in rows) == (not item.ignore)
                    assert item.ignore or rows[key] == (*item.box[:2], *item.box[3:5])
    assert shorter


def test_unmarked_lesions_are_ignored_on_the_same_slices(truth: Path) -> None:
    complete, ignored = load(truth, "train_key_slices"), load(truth, "train_unmarked_ignored")
    assert list(truth.glob("*unmarked*.json")) == [truth / "train_unmarked_ignored.json"]
    assert complete.volumes == ignored.volumes
    for one, other in zip(complete.lesions, ignored.lesions, strict=True):
        assert other == replace(one, ignore=one.ignore or not one.attributes["marked"])
    counted = [lesion for lesion in ignored.lesions if not lesion.ignore]
    assert 0 < len(counted) < sum(not lesion.ignore for lesion in complete.lesions)


def test_subvolumes_of_validation_and_test(truth: Path) -> None:
    for split in ("val", "test"):
        parts, whole = load(truth, f"{split}_subvolumes"), load(truth, split)
        assert 0 < len(parts.volumes) <= len(whole.volumes)
        assert {volume.patient for volume in parts.volumes} <= {volume.patient for volume in whole.volumes}
        assert not any("slice_boxes" in lesion.attributes for lesion in parts.lesions)
    assert not (truth / "train_subvolumes.json").exists()
