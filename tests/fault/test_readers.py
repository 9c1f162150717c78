"""Damaged and unsuitable scans: each gives one line that names file, value and next step, and nothing else."""

from __future__ import annotations

import re
import shutil

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from mmpluld.errors import InputError
from mmpluld.io import read_volume, write_volume
from mmpluld.structures import CTVolume

_ARRAY = np.random.default_rng(3).integers(-1000, 1500, (16, 18, 20)).astype(np.int16)
_VOLUME = CTVolume.from_canonical(_ARRAY, (2.5, 0.8, 0.7))
_AFFINE = np.diag([0.7, 0.8, 2.5, 1.0])


def _refused(capfd, path, message, **options):
    """Reading ``path`` raises one line that starts with ``path`` and matches, and writes nothing to the terminal."""
    with pytest.raises(InputError, match=message) as caught:
        read_volume(path, **options)
    text = str(caught.value)
    assert text.startswith(str(path))
    assert "\n" not in text
    assert not re.search("0x[0-9a-f]{6}", text)
    assert capfd.readouterr() == ("", "")


def test_missing_file(tmp_path, capfd):
    _refused(capfd, tmp_path / "scan.nii", r"no such file or folder; give a CT scan \(.nii.gz, .*DICOM folder\)")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("scan.jpg", "for DICOM give the folder"),
        ("scan", "for DICOM give the folder"),
        ("scan.nrd", "did you mean '.nrrd'"),
        ("scan.gz", "did you mean '.nii.gz'"),
    ],
)
def test_unknown_suffix(tmp_path, capfd, name, hint):
    (tmp_path / name).write_bytes(b"")
    _refused(
        capfd, tmp_path / name, rf"unknown file type .*allowed are .nii.gz, .nii, .mha, .mhd, .nrrd, .nhdr; {hint}"
    )


@pytest.mark.parametrize("name", ["patient.tar.gz", "patient.TGZ", "patient.7z"])
def test_archive_that_is_no_zip(tmp_path, capfd, name):
    (tmp_path / name).write_bytes(b"")
    _refused(capfd, tmp_path / name, "is an archive; unpack it and give the folder")


@pytest.mark.parametrize(
    ("kind", "stored", "names"),
    [
        ("NIfTI", ".nii.gz", [".mha", ".mhd", ".nrrd", ".nhdr"]),
        ("NIfTI", ".nii", [".mha", ".nrrd"]),
        ("NRRD", ".nrrd", [".mha", ".nii", ".nii.gz"]),
        ("MetaImage", ".mha", [".nrrd", ".nii", ".nii.gz"]),
    ],
)
def test_wrong_suffix(tmp_path, capfd, kind, stored, names):
    write_volume(_VOLUME, tmp_path / f"right{stored}")
    for suffix in names:
        path = (tmp_path / f"right{stored}").rename(tmp_path / f"scan{suffix}")
        _refused(capfd, path, rf"is a {kind} file by its first bytes, not {suffix}; rename it to end in {stored}$")
        path.rename(tmp_path / f"right{stored}")


def test_dicom_file_named_otherwise(tmp_path, capfd):
    (tmp_path / "scan.nii").write_bytes(bytes(128) + b"DICM" + bytes(500))
    _refused(capfd, tmp_path / "scan.nii", "is a DICOM file by its first bytes, not .nii; give the folder")


def test_series_of_a_file(tmp_path, capfd):
    write_volume(_VOLUME, tmp_path / "scan.nii")
    _refused(capfd, tmp_path / "scan.nii", "leave the series out", series="1.2")


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".mha", ".mhd", ".nrrd", ".nhdr"])
@pytest.mark.parametrize("part", [0, 0.01, 0.3, 0.99])
def test_truncated_file(tmp_path, capfd, suffix, part):
    path = tmp_path / f"scan{suffix}"
    write_volume(_VOLUME, path)
    voxels = tmp_path / "scan.raw" if suffix in (".mhd", ".nhdr") else path
    content = voxels.read_bytes()
    voxels.write_bytes(content[: int(part * len(content))])
    _refused(capfd, path, "it is damaged or cut off, (copy or export it again|give the whole scan)")


@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
def test_truncated_compressed_file(tmp_path, capfd, suffix):
    path = tmp_path / f"scan{suffix}"
    sitk.WriteImage(sitk.GetImageFromArray(_ARRAY), str(path), useCompression=True)
    path.write_bytes(path.read_bytes()[:-2000])
    _refused(capfd, path, "it is damaged or cut off")


