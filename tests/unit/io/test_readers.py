from __future__ import annotations

import itertools
import json

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from mmpluld.errors import InputError
from mmpluld.io import read_volume, volume_from_nibabel, volume_from_sitk
from mmpluld.io.readers import odd_slices
from mmpluld.structures import inclusive_to_edges

_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_ORIENTATIONS = [
    (order, signs) for order in itertools.permutations(range(3)) for signs in itertools.product((1, -1), repeat=3)
]

# The truth in canonical axes: x to the left, y to posterior, z to inferior; nothing about it is symmetric.
_CANONICAL = np.random.default_rng(0).integers(-1000, 1500, (3, 4, 5)).astype(np.int16)
_AFFINE = np.array([[0.7, 0, 0, -31.0], [0, 0.8, 0, 12.5], [0, 0, -2.5, 140.0], [0, 0, 0, 1.0]])
_BOXES = np.array([[1, 0, 0, 3, 4, 2], [0, 2, 1, 5, 3, 3]], dtype=np.float64)
# By hand: the first voxel's near corner is at (-31 - 0.35, 12.5 - 0.4, 140 + 1.25).
_WORLD = np.array([[-30.65, 12.1, 136.25, -29.25, 15.3, 141.25], [-31.35, 13.7, 133.75, -27.85, 14.5, 138.75]])


def _stored(order, signs, affine=_AFFINE):
    """Return the truth as a file holds it whose axes run along canonical axes ``order`` in direction ``signs``."""
    array = _CANONICAL.transpose(2, 1, 0).transpose(order)
    array = array[tuple(slice(None, None, sign) for sign in signs)]
    stored = np.eye(4)
    for axis, (canonical, sign) in enumerate(zip(order, signs, strict=True)):
        stored[:3, axis] = sign * affine[:3, canonical]
    corner = [
        0 if sign > 0 else _CANONICAL.transpose(2, 1, 0).shape[axis] - 1
        for axis, sign in zip(order, signs, strict=True)
    ]
    first = np.zeros(4)
    first[list(order)] = corner
    first[3] = 1
    stored[:3, 3] = (affine @ first)[:3]
    return np.ascontiguousarray(array), stored


def _write_nifti(path, array, affine):
    nib.save(nib.Nifti1Image(array, _RAS_TO_LPS @ affine), path)


def _write_itk(path, array, affine):
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.transpose()))
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
    sitk.WriteImage(image, str(path))


@pytest.fixture(params=["scan.nii", "scan.nii.gz", "scan.mhd", "scan.nrrd", "dicom"])
def write_scan(request, tmp_path, write_dicom_series):
    """Function (array_ijk, affine_lps) -> path of a scan in one of the formats."""
    path = tmp_path / request.param
    writers = {".nii": _write_nifti, ".gz": _write_nifti, "": write_dicom_series}

    def write(array, affine):
        writers.get(path.suffix, _write_itk)(path, array, affine)
        return path

    return write


def _assert_image_gives(volume, path):
    """The same volume from the file's image, where a library has such."""
    images = []
    if path.suffix in (".nii", ".gz"):
        image = nib.load(path)
        images.append(volume_from_nibabel(image))
        images.append(
            volume_from_nibabel(nib.Nifti1Image(np.asanyarray(image.dataobj), image.affine), source=str(path))
        )
    elif path.suffix:
        images.append(volume_from_sitk(sitk.ReadImage(str(path)), source=str(path)))
    for other in images:
        np.testing.assert_array_equal(other.array, volume.array)
        np.testing.assert_allclose(other.affine_lps, volume.affine_lps, atol=1e-5)
        assert other.array.dtype == volume.array.dtype
        assert (other.source_axes, other.source_shape) == (volume.source_axes, volume.source_shape)
        assert (other.source, other.history) == (volume.source, volume.history)


