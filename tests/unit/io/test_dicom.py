from __future__ import annotations

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.data import get_testdata_file

from mmpluld.io import read_volume

_ARRAY = np.random.default_rng(1).integers(-1000, 1500, (5, 4, 3)).astype(np.int16)
# Columns to the left, rows to posterior, slices to superior, as scanners store them.
_AFFINE = np.array([[0.7, 0, 0, -31.0], [0, 0.8, 0, 12.5], [0, 0, 2.5, 140.0], [0, 0, 0, 1.0]])
_CANONICAL = _ARRAY.transpose()[::-1]


def test_series_by_hand(tmp_path, write_dicom_series):
    write_dicom_series(tmp_path, _ARRAY, _AFFINE)
    volume = read_volume(tmp_path)
    np.testing.assert_array_equal(volume.array, _CANONICAL)
    assert volume.array.dtype == np.int16
    assert volume.source_axes == (1, 2, -3)
    assert volume.points_to_world_lps([0, 0, 0]).tolist() == pytest.approx([-31, 12.5, 145])
    assert volume.history == ("DICOM series of 3 slices",)


def test_agrees_with_the_series_reader_of_itk(tmp_path, write_dicom_series):
    files = write_dicom_series(tmp_path, _ARRAY, _AFFINE)
    image = sitk.ReadImage([str(file) for file in files])
    volume = read_volume(tmp_path)
    np.testing.assert_array_equal(volume.array[::-1], sitk.GetArrayFromImage(image))
    expected = image.TransformContinuousIndexToPhysicalPoint((1.5, 2.0, 0.25))
    np.testing.assert_allclose(volume.points_to_world_lps([1.5, 2.0, 1.75]), expected, atol=1e-9)


def test_one_of_two_series_can_be_chosen(tmp_path, write_dicom_series):
    write_dicom_series(tmp_path / "a", _ARRAY, _AFFINE, series="1.2.3")
    write_dicom_series(tmp_path / "b", _ARRAY[::-1], _AFFINE, series="1.2.4", intercept=-2048)
    np.testing.assert_array_equal(read_volume(tmp_path, series="1.2.4").array, _CANONICAL[:, :, ::-1])
    np.testing.assert_array_equal(read_volume(tmp_path, series="1.2.3").array, _CANONICAL)


def test_what_is_no_ct_image_is_skipped_and_recorded(tmp_path, write_dicom_series):
    write_dicom_series(tmp_path, _ARRAY, _AFFINE)
    write_dicom_series(tmp_path, _ARRAY, _AFFINE, series="1.9", prefix="PT", Modality="PT")
    scout = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    write_dicom_series(tmp_path, _ARRAY[:, :, :1], _AFFINE, series="1.8", prefix="SC", ImageType=scout)
    contours = pydicom.dcmread(tmp_path / "IM0000")
    contours.Modality = "RTSTRUCT"
    for tag in ("PixelData", "Rows", "Columns"):
        delattr(contours, tag)
    contours.save_as(tmp_path / "contours.dcm")
    (tmp_path / "notes.txt").write_text("follow-up")
    volume = read_volume(tmp_path)
    np.testing.assert_array_equal(volume.array, _CANONICAL)
    assert volume.history[1] == "skipped files that are not CT images: 3 PT, 1 RTSTRUCT, 1 localizer, 1 not DICOM"


def test_missing_modality_is_judged_by_the_storage_class(tmp_path, write_dicom_series):
    write_dicom_series(tmp_path, _ARRAY, _AFFINE, Modality="")
    np.testing.assert_array_equal(read_volume(tmp_path).array, _CANONICAL)


def test_rescale_may_differ_between_slices(tmp_path, write_dicom_series):
    files = write_dicom_series(tmp_path, _ARRAY, _AFFINE)
    header = pydicom.dcmread(files[1])
    header.RescaleSlope, header.RescaleIntercept = 2, -1000
    header.save_as(files[1])
    expected = _CANONICAL.copy()
    expected[1] = (expected[1] + 1024) * 2 - 1000
    np.testing.assert_array_equal(read_volume(tmp_path, units="hu").array, expected)


def test_fractional_rescale_gives_float32(tmp_path, write_dicom_series):
    write_dicom_series(tmp_path, _ARRAY, _AFFINE, RescaleSlope=0.5)
    volume = read_volume(tmp_path)
    assert volume.array.dtype == np.float32
    np.testing.assert_array_equal(volume.array, (_CANONICAL + 1024) * 0.5 - 1024)


def test_signed_and_unsigned_slices_mix(tmp_path, write_dicom_series):
    files = write_dicom_series(tmp_path, _ARRAY, _AFFINE)
    header = pydicom.dcmread(files[2])
    header.PixelRepresentation, header.RescaleIntercept = 1, 0
    header.PixelData = np.ascontiguousarray(_ARRAY[:, :, 2].T, dtype="<i2").tobytes()
    header.save_as(files[2])
    np.testing.assert_array_equal(read_volume(tmp_path).array, _CANONICAL)


@pytest.mark.parametrize("name", ["MR_small_RLE.dcm", "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm"])
def test_compressed_slices(tmp_path, name):
    volumes = []
    for file in (name, "MR_small.dcm"):  # pydicom's own test files: one image in several encodings
        dataset = pydicom.dcmread(get_testdata_file(file, download=False))
        dataset.Modality, dataset.RescaleSlope, dataset.RescaleIntercept = "CT", 1, -1024
        folder = tmp_path / file
        folder.mkdir()
        dataset.save_as(folder / "slice")
        volumes.append(read_volume(folder))
    assert volumes[0].array.dtype == np.int16
    assert volumes[0].array.min() == -897
    np.testing.assert_array_equal(volumes[0].array, volumes[1].array)


def test_gantry_tilt_shears_the_affine(tmp_path, write_dicom_series):
    files = write_dicom_series(tmp_path, _ARRAY, _AFFINE)
    for k, file in enumerate(files):
        header = pydicom.dcmread(file)
        header.ImagePositionPatient = [-31.0, 12.5 + 0.4 * k, 140 + 2.5 * k]
        header.save_as(file)
    volume = read_volume(tmp_path)
    np.testing.assert_array_equal(volume.array, _CANONICAL)
    np.testing.assert_allclose(volume.points_to_world_lps([0, 0, 0]), [-31, 13.3, 145])
    np.testing.assert_allclose(volume.affine_lps[:3, 2], [0, -0.4, -2.5])
    assert (
        volume.history[-1]
        == "oblique: the scan's axes are up to 9.1 degrees off the patient's; boxes follow the scan's axes"
    )


def test_positions_rounded_to_a_tenth_of_a_millimetre(tmp_path, write_dicom_series):
    array = np.repeat(_ARRAY[:, :, :1], 20, axis=2)
    affine = _AFFINE.copy()
    affine[2, 2] = 0.625
    files = write_dicom_series(tmp_path, array, affine)
    for k, file in enumerate(files):
        header = pydicom.dcmread(file)
        header.ImagePositionPatient = [-31.0, 12.5, round(140 + 0.625 * k, 1)]
        header.save_as(file)
    assert read_volume(tmp_path).spacing_mm[0] == pytest.approx(0.625, abs=0.01)


def test_single_slice_uses_its_thickness(tmp_path, write_dicom_series):
    write_dicom_series(tmp_path, _ARRAY[:, :, :1], _AFFINE)
    volume = read_volume(tmp_path)
    assert volume.shape == (1, 4, 5)
    assert volume.spacing_mm == pytest.approx((2.5, 0.8, 0.7))