def test_header_without_its_voxel_file(tmp_path, capfd):
    write_volume(_VOLUME, tmp_path / "scan.mhd")
    (tmp_path / "scan.raw").unlink()
    _refused(capfd, tmp_path / "scan.mhd", r"its voxels in .*scan.raw: cannot be read \(no such file\)")


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".mha", ".mhd", ".nrrd"])
def test_file_of_another_kind(tmp_path, capfd, suffix):
    (tmp_path / f"scan{suffix}").write_text("<html>404 not found</html>" * 100)
    _refused(capfd, tmp_path / f"scan{suffix}", "it is damaged or cut off")


@pytest.mark.parametrize("suffix", [".nii.gz", ".mha", ".nrrd"])
@pytest.mark.parametrize("shape", [(2, 5, 4, 3), (4, 3)])
def test_not_three_axes(tmp_path, capfd, suffix, shape):
    path = tmp_path / f"scan{suffix}"
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros(shape, np.int16), isVector=False), str(path))
    size = " x ".join(map(str, shape[::-1]))
    _refused(capfd, path, f"image size is {size}; needed is one 3D volume")


@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
def test_colour_volume(tmp_path, capfd, suffix):
    path = tmp_path / f"scan{suffix}"
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((2, 5, 4, 3), np.uint8), isVector=True), str(path))
    _refused(capfd, path, "voxels have 3 components")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("suffix", [".nii", ".mha", ".nrrd"])
def test_voxels_that_are_no_numbers(tmp_path, capfd, value, suffix):
    array = _ARRAY.astype(np.float32)
    array[3, 2, 1] = array[5, 0, 0] = value
    path = tmp_path / f"scan{suffix}"
    write_volume(CTVolume.from_canonical(array, (1, 1, 1)), path)
    _refused(capfd, path, r"2 of 5760 voxels are NaN or inf, the first at index \(1, 2, 3\)")


@pytest.mark.parametrize("suffix", [".nii", ".mha", ".nrrd"])
def test_scan_without_negative_values(tmp_path, capfd, suffix):
    path = tmp_path / f"scan{suffix}"
    write_volume(CTVolume.from_canonical(_ARRAY + np.int16(1024), (1, 1, 1)), path)
    _refused(capfd, path, "values are not HU: no value is below 0, so there is neither air nor fat")


def _with_bytes(path, offset, values):
    content = bytearray(path.read_bytes())
    raw = np.asarray(values, dtype="<f4").tobytes()
    content[offset : offset + len(raw)] = raw
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[0, 0, 0, 1], [0, 1, 0, 1], [0, 0, 1, 1]], "voxel size 0x1x1 mm; each must be above 0"),
        ([[np.nan, 0, 0, 1], [0, 1, 0, 1], [0, 0, 1, 1]], "NaN or inf"),
        ([[1, 1, 0, 1], [0, 0, 0, 1], [0, 0, 1, 1]], "affine is singular"),
    ],
)
def test_nifti_geometry_that_places_nothing(tmp_path, capfd, rows, message):
    path = tmp_path / "scan.nii"
    write_volume(_VOLUME, path)
    _with_bytes(path, 280, rows)  # srow_x, srow_y, srow_z
    _refused(capfd, path, message)


@pytest.mark.parametrize(
    ("suffix", "found", "replacement"),
    [
        (".mha", rb"ElementSpacing = \S+ ", b"ElementSpacing = 0 "),
        (".nrrd", rb"space directions: \(\S+,\S+,\S+\) ", b"space directions: (0,0,0) "),
        (".nrrd", rb"space directions: \(\S+,\S+,\S+\) ", b"space directions: (nan,0,0) "),
    ],
)
def test_zero_or_nan_spacing(tmp_path, capfd, suffix, found, replacement):
    path = tmp_path / f"scan{suffix}"
    write_volume(_VOLUME, path)
    content, count = re.subn(found, replacement, path.read_bytes())
    assert count == 1
    path.write_bytes(content)
    _refused(capfd, path, "spacing|voxel size|NaN")


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".mha", ".mhd", ".nrrd", "dicom"])
def test_random_bytes_in_the_header_are_read_or_refused(tmp_path, capfd, write_dicom_series, suffix):
    path = tmp_path / f"scan{suffix}"
    if suffix == "dicom":
        file = write_dicom_series(path, _ARRAY[:5, :4, :3], _AFFINE)[1]
    else:
        file = path
        write_volume(CTVolume.from_canonical(_ARRAY[:5, :4, :3], (1, 1, 2)), path)
    good = file.read_bytes()
    random, refused = np.random.default_rng(4), 0
    for _ in range(60):
        content = bytearray(good)
        for place in random.integers(min(len(good), 900), size=3):
            content[place] = random.integers(256)
        file.write_bytes(content)
        try:
            read_volume(path)
        except InputError as error:
            refused += 1
            assert str(error).startswith(str(path))
            assert "\n" not in str(error)
    assert refused > 0
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def dicom(tmp_path, write_dicom_series):
    """A good series of eight slices, in k order."""
    return write_dicom_series(tmp_path / "dicom", _ARRAY[:, :, :8], _AFFINE)


