"""Starter scans: the same from the same seed, complete truth, and the folder that training reads."""

from __future__ import annotations

import numpy as np
import pytest

from mmpluld.cli.main import main
from mmpluld.errors import InputError
from mmpluld.phantom import write_starter_layout
from mmpluld.phantom.layout_starter import make_starter_scan
from mmpluld.structures import AnnotationSet

LIMB, TORSO = 9, 31  # numbers of small scans


@pytest.fixture(scope="module", params=[LIMB, TORSO], ids=["limb", "torso"])
def scan(request):
    return make_starter_scan(0, "train", request.param)


def test_looks_like_ct(scan):
    hu, spacing, _ = scan
    assert hu.dtype == np.int16
    assert hu.min() >= -1024
    assert 1 <= spacing[0] <= 5
    assert spacing[1] == spacing[2]
    assert (hu > 300).any()  # bone
    assert ((hu > 0) & (hu < 120)).mean() > 0.1


def test_boxes_hold_what_differs_from_around(scan):
    hu, spacing, lesions = scan
    assert lesions
    for lesion in lesions:
        assert lesion.key_slice in lesion.boxes
        for z, (x1, y1, x2, y2) in lesion.boxes.items():
            assert 0 <= z < len(hu)
            assert 0 <= x1 < x2 <= hu.shape[2]
            assert 0 <= y1 < y2 <= hu.shape[1]
        x1, y1, x2, y2 = lesion.boxes[lesion.key_slice]
        assert not lesion.clear or max(x2 - x1, y2 - y1) * spacing[1] >= 5


def test_same_seed_same_bytes_and_another_seed_another_scan():
    one, two = (make_starter_scan(0, "train", LIMB) for _ in range(2))
    np.testing.assert_array_equal(one[0], two[0])
    assert one[2] == two[2]
    other = make_starter_scan(1, "train", LIMB)
    assert other[0].shape != one[0].shape or (other[0] != one[0]).any()


def test_folder_is_whole_and_the_same_for_any_number_of_workers(tmp_path):
    for name, workers in (("one", 1), ("two", 2)):
        write_starter_layout(tmp_path / name, (2, 1), seed=4, workers=workers)
    for split, count in (("train", 2), ("val", 1)):
        file = f"annotations/{split}.json"
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
        annotations = AnnotationSet.load(tmp_path / "one" / file)
        assert len(annotations.volumes) == count
        for volume in annotations.volumes:
            paths = [tmp_path / name / volume.source["path"] for name in ("one", "two")]
            assert paths[0].read_bytes() == paths[1].read_bytes()
            assert np.load(paths[0]).shape == (volume.num_slices, *volume.shape_yx)
        for lesion in annotations.lesions:
            rows = np.array(lesion.attributes["slice_boxes"])
            assert rows[0, 0] == lesion.box[2]
            assert rows[-1, 0] + 1 == lesion.box[5]


def test_what_is_there_is_not_overwritten_unasked(tmp_path):
    (tmp_path / "mine.txt").touch()
    with pytest.raises(InputError, match="not an empty folder"):
        write_starter_layout(tmp_path, (1, 1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--patients", "3"], "--patients [3]: starter takes two numbers, TRAIN VAL"),
        (["--set", "size=64"], "phantom starter: takes no --set"),
        (["--patients", "0", "1"], "num_patients"),
    ],
)
def test_command_refuses_what_it_cannot_do(options, message, tmp_path, capsys):
    assert main(["phantom", "starter", str(tmp_path / "out"), *options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
