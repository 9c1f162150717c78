"""The benchmark on real scans: what it reads, what it counts as found, what it skips."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import SimpleITK as sitk

from benchmarks.real_ct import (
    SETS,
    Found,
    default_row,
    find_case,
    first_hits,
    key_slices,
    rows_of_sets,
    sensitivity_rows,
    write_found,
)
from mmpluld.evaluation.evaluate import evaluate_files
from mmpluld.evaluation.functional import DEEPLESION_2D, LENS_3D
from mmpluld.inference.settings import DetectionSettings
from mmpluld.structures import Finding

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def data(tmp_path):
    """A volume in each of the layouts, and a key slice."""
    hu = np.random.default_rng(0).normal(20, 60, (6, 8, 10)).astype(np.int16)  # z, y, x
    hu[:, :, :3] = -1000
    image = sitk.GetImageFromArray(hu)
    image.SetSpacing((0.9, 0.9, 3.0))
    (tmp_path / "volumes").mkdir()
    sitk.WriteImage(image, str(tmp_path / "volumes/sts_002_image.nii.gz"))
    boxes = {"sts_002": {"lesions": [{"box": [1, 2, 3, 4, 5, 5]}]}}
    (tmp_path / "volumes/boxes.json").write_text(json.dumps(boxes))
    folder = tmp_path / "pyradiomics-3.0.1/data"
    folder.mkdir(parents=True)
    mask = np.zeros((6, 8, 10), np.uint8)
    mask[1:3, 2:6, 4:9] = 1
    sitk.WriteImage(image, str(folder / "lung2_image.nrrd"))
    sitk.WriteImage(sitk.GetImageFromArray(mask), str(folder / "lung2_label.nrrd"))
    pictures = tmp_path / "deeplesion/Images_png/000016_02_01"
    pictures.mkdir(parents=True)
    cv2.imwrite(str(pictures / "253.png"), np.full((12, 16), 32768 + 40, np.uint16))
    (tmp_path / "deeplesion/DL_info_images.csv").write_text(
        "File_name,Patient_index,Bounding_boxes,Spacing_mm_px_\n"
        '000016_02_01_253.png,16,"2, 3, 8, 9","0.8, 0.8, 5"\n000016_02_01_253.png,16,"9, 3, 12, 9","0.8, 0.8, 5"\n'
        '000017_01_01_001.png,17,"1, 1, 2, 2","0.8, 0.8, 5"\n'
    )
    return tmp_path


def test_boxes_are_those_of_the_file_with_far_edges_exclusive(data):
    case = find_case("sts_002", [data])
    np.testing.assert_allclose(case.volume.boxes_to_source(case.lesions), [[1, 2, 3, 5, 6, 6]])
    case = find_case("pyradiomics_lung2", [data])
    np.testing.assert_allclose(case.volume.boxes_to_source(case.lesions), [[4, 2, 1, 9, 6, 3]])


def test_what_is_not_there_is_none(data):
    missing = [name for names in SETS.values() for name in names if name not in ("sts_002", "pyradiomics_lung2")]
    assert len(missing) == 14
    assert all(find_case(name, [data]) is None for name in missing)


def test_the_sets_share_no_scan():
    assert not set(SETS["validation"]) & set(SETS["test"])
    assert len(SETS["test"]) == 12


def test_key_slices_with_all_their_lesions_in_hu(data):
    ((name, patient, volume, boxes),) = key_slices([data])
    assert (name, patient) == ("000016_02_01_253.png", "16")
    assert volume.shape == (1, 12, 16)
    assert (volume.array == 40).all()
    assert boxes.tolist() == [[1, 2, 8, 9], [8, 2, 12, 9]]  # from pixels counted from 1, the last one included


def test_sensitivity_by_each_rule():
    lesion = [[0, 0, 0, 10, 10, 10]]
    inside, beside = [2, 2, 2, 4, 4, 4], [8, 8, 8, 12, 12, 12]  # an eighth of the second lies in it, not its middle
    scans = [
        Found("a", "a", np.array([inside, beside], float), np.array([0.4, 0.9]), np.array(lesion, float)),
        Found("b", "b", np.array([[20, 20, 20, 22, 22, 22]], float), np.array([0.8]), np.array(lesion * 3, float)),
    ]
    strict, mean, centre = sensitivity_rows("test", scans, LENS_3D)
    assert (strict["scans"], strict["lesions"]) == (2, 4)
    assert strict["0.5 FPs"].startswith("0.00")  # one false positive per volume comes before the hit
    assert strict["1 FPs"].startswith("0.25")
    assert mean["1 FPs"] == "0.50"  # all of one scan's lesions, none of the other's
    assert centre["1 FPs"].startswith("0.25")
    assert first_hits(scans[0]) == [(2, 0.4)]
    assert first_hits(scans[1]) == [None] * 3


def test_the_default_threshold_counts_what_it_leaves():
    lesion = np.array([[0, 0, 0, 10, 10, 10.0]])
    boxes = np.array([[2, 2, 2, 4, 4, 4], [20, 20, 20, 22, 22, 22], [30, 30, 30, 32, 32, 32]], float)
    scans = [
        Found("a", "a", boxes, np.array([0.3, 0.8, 0.2]), lesion),
        Found("b", "b", boxes, np.array([0.29, 0.1, 0.1]), lesion),
    ]
    row = default_row("test", scans, 0.3)
    assert row["lesions found"] == "1 of 2"
    assert (row["findings"], row["false positives per volume"]) == (2, "0.50")
    assert default_row("test", scans, 0.9)["lesions found"] == "0 of 2"


def test_the_threshold_is_the_model_s_and_the_curve_has_what_scores_less(data):
    """Of a detector that finds two boxes, one of which its default hides."""

    class Model:
        settings = DetectionSettings(score_thr=0.4)

        def detect(self, volume):
            (box,) = volume.boxes_from_source(np.array([[1, 2, 3, 5, 6, 6.0]])).tolist()
            found = [Finding.from_canonical(volume, box, score, 3, box[:2] + box[3:5]) for score in (0.5, 0.1)]
            return [finding for finding in found if finding.score >= self.settings.score_thr]

    rows, (row,) = rows_of_sets(Model(), [data], ["test"])
    assert row == {
        "set": "test",
        "score threshold": "0.4",
        "findings": 1,
        "lesions found": "1 of 1",
        "false positives per volume": "0.00",
    }
    assert len(rows) == 3


def test_what_was_found_is_written_as_evaluate_reads_it(tmp_path):
    lesion = np.array([[0, 0, 0, 10, 10, 10.0]])
    found = [Found("a", "a", lesion / 2, np.array([0.4]), lesion), Found("b", "b", lesion[:0], np.zeros(0), lesion)]
    write_found(found, "validation", tmp_path)
    result = evaluate_files(tmp_path / "validation_detections.json", tmp_path / "validation_truth.json", "lens-3d")
    assert result["num_lesions"] == 2
    assert result["sensitivity"] == [0.5] * len(result["levels"])


def test_slices_have_one_rule():
    found = Found("a", "1", np.array([[0, 0, 10, 10.0]]), np.array([0.5]), np.array([[0, 0, 10, 12.0]]))
    (row,) = sensitivity_rows("slices", [found], DEEPLESION_2D)
    assert row["rule"] == "deeplesion-2d"
    assert row["0.5 FPs"].startswith("1.00")


@pytest.mark.parametrize(
    ("arguments", "message"), [(["no-such-folder", "--model", "x"], "no such folder"), (["."], "give either --model")]
)
def test_wrong_use_is_refused(arguments, message):
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "real_ct", *arguments], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert message in done.stderr