@pytest.mark.parametrize(("order", "signs"), _ORIENTATIONS)
def test_every_orientation_gives_the_same_volume_and_world(write_scan, order, signs):
    array, affine = _stored(order, signs)
    path = write_scan(array, affine)
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.array, _CANONICAL)
    assert volume.array.dtype == np.int16
    np.testing.assert_allclose(volume.boxes_to_world_lps(_BOXES), _WORLD, atol=1e-5)
    assert volume.spacing_mm == pytest.approx((2.5, 0.8, 0.7))
    assert volume.source == str(path)
    _assert_image_gives(volume, path)

    in_file = volume.boxes_to_source(_BOXES)
    np.testing.assert_array_equal(volume.boxes_from_source(in_file), _BOXES)
    if path.is_dir() and np.linalg.det(affine) < 0:
        array = array[:, :, ::-1]  # DICOM slices are ordered along their normal
    for box, (i1, j1, k1, i2, j2, k2) in zip(_BOXES.astype(int), in_file.astype(int), strict=True):
        x1, y1, z1, x2, y2, z2 = box
        assert sorted(array[i1:i2, j1:j2, k1:k2].ravel()) == sorted(_CANONICAL[z1:z2, y1:y2, x1:x2].ravel())
    axis, index = volume.slice_to_source(1)
    np.testing.assert_array_equal(np.sort(array.take(index, axis).ravel()), np.sort(_CANONICAL[1].ravel()))


def _turned(degrees):
    """The truth's affine, turned about the direction (1, 2, 3)."""
    x, y, z = np.array([1, 2, 3]) / np.sqrt(14)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.radians(degrees)
    affine = _AFFINE.copy()
    affine[:3, :3] = (np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross) @ _AFFINE[:3, :3]
    return affine


@pytest.mark.parametrize(("order", "signs"), _ORIENTATIONS[::7])
def test_oblique_scan(write_scan, tmp_path, order, signs):
    array, affine = _stored(order, signs, _turned(15))
    path = write_scan(array, affine)
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.array, _CANONICAL)
    _assert_image_gives(volume, path)
    assert any(note.startswith("oblique: ") for note in volume.history)

    _write_itk(tmp_path / "witness.mha", array, affine)
    witness = sitk.ReadImage(str(tmp_path / "witness.mha"))
    for point in ([0.0, 0.0, 0.0], [4.0, 0.5, 2.0], [1.25, 3.0, 0.1]):
        index = [
            point[canonical] if sign > 0 else size - 1 - point[canonical]
            for canonical, sign, size in zip(order, signs, array.shape, strict=True)
        ]
        expected = witness.TransformContinuousIndexToPhysicalPoint(index)
        np.testing.assert_allclose(volume.points_to_world_lps(point), expected, atol=1e-5)


def test_straight_scan_has_no_remark(tmp_path):
    _write_itk(tmp_path / "scan.mha", *_stored((0, 1, 2), (1, 1, 1)))
    assert read_volume(tmp_path / "scan.mha").history == ()


def test_lost_and_repeated_slices_are_noted(tmp_path):
    array = np.random.default_rng(0).normal(-100, 60, (20, 20, 7)).round().astype(np.int16)
    array[:5] -= 900
    array[:, :, [1, 2]] = -1000
    array[:, :, 5] = array[:, :, 4]
    _write_nifti(tmp_path / "ct.nii", array, np.diag([1, 1, 3, 1.0]))
    assert odd_slices(read_volume(tmp_path / "ct.nii")) == [
        "2 slices of 7 with one value throughout (k 2, k 1): lost, made up, or padding?",
        "1 slice of 7 equal to the slice before (k 4): lost, made up, or padding?",
    ]


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (np.float64([-1000.0, 40.0]), np.int16),
        (np.float32([-1000.5, 40.0]), np.float32),
        (np.int32([-1000, 40]), np.int16),
        (np.int32([-1000, 70000]), np.float32),
        (np.array([-1000, 40], dtype=">i2"), np.int16),
    ],
)
@pytest.mark.parametrize("name", ["scan.nii", "scan.nrrd"])
def test_whole_numbers_become_int16(tmp_path, values, dtype, name):
    array = np.resize(values, (2, 3, 4)).astype(values.dtype)
    if name.endswith("nii"):
        _write_nifti(tmp_path / name, array, _AFFINE)
    else:
        _write_itk(tmp_path / name, array.astype(array.dtype.newbyteorder("=")), _AFFINE)
    volume = read_volume(tmp_path / name, units="hu")
    assert volume.array.dtype == dtype
    assert sorted(np.unique(volume.array)) == sorted(values)


