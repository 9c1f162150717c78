"""Every format puts findings at the same place of the world, however the scan's file stores its axes."""

from __future__ import annotations

import csv
import json

import nibabel
import numpy as np
import pytest

from mmpluld.io.findings.coco import write_coco
from mmpluld.io.findings.label_map import write_label_maps
from mmpluld.io.findings.luna16 import write_luna16
from mmpluld.io.findings.markups import write_markups
from mmpluld.structures import CTVolume

from .conftest import BOXES, GEOMETRIES, findings_of, stored


def hull(points):
    return np.concatenate([points.min(axis=0), points.max(axis=0)])


@pytest.mark.parametrize(("order", "signs", "turn", "shear_mm"), GEOMETRIES)
def test_places(order, signs, turn, shear_mm, tmp_path, in_world):
    shape, affine = stored(order, signs, turn, shear_mm)
    volume = CTVolume.from_file_array(np.zeros(shape, np.int16), affine, "scan")
    found = findings_of(volume)
    truth = [in_world(volume, box) for box in BOXES]
    for finding, corners in zip(found, truth, strict=True):
        np.testing.assert_allclose(finding.box_world_lps, hull(corners), atol=1e-9)

    write_luna16(tmp_path / "luna16.csv", found, False)
    with (tmp_path / "luna16.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    centres = [[float(row[f"coord{axis}"]) for axis in "XYZ"] for row in rows]
    np.testing.assert_allclose(centres, [corners.mean(axis=0) for corners in truth], atol=1e-4)

    write_markups(tmp_path / "findings.mrk.json", found, False)
    for region, corners in zip(json.loads((tmp_path / "findings.mrk.json").read_text())["markups"], truth, strict=True):
        axes = np.array(region["orientation"]).reshape(3, 3)
        np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-9)
        assert np.linalg.det(axes) == pytest.approx(1)
        inside = (corners - region["center"]) @ axes  # along the ROI's own axes
        np.testing.assert_allclose(np.abs(inside).max(axis=0), np.array(region["size"]) / 2, atol=1e-5)
        if not shear_mm:  # the box itself, not only what encloses it
            np.testing.assert_allclose(np.abs(inside), np.tile(np.array(region["size"]) / 2, (8, 1)), atol=1e-5)
        assert ("tilted" in region["controlPoints"][0]["description"]) == bool(shear_mm)

    write_coco(tmp_path / "coco.json", found, False)
    record = json.loads((tmp_path / "coco.json").read_text())
    slices = {image["id"]: image for image in record["images"]}
    for item, finding in zip(record["annotations"], found, strict=True):
        image = slices[item["image_id"]]
        assert (image["file_axis"], image["file_slice"]) == (finding.source_axis, finding.key_slice_source)
        middle = [item["bbox"][0] + item["bbox"][2] / 2, item["bbox"][1] + item["bbox"][3] / 2, image["slice"] + 0.5]
        x1, y1, x2, y2 = finding.key_box
        key = in_world(volume, (x1, y1, finding.key_slice, x2, y2, finding.key_slice + 1)).mean(axis=0)
        np.testing.assert_allclose((np.array(record["info"]["affine_lps"]) @ [*np.array(middle) - 0.5, 1])[:3], key)

    write_label_maps(tmp_path / "boxes.nii.gz", found, False)
    for name in ("boxes", "masks"):
        image = nibabel.load(tmp_path / f"{name}.nii.gz")
        assert image.shape == shape
        np.testing.assert_allclose(np.diag([-1, -1, 1, 1]) @ image.affine, affine, atol=1e-4)
        assert int(image.header["qform_code"]) == (0 if shear_mm else 1)
        labels = np.asarray(image.dataobj)
        assert set(np.unique(labels)) == ({0, 1, 2, 3} if name == "boxes" else {0, 1})
        for rank in set(np.unique(labels)) - {0}:
            places = np.argwhere(labels == rank) @ affine[:3, :3].T + affine[:3, 3]
            assert near_box(volume, places, BOXES[rank - 1])
    masks = np.argwhere(labels == 1) @ affine[:3, :3].T + affine[:3, 3]
    expected = volume.points_to_world_lps([[3, 3, 3], [4, 3, 3], [2, 4, 3], [3, 4, 3]])
    np.testing.assert_allclose(sorted(masks.tolist()), sorted(expected.tolist()), atol=1e-9)


def near_box(volume, places, box):
    """Whether voxel centres lie in a box, or in the voxel that a smaller box is in."""
    points = volume.points_from_world_lps(places) + 0.5
    low, high = np.floor(box[:3]), np.ceil(box[3:])
    return bool((points > low).all() and (points < high).all())
