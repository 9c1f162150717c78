"""Series that hold more than one volume: refused with their parts, and each part read right when it is chosen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest

from mmpluld.errors import InputError
from mmpluld.io import read_volume

_AFFINE = np.diag([0.7, 0.8, 2.5, 1.0])


def _body(seed: int, slices: int = 8) -> np.ndarray:
    """(i, j, k) HU: fat and soft tissue in air."""
    shape = (20, 18, slices)
    hu = np.full(shape, -1000)
    hu[2:18, 2:16] = -100
    hu[5:15, 5:13] = 50
    return (hu + np.random.default_rng(seed).normal(0, 8, shape)).clip(-1024, 2000).astype(np.int16)


_ONE, _TWO = _body(1), _body(2)


def _write(write, folder, array, start_mm=0.0, step_mm=2.5, first_number=1, prefix="A", **tags):
    affine = _AFFINE.copy()
    affine[2, 2:] = step_mm, start_mm
    files = write(folder, array, affine, prefix=prefix, **{"SliceThickness": "2.5", **tags})
    for number, file in enumerate(files, first_number):
        dataset = pydicom.dcmread(file)
        dataset.InstanceNumber = number
        dataset.save_as(file)
    return files


def _message(folder, series=None) -> str:
    with pytest.raises(InputError) as caught:
        read_volume(folder, series)
    text = str(caught.value)
    assert "\n" not in text
    return text


def _canonical(array):
    return array.transpose()[::-1]


_DIFFERENCES = [
    ("PatientID", "1", "2"),
    ("StudyInstanceUID", "1.5.1", "1.5.2"),
    ("FrameOfReferenceUID", "1.6.1", "1.6.2"),
    ("ImageType", ["ORIGINAL", "PRIMARY", "AXIAL"], ["DERIVED", "SECONDARY", "AXIAL"]),
    ("ConvolutionKernel", "B30f", "B70f"),
    ("ContrastBolusAgent", "", "APPLIED"),
    ("TemporalPositionIdentifier", "1", "2"),
    ("TemporalPositionIndex", 1, 2),
    ("NominalPercentageOfCardiacPhase", 30.0, 75.0),
    ("KVP", "80", "140"),
    ("SliceThickness", "2.5", "5"),
]


@pytest.mark.parametrize("name", ["KVP", "ConvolutionKernel", "SliceThickness"])
def test_a_value_left_out_of_some_slices_is_that_of_the_others(tmp_path, write_dicom_series, name):
    files = _write(write_dicom_series, tmp_path / "scan", _ONE, KVP="120", ConvolutionKernel="B30f")
    for file in files[2:5]:
        dataset = pydicom.dcmread(file)
        delattr(dataset, name)
        dataset.save_as(file)
    volume = read_volume(tmp_path / "scan")
    assert np.array_equal(volume.array, _canonical(_ONE))
    assert f"{name} is missing in 3 of 8 files: assumed that of the others" in volume.history


_LAYOUTS = [(*item, "same positions") for item in _DIFFERENCES] + [
    (*item, layout) for item in _DIFFERENCES[3:5] for layout in ("one after the other", "interleaved")
]


@pytest.mark.parametrize(("name", "first", "second", "layout"), _LAYOUTS)
def test_two_volumes_in_one_series(tmp_path, write_dicom_series, name, first, second, layout):
    start, step = {"same positions": (0, 2.5), "one after the other": (20, 2.5), "interleaved": (1.25, 2.5)}[layout]
    _write(write_dicom_series, tmp_path, _ONE, **{name: first})
    _write(write_dicom_series, tmp_path, _TWO, start, step, 9, "B", **{name: second})
    values = ["\\".join(value) if isinstance(value, list) else str(value) for value in (first, second)]
    text = _message(tmp_path)
    assert f"series 1.2.3 holds 2 parts that are not one volume, by {name}: " in text
    assert f"'{values[0]}' (8 slices), '{values[1]}' (8 slices); choose one with --series" in text
    for value, array in zip(values, (_ONE, _TWO), strict=True):
        for chosen in (f"1.2.3:{name}={value}", f"{name}={value}"):
            volume = read_volume(tmp_path, chosen)
            np.testing.assert_array_equal(volume.array, _canonical(array))
        assert not any(value in note for note in volume.history if name == "PatientID")


@pytest.mark.parametrize("start_mm", [0, 1.25, 10], ids=["same positions", "interleaved", "half of it twice"])
def test_two_acquisitions_that_overlap(tmp_path, write_dicom_series, start_mm):
    _write(write_dicom_series, tmp_path, _ONE, AcquisitionNumber="1")
    _write(write_dicom_series, tmp_path, _TWO, start_mm, 2.5, 9, "B", AcquisitionNumber="2")
    text = _message(tmp_path)
    assert (
        "AcquisitionNumber: '1' (8 slices), '2' (8 slices); choose one with --series 1.2.3:AcquisitionNumber=1 " in text
    )
    assert text.endswith("(`detect`), or keep its files in a folder of their own")
    np.testing.assert_array_equal(read_volume(tmp_path, "1.2.3:AcquisitionNumber=1").array, _canonical(_ONE))
    volume = read_volume(tmp_path, "AcquisitionNumber=2")
    np.testing.assert_array_equal(volume.array, _canonical(_TWO))
    assert volume.history[0] == "DICOM series of 8 slices (AcquisitionNumber 2)"


def test_acquisitions_that_follow_each_other_evenly_are_one_volume(tmp_path, write_dicom_series):
    _write(write_dicom_series, tmp_path, _ONE, AcquisitionNumber="1")
    _write(write_dicom_series, tmp_path, _TWO, 20, 2.5, 9, "B", AcquisitionNumber="2")
    volume = read_volume(tmp_path)
    np.testing.assert_array_equal(volume.array, _canonical(np.concatenate([_ONE, _TWO], axis=2)))
    assert "AcquisitionNumber takes 2 values along z, '1' (8 slices), '2' (8 slices), in one even stack" in str(
        volume.history
    )


@pytest.mark.parametrize("start_mm", [0, 1.25], ids=["same positions", "interleaved"])
def test_two_passes_that_only_instance_numbers_tell_apart(tmp_path, write_dicom_series, start_mm):
    _write(write_dicom_series, tmp_path, _ONE)
    _write(write_dicom_series, tmp_path, _TWO, start_mm, 2.5, 9, "B")
    text = _message(tmp_path)
    assert "InstanceNumber runs through the same stretch 2 times, '1-8' (8 slices), '9-16' (8 slices)" in text
    assert "choose one with --series 1.2.3:InstanceNumber=1-8" in text
    np.testing.assert_array_equal(read_volume(tmp_path, "1.2.3:InstanceNumber=1-8").array, _canonical(_ONE))
    np.testing.assert_array_equal(read_volume(tmp_path, "InstanceNumber=9-16").array, _canonical(_TWO))
    if start_mm:  # who knows that they belong together says so
        assert read_volume(tmp_path, "InstanceNumber=1-16").shape[0] == 16


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [("SeriesDescription", "arterial", "venous"), ("SeriesNumber", "3", "4"), ("AcquisitionTime", "1010", "1011")],
)
def test_what_else_tells_images_of_one_position_apart(tmp_path, write_dicom_series, name, first, second):
    for prefix, array, value in (("A", _ONE, first), ("B", _TWO, second)):
        write_dicom_series(tmp_path, array, _AFFINE, prefix=prefix, **{name: value})
    text = _message(tmp_path)
    assert "share one position, and so do 7 more pairs; series 1.2.3 holds 2 parts" in text
    assert f"by {name}: '{first}' (8 slices), '{second}' (8 slices); choose one with" in text
    np.testing.assert_array_equal(read_volume(tmp_path, f"{name}={second}").array, _canonical(_TWO))


def test_copies_are_refused(tmp_path, write_dicom_series):
    write_dicom_series(tmp_path, _ONE, _AFFINE)
    write_dicom_series(tmp_path, _ONE, _AFFINE, prefix="copy")
    assert "share one position, and so do 7 more pairs; allowed is one file a slice, remove one" in _message(tmp_path)


def test_two_attributes_choose_one_of_four(tmp_path, write_dicom_series):
    for prefix, kernel, phase in (("A", "B30f", "1"), ("B", "B30f", "2"), ("C", "B70f", "1"), ("D", "B70f", "2")):
        tags = {"ConvolutionKernel": kernel, "AcquisitionNumber": phase}
        _write(write_dicom_series, tmp_path, _body(ord(prefix)), prefix=prefix, **tags)
    assert "--series 1.2.3:ConvolutionKernel=B70f:AcquisitionNumber=1" in _message(tmp_path, "ConvolutionKernel=B70f")
    volume = read_volume(tmp_path, "1.2.3:ConvolutionKernel=B70f:AcquisitionNumber=2")
    np.testing.assert_array_equal(volume.array, _canonical(_body(ord("D"))))


@pytest.mark.parametrize(
    ("series", "message"),
    [
        ("1.2.3:Kernel=B30f", r"series '1.2.3:Kernel=B30f' names Kernel; allowed are PatientID, .*InstanceNumber"),
        ("AcquisitionNumbr=2", "names AcquisitionNumbr; .* did you mean 'AcquisitionNumber'"),
        ("1.2.3:AcquisitionNumber=3", r"no image has AcquisitionNumber '3'; there are '1' \(8 slices\), '2' \(8"),
        ("1.2.4:AcquisitionNumber=1", r"no CT series '1.2.4'; there are 1.2.3 \(16 files\)"),
        ("InstanceNumber=90-99", "no image has InstanceNumber '90-99'"),
    ],
)
def test_parts_that_are_not_there(tmp_path, write_dicom_series, series, message):
    _write(write_dicom_series, tmp_path, _ONE, AcquisitionNumber="1")
    _write(write_dicom_series, tmp_path, _TWO, 0, 2.5, 9, "B", AcquisitionNumber="2")
    with pytest.raises(InputError, match=message):
        read_volume(tmp_path, series)


def _renumber(files: list[Path], numbers) -> None:
    for file, number in zip(files, numbers, strict=True):
        dataset = pydicom.dcmread(file)
        dataset.InstanceNumber = int(number)
        dataset.save_as(file)


@pytest.mark.parametrize(
    "numbers",
    [
        [8, 7, 6, 5, 4, 3, 2, 1],
        [1, 2, 4, 3, 5, 6, 7, 8],
        [5, 6, 7, 8, 1, 2, 3, 4],
        [3, 3, 3, 3, 3, 3, 3, 3],
        [4, 1, 7, 2, 8, 5, 3, 6],
        [0, 1, 2, 3, 4, 5, 6, -1],
    ],
)
def test_odd_instance_numbers_of_one_pass_are_no_second_one(tmp_path, write_dicom_series, numbers):
    _renumber(write_dicom_series(tmp_path, _ONE, _AFFINE), numbers)
    volume = read_volume(tmp_path)
    np.testing.assert_array_equal(volume.array, _canonical(_ONE))
    assert volume.history == ("DICOM series of 8 slices",)


def test_holes_in_instance_numbers_are_noted(tmp_path, write_dicom_series):
    _renumber(write_dicom_series(tmp_path, _ONE, _AFFINE), [1, 3, 5, 7, 9, 11, 13, 15])
    note = "InstanceNumbers run from 1 to 15 with 7 left out, positions are even: assumed that no slice is missing"
    assert note in read_volume(tmp_path).history


@pytest.mark.parametrize(
    ("said", "noted"), [("2.5", False), ("-2.5", False), ("2.51", False), ("5", True), ("x", True)]
)
def test_spacing_between_slices_that_positions_contradict(tmp_path, write_dicom_series, said, noted):
    with pydicom.config.disable_value_validation():
        files = write_dicom_series(tmp_path, _ONE, _AFFINE, SpacingBetweenSlices="7.77")
    for file in files:
        content = file.read_bytes()
        assert content.count(b"7.77") == 1
        file.write_bytes(content.replace(b"7.77", said.ljust(4).encode()))
    volume = read_volume(tmp_path)
    assert volume.spacing_mm[0] == 2.5
    note = f"SpacingBetweenSlices says {said} mm, positions say 2.5 mm: assumed positions are right"
    assert (note in volume.history) == noted


def test_rounding_of_numbers_makes_no_parts(tmp_path, write_dicom_series):
    files = write_dicom_series(tmp_path, _ONE, _AFFINE)
    for k, file in enumerate(files):
        dataset = pydicom.dcmread(file)
        dataset.SliceThickness = ["2.5", "2.50", "2.500001"][k % 3]
        dataset.ImageOrientationPatient = ["1", "0", ["0", "1e-5"][k % 2], "0", "1", "0"]
        dataset.save_as(file)
    np.testing.assert_array_equal(read_volume(tmp_path).array, _canonical(_ONE))


@pytest.mark.parametrize("name", ["StudyInstanceUID", "FrameOfReferenceUID"])
def test_a_uid_made_up_for_each_file_is_noted(tmp_path, write_dicom_series, name):
    for k, file in enumerate(write_dicom_series(tmp_path, _ONE, _AFFINE)):
        dataset = pydicom.dcmread(file)
        setattr(dataset, name, f"1.5.{k + 1}")
        dataset.save_as(file)
    volume = read_volume(tmp_path)
    np.testing.assert_array_equal(volume.array, _canonical(_ONE))
    assert f"{name} is another one in each file: assumed one scan" in volume.history


def test_series_uid_is_an_identifier_and_no_history(tmp_path, write_dicom_series):
    write_dicom_series(tmp_path, _ONE, _AFFINE, series="1.2.3.99")
    volume = read_volume(tmp_path)
    assert volume.identifiers == ("SeriesInstanceUID 1.2.3.99",)
    assert "1.2.3.99" not in str(volume.history)
