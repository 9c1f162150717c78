"""Every format puts findings at the same place of the world, however the scan's file stores its axes."""

from __future__ import annotations

import csv
import json
from itertools import product

import highdicom as hd
import nibabel
import numpy as np
import pydicom
import pytest

from mmpluld.io.dicom import read_dicom_folder
from mmpluld.io.findings.coco import write_coco
from mmpluld.io.findings.dicom_seg import write_seg
from mmpluld.io.findings.dicom_sr import write_sr
from mmpluld.io.findings.label_map import write_label_maps
from mmpluld.io.findings.luna16 import write_luna16
from mmpluld.io.findings.markups import write_markups
from mmpluld.io.findings.rtstruct import write_rtstruct
from mmpluld.structures import CTVolume

from .conftest import BOXES, GEOMETRIES, findings_of, stored

STRAIGHT = list(enumerate(GEOMETRIES[:48]))
# Only slices may be shifted in DICOM, so a tilt is one between the axes of rows or columns and of slices.
DICOM = [
    *(
        pytest.param(*item.values, id=item.id, marks=[pytest.mark.slow] if index % 3 else [])
        for index, item in STRAIGHT
    ),
    *(item for item in GEOMETRIES[48:] if not item.values[3] or item.values[0][2] == 2),
]


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

    write_markups(tmp_path / "findings.mrk.json", found)
    for region, corners in zip(json.loads((tmp_path / "findings.mrk.json").read_text())["markups"], truth, strict=True):
        axes = np.array(region["orientation"]).reshape(3, 3)
        np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-9)
        assert np.linalg.det(axes) == pytest.approx(1)
        inside = (corners - region["center"]) @ axes  # along the ROI's own axes
        np.testing.assert_allclose(np.abs(inside).max(axis=0), np.array(region["size"]) / 2, atol=1e-5)
        if not shear_mm:  # the box itself, not only what encloses it
            np.testing.assert_allclose(np.abs(inside), np.tile(np.array(region["size"]) / 2, (8, 1)), atol=1e-5)
        assert ("tilted" in region["controlPoints"][0]["description"]) == bool(shear_mm)

    write_coco(tmp_path / "coco.json", found)
    record = json.loads((tmp_path / "coco.json").read_text())
    slices = {image["id"]: image for image in record["images"]}
    for item, finding in zip(record["annotations"], found, strict=True):
        image = slices[item["image_id"]]
        assert (image["file_axis"], image["file_slice"]) == (finding.source_axis, finding.key_slice_source)
        middle = [item["bbox"][0] + item["bbox"][2] / 2, item["bbox"][1] + item["bbox"][3] / 2, image["slice"] + 0.5]
        x1, y1, x2, y2 = finding.key_box
        key = in_world(volume, (x1, y1, finding.key_slice, x2, y2, finding.key_slice + 1)).mean(axis=0)
        np.testing.assert_allclose((np.array(record["info"]["affine_lps"]) @ [*np.array(middle) - 0.5, 1])[:3], key)

    write_label_maps(tmp_path / "boxes.nii.gz", found)
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


@pytest.mark.parametrize(("order", "signs", "turn", "shear_mm"), DICOM)
def test_places_in_dicom(order, signs, turn, shear_mm, tmp_path, in_world, write_dicom_series):
    shape, affine = stored(order, signs, turn, shear_mm)
    write_dicom_series(tmp_path / "in", np.zeros(shape, int), affine, StudyInstanceUID="1.4", FrameOfReferenceUID="1.5")
    volume = read_dicom_folder(tmp_path / "in", units="hu")
    found = findings_of(volume)
    images = {item.SOPInstanceUID: item for item in map(pydicom.dcmread, (tmp_path / "in").iterdir())}
    for write in (write_sr, write_seg, write_rtstruct):
        write(tmp_path / "out.dcm", found, False)
        places = {"write_sr": in_report, "write_seg": in_segmentation, "write_rtstruct": in_structures}[write.__name__]
        for finding, points in zip(found, places(tmp_path / "out.dcm", images), strict=True):
            expected = voxels_of(finding, volume) if write is write_seg else outline_of(finding, volume)
            assert points.shape == expected.shape
            np.testing.assert_allclose(sorted(points.round(2).tolist()), sorted(expected.round(2).tolist()), atol=0.011)


def in_report(path, images):
    """Corners of the regions of each group, LPS mm."""
    report = hd.sr.srread(path)
    for group in report.content.get_volumetric_roi_measurement_groups():
        places = []
        for region in group.roi:
            image = images[region.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID]
            assert region.value[0].tolist() == region.value[-1].tolist()
            places.append(to_world(image, region.value[:-1] - 0.5))
        yield np.concatenate(places)


def in_segmentation(path, images):
    """Voxel centres of each segment, LPS mm."""
    segmentation = hd.seg.segread(path)
    for number in segmentation.segment_numbers:
        places = [np.empty((0, 3))]
        for index, frame in enumerate(segmentation.PerFrameFunctionalGroupsSequence):
            if frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber == number:
                source = frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
                position = frame.PlanePositionSequence[0].ImagePositionPatient
                np.testing.assert_allclose(position, images[source].ImagePositionPatient, atol=1e-4)
                rows, columns = np.nonzero(segmentation.get_stored_frame(index + 1))
                places.append(to_world(images[source], np.column_stack([columns, rows])))
        yield np.concatenate(places)


def in_structures(path, images):
    """Corners of the contours of each structure, LPS mm."""
    for structure in pydicom.dcmread(path).ROIContourSequence:
        yield np.concatenate([np.array(item.ContourData, float).reshape(-1, 3) for item in structure.ContourSequence])


def to_world(image, columns_rows):
    """Centres of pixels, as the image's own header places them."""
    row_mm, column_mm = image.PixelSpacing
    directions = np.array(image.ImageOrientationPatient, float).reshape(2, 3) * [[column_mm], [row_mm]]
    return np.asarray(columns_rows) @ directions + np.array(image.ImagePositionPatient, float)


def outline_of(finding, volume):
    """Corners of a box on each file slice whose centre it covers, from its file voxels."""
    i1, j1, k1, i2, j2, k2 = finding.box_source
    slices = [k for k in range(volume.source_shape[2]) if k1 <= k + 0.5 < k2] or [int((k1 + k2) / 2)]
    corners = [(i, j, k) for k in slices for i in (i1 - 0.5, i2 - 0.5) for j in (j1 - 0.5, j2 - 0.5)]
    affine = volume.source_affine_lps
    return np.array(corners) @ affine[:3, :3].T + affine[:3, 3]


def voxels_of(finding, volume):
    """Centres of the voxels that are seen of a finding: mask, else box without what the mask hides."""
    depth, rows, columns = volume.shape
    hidden = {(3, 3, 3), (4, 3, 3), (2, 4, 3), (3, 4, 3)}
    if finding.mask is not None:
        return volume.points_to_world_lps(sorted(hidden))
    x1, y1, z1, x2, y2, z2 = finding.box_canonical
    ranges = [
        [n for n in range(size) if low <= n + 0.5 < high] or [int((low + high) / 2)]
        for low, high, size in ((x1, x2, columns), (y1, y2, rows), (z1, z2, depth))
    ]
    return volume.points_to_world_lps([point for point in product(*ranges) if point not in hidden])


def near_box(volume, places, box):
    """Whether voxel centres lie in a box, or in the voxel that a smaller box is in."""
    points = volume.points_from_world_lps(places) + 0.5
    low, high = np.floor(box[:3]), np.ceil(box[3:])
    return bool((points > low).all() and (points < high).all())