def _edit(file, **tags):
    dataset = pydicom.dcmread(file)
    for name, value in tags.items():
        if value is None:
            delattr(dataset, name)
        else:
            setattr(dataset, name, value)
    dataset.save_as(file)


def test_empty_folder(tmp_path, capfd):
    _refused(capfd, tmp_path, "the folder is empty")


def test_folder_without_ct(tmp_path, capfd):
    (tmp_path / "001.png").write_bytes(b"png")
    _refused(capfd, tmp_path, r"no CT image among its files \(found 1 not DICOM\)")


def test_two_series(dicom, capfd, write_dicom_series):
    folder = dicom[0].parent
    write_dicom_series(folder, _ARRAY[:, :, :2], _AFFINE, series="1.2.9", prefix="B")
    _refused(
        capfd, folder, r"2 CT series: 1.2.3 \(8 files\), 1.2.9 \(2 files\); choose one .*, or keep the files of one in"
    )
    _refused(capfd, folder, r"no CT series '1.2.8'; there are .*did you mean", series="1.2.8")


def test_missing_slice(dicom, capfd):
    dicom[3].unlink()
    names = f"{dicom[2].name} .at 5.00 mm. and {dicom[4].name} .at 10.00 mm."
    _refused(capfd, dicom[0].parent, f"slices are missing between {names}: the gap is 5.00 mm where others are 2.50 mm")


def test_uneven_slices(dicom, capfd):
    _edit(dicom[7], ImagePositionPatient=[0, 0, 18.0])
    _refused(capfd, dicom[0].parent, "uneven slice spacing: 3.00 mm between")


def test_shifted_slice(dicom, capfd):
    _edit(dicom[4], ImagePositionPatient=[40, 0, 10.0])
    _refused(capfd, dicom[0].parent, f"{dicom[4].name} lies 40.00 mm off the line of the other slices")


def test_doubled_slice(dicom, capfd):
    shutil.copy(dicom[3], dicom[3].with_name("copy"))
    _refused(capfd, dicom[0].parent, f"{dicom[3].name} .* and copy .* share one position; .* remove one")


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "colour image .3 samples a pixel"),
        ({"NumberOfFrames": 4}, "multi-frame DICOM .4 frames.; .* convert the scan to NIfTI"),
        ({"ImagePositionPatient": None}, "ImagePositionPatient is None; needed are 3 numbers"),
        ({"ImageOrientationPatient": None}, "ImageOrientationPatient is None"),
        ({"PixelSpacing": [0, 0.7]}, "a spacing above 0"),
        ({"ImageOrientationPatient": [0, 0, 0, 0, 0, 0]}, "unit directions"),
        ({"PixelSpacing": None}, "PixelSpacing is None"),
        ({"Rows": None}, "Rows is None"),
    ],
)
def test_dicom_header_that_does_not_serve(dicom, capfd, tags, message):
    _edit(dicom[0], **tags)
    with pytest.raises(InputError, match=message) as caught:
        read_volume(dicom[0].parent)
    assert str(caught.value).startswith(str(dicom[0]))
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"PixelSpacing": [0.8, 0.9]}, r"2 parts .* by PixelSpacing: .* \(7 slices\), .* \(IM0042\)"),
        ({"ImageOrientationPatient": [0, 1, 0, 1, 0, 0]}, "2 parts .* by ImageOrientationPatient"),
        ({"Rows": 9, "Columns": 32}, "2 parts .* by Rows: '18'"),
    ],
)
def test_slices_that_do_not_fit_together(dicom, capfd, tags, message):
    _edit(dicom[6], **tags)
    _refused(capfd, dicom[0].parent, message)


def test_single_slice_without_thickness(dicom, capfd):
    for file in dicom[1:]:
        file.unlink()
    _edit(dicom[0], SliceThickness=None)
    _refused(capfd, dicom[0].parent, "one slice without SliceThickness")


def test_dicom_without_rescale_is_not_in_hounsfield_units(dicom, capfd):
    for file in dicom:
        _edit(file, RescaleIntercept=None, RescaleSlope=None)
    _refused(capfd, dicom[0].parent, "values are not HU: no value is below 0, so there is neither air nor fat")
