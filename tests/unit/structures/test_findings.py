from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mmpluld.errors import InputError
from mmpluld.structures import CTVolume, DetectionSet, Finding, findings_to_detections


@pytest.fixture
def volume() -> CTVolume:
    """File axes: i to Posterior, j to Superior, k to Right; 10 x 20 x 30 voxels of 1 x 2 x 3 mm."""
    affine = np.array([[0, 0, -3, 0], [1, 0, 0, 0], [0, 2, 0, 0], [0, 0, 0, 1.0]])
    return CTVolume.from_file_array(np.zeros((10, 20, 30), np.int16), affine, "scan.mhd")


def test_finding_by_hand(volume):
    finding = Finding.from_canonical(volume, (0, 1, 2, 4, 6, 5), 0.75, key_slice=3, key_box=(0, 1, 4, 6))
    # x runs against k (30 voxels), y along i, z against j (20 voxels).
    assert finding.box_source == (1, 15, 26, 6, 18, 30)
    assert (finding.source_axis, finding.key_slice_source) == (1, 16)
    # Voxel k covers world x from -3k - 1.5 to -3k + 1.5; i covers y i - 0.5 to i + 0.5; j covers z 2j - 1 to 2j + 1.
    assert finding.box_world_lps == pytest.approx((-88.5, 0.5, 29, -76.5, 5.5, 35))
    assert finding.key_box == (0, 1, 4, 6)


def test_record_of_findings(volume, tmp_path):
    findings = [
        Finding.from_canonical(volume, (0, 1, 2, 4, 6, 5), 0.75, 3, (0, 1, 4, 6)),
        Finding.from_canonical(volume, (8, 1, 2, 9, 2, 3), 0.5, 2, (8, 1, 9, 2)),
    ]
    DetectionSet({"scan": findings_to_detections(findings, volume)}).save(tmp_path / "d.json")
    record = DetectionSet.load(tmp_path / "d.json").volumes["scan"]
    np.testing.assert_array_equal(volume.boxes_from_source(record.boxes), [f.box_canonical for f in findings])
    assert record.scores.tolist() == [0.75, 0.5]
    assert record.key_slices.tolist() == [16, 17]
    assert record.slice_axis == 1
    assert record.spacing_mm == pytest.approx((2, 1, 3))
    assert record.source == "scan.mhd"
    assert (record.frame, record.shape) == ("file-voxels", (10, 20, 30))
    np.testing.assert_array_equal(record.affine_lps, [[0, 0, -3, 0], [1, 0, 0, 0], [0, 2, 0, 0], [0, 0, 0, 1]])


def test_record_has_tags_where_there_are_some(volume):
    plain = Finding.from_canonical(volume, (0, 0, 0, 1, 1, 1), 0.5, 0, (0, 0, 1, 1))
    assert findings_to_detections([plain], volume).tags is None
    tagged = replace(plain, tags=(("liver", 0.75), ("mass", 0.5)))
    assert findings_to_detections([tagged, plain], volume).tags == ({"liver": 0.75, "mass": 0.5}, {})


def test_no_findings(volume):
    record = findings_to_detections([], volume)
    assert record.boxes.shape == record.world_lps.shape == (0, 6)
    assert record.scores.shape == record.key_slices.shape == (0,)


def test_faulty_box_is_refused(volume):
    with pytest.raises(InputError, match="far edge"):
        Finding.from_canonical(volume, (4, 1, 2, 0, 6, 5), 0.75, 3, (0, 1, 4, 6))