@pytest.mark.parametrize(
    ("slope", "intercept", "stored", "hu", "dtype"),
    [(1, -1024, [0, 1064], [-1024, 40], np.int16), (0.5, -1000, [0, 2081], [-1000, 40.5], np.float32)],
)
def test_nifti_scaling(tmp_path, slope, intercept, stored, hu, dtype):
    image = nib.Nifti1Image(np.resize(np.int16(stored), (2, 3, 4)), np.eye(4))
    image.header.set_slope_inter(slope, intercept)
    nib.save(image, tmp_path / "scan.nii")
    raw = bytearray((tmp_path / "scan.nii").read_bytes())
    raw[112:120] = np.float32([slope, intercept]).tobytes()  # nibabel resets both on writing
    raw[352:] = np.resize(np.int16(stored), 24).tobytes()
    (tmp_path / "scan.nii").write_bytes(raw)
    volume = read_volume(tmp_path / "scan.nii", units="hu")
    assert volume.array.dtype == dtype
    assert np.unique(volume.array).tolist() == hu
    same = volume_from_nibabel(nib.load(tmp_path / "scan.nii"), units="hu")
    np.testing.assert_array_equal(same.array, volume.array, strict=True)


def test_nifti_units_and_missing_orientation(tmp_path):
    image = nib.Nifti1Image(_CANONICAL, None)
    image.header.set_zooms((700, 800, 2500))
    image.header.set_xyzt_units("micron")
    nib.save(image, tmp_path / "scan.nii")
    volume = read_volume(tmp_path / "scan.nii")
    assert volume.spacing_mm == pytest.approx((2.5, 0.8, 0.7))
    assert [note.split(" ")[0] for note in volume.history] == ["no", "lengths"]


def test_nifti_sform_goes_before_qform(tmp_path):
    image = nib.Nifti1Image(_CANONICAL, np.eye(4))
    image.set_sform(np.diag([2.0, 3.0, 4.0, 1.0]), code=2)
    image.set_qform(np.diag([1.0, 1.0, 1.0, 1.0]), code=1)
    nib.save(image, tmp_path / "scan.nii")
    assert read_volume(tmp_path / "scan.nii").spacing_mm == (4.0, 3.0, 2.0)


@pytest.mark.parametrize("name", ["scan.nii.gz", "scan.mha", "scan.nrrd"])
def test_trailing_axis_of_one_is_dropped(tmp_path, name):
    array, affine = _stored((0, 1, 2), (1, 1, 1))
    if name.endswith(".gz"):
        _write_nifti(tmp_path / name, array[..., None], affine)
    else:
        image = sitk.JoinSeries([sitk.GetImageFromArray(np.ascontiguousarray(array.transpose()))])
        image.SetSpacing((0.7, 0.8, 2.5, 1))
        image.SetDirection(np.diag([1.0, 1.0, -1.0, 1.0]).ravel().tolist())
        sitk.WriteImage(image, str(tmp_path / name))
    volume = read_volume(tmp_path / name)
    np.testing.assert_array_equal(volume.array, _CANONICAL)
    assert volume.source_shape == (5, 4, 3)


def test_label_mask_needs_no_hounsfield_units(tmp_path):
    mask = (_CANONICAL > 0).astype(np.uint8)
    _write_nifti(tmp_path / "mask.nii.gz", mask.transpose(), _AFFINE)
    np.testing.assert_array_equal(read_volume(tmp_path / "mask.nii.gz", labels=True).array, mask)
    with pytest.raises(InputError, match="looks like a label mask"):
        read_volume(tmp_path / "mask.nii.gz")


@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz", "scan.mha", "scan.nrrd"])
def test_suffix_is_read_in_any_case(tmp_path, name):
    write = _write_nifti if "nii" in name else _write_itk
    write(tmp_path / name, *_stored((0, 1, 2), (1, 1, 1)))
    (tmp_path / name).rename(tmp_path / name.upper())
    np.testing.assert_array_equal(read_volume(tmp_path / name.upper()).array, _CANONICAL)


def test_images_stay_as_they_are():
    array, affine = _stored((0, 1, 2), (1, 1, 1))
    array[0, 0, 0] = -2000  # padding, which volumes are without
    volume = volume_from_nibabel(nib.Nifti1Image(array, _RAS_TO_LPS @ affine))
    assert (volume.source, volume.array.min(), array.min()) == ("memory", -1024, -2000)
    array[:] = 0
    np.testing.assert_array_equal(volume.array[1:], _CANONICAL[1:])


@pytest.mark.parametrize(
    ("convert", "image", "message"),
    [
        (volume_from_nibabel, nib.MGHImage(np.zeros((2, 3, 4), np.int16), np.eye(4)), "the image is a MGHImage"),
        (volume_from_nibabel, "scan.nii", "the image is a str; needed is one of nibabel for NIfTI"),
        (
            volume_from_nibabel,
            nib.Nifti1Image(np.zeros((2, 3, 4, 2), np.int16), np.eye(4)),
            "memory: image size is 2 x",
        ),
        (
            volume_from_nibabel,
            nib.Nifti1Image(np.full((2, 3, 4), np.nan, np.float32), np.eye(4)),
            "24 of 24 voxels are",
        ),
        (volume_from_sitk, "scan.mha", "the image is a str; needed is one of SimpleITK"),
        (volume_from_sitk, sitk.Image([4, 3, 2], sitk.sitkVectorInt16), "memory: voxels have 3 components"),
        (volume_from_sitk, sitk.Image([4, 3, 2], sitk.sitkInt16), "memory: values are not HU"),
    ],
)
def test_images_that_are_no_scan(convert, image, message):
    with pytest.raises(InputError, match=message):
        convert(image)


def test_volume_outlives_its_file(tmp_path):
    _write_nifti(tmp_path / "scan.nii", *_stored((0, 1, 2), (1, 1, 1)))
    volume = read_volume(tmp_path / "scan.nii")
    (tmp_path / "scan.nii").write_bytes(b"")
    np.testing.assert_array_equal(volume.array, _CANONICAL)


@pytest.mark.parametrize("case", ["nsclc_lung1_001", "sts_002", "sts_025", "sts_042"])
def test_real_scan_and_mask(real_data, case):
    volumes = real_data / "volumes"
    record = json.loads((volumes / "boxes.json").read_text())[case]
    scan = read_volume(real_data / record["image"])
    mask = read_volume(real_data / record["mask"], labels=True)
    assert scan.source_shape == tuple(record["size_xyz"])
    assert (float(scan.array.min()), float(scan.array.max())) == (record["hu_min"], record["hu_max"])
    assert scan.shape == mask.shape
    np.testing.assert_allclose(scan.affine_lps, mask.affine_lps, atol=1e-4)
    inside = np.argwhere(mask.array)[:, ::-1]
    box = np.concatenate([inside.min(axis=0), inside.max(axis=0) + 1])[None]
    lesions = inclusive_to_edges([lesion["box"] for lesion in record["lesions"]])
    hull = np.concatenate([lesions[:, :3].min(axis=0), lesions[:, 3:].max(axis=0)])
    np.testing.assert_array_equal(scan.boxes_to_source(box)[0], hull)
