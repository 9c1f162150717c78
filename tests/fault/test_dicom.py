"""DICOM folders as people have them: never fewer slices in silence, and no odd header that is believed."""

from __future__ import annotations

import os
import resource
import shutil
import struct
import zlib

import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.encaps import encapsulate

from benchmarks import fuzz
from benchmarks._apart import peak_memory_mb
from mmpluld.errors import InputError
from mmpluld.io import read_volume

_AFFINE = np.diag([0.7, 0.8, 2.5, 1.0])
_HU = np.full((20, 18, 6), -1000)
_HU[2:18, 2:16] = -100
_HU[5:15, 5:13] = 50
_HU = (_HU + np.random.default_rng(1).normal(0, 8, _HU.shape)).clip(-1024, 2000).astype(np.int16)
_CANONICAL = _HU.transpose()[::-1]


@pytest.fixture
def files(tmp_path, write_dicom_series):
    """A good series of six slices, in k order."""
    return write_dicom_series(tmp_path / "scan", _HU, _AFFINE)


def _refused(capfd, folder, start, message, series=None):
    with pytest.raises(InputError, match=message) as caught:
        read_volume(folder, series)
    assert str(caught.value).startswith(str(start))
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def _bare(file, implicit=True, little=True, meta=False):
    """Write a slice again without preamble, and without File Meta Information unless ``meta``."""
    dataset = pydicom.dcmread(file)
    plain = pydicom.Dataset()
    for element in dataset:
        plain.add(element)
    if not little:
        plain.PixelData = np.frombuffer(plain.PixelData, "<u2").astype(">u2").tobytes()
    if meta:
        syntax = {(True, True): uid.ImplicitVRLittleEndian, (False, True): uid.ExplicitVRLittleEndian}
        plain.file_meta = dataset.file_meta
        plain.file_meta.TransferSyntaxUID = syntax.get((implicit, little), uid.ExplicitVRBigEndian)
        pydicom.dcmwrite(file, plain, enforce_file_format=True)
        file.write_bytes(file.read_bytes()[132:])
    else:
        pydicom.dcmwrite(file, plain, implicit_vr=implicit, little_endian=little)
    assert b"DICM" not in file.read_bytes()[:200]


# ---------------------------------------------------------------------------------------------- without preamble
@pytest.mark.parametrize("meta", [False, True])
@pytest.mark.parametrize(("implicit", "little"), [(True, True), (False, True), (False, False)])
@pytest.mark.parametrize("which", [slice(None), slice(4, None), slice(2, 3)], ids=["all", "last", "middle"])
def test_files_without_preamble_are_read(files, implicit, little, meta, which):
    for file in files[which]:
        _bare(file, implicit, little, meta)
    volume = read_volume(files[0].parent)
    np.testing.assert_array_equal(volume.array, _CANONICAL)
    assert volume.history == ("DICOM series of 6 slices",)


def test_compressed_pixels_without_file_meta(files, capfd):
    dataset = pydicom.dcmread(files[1])
    plain = pydicom.Dataset()
    for element in dataset:
        plain.add(element)
    plain.PixelData = encapsulate([b"\xff\xd8\xff\xd9"])
    plain["PixelData"].VR, plain["PixelData"].is_undefined_length = "OB", True
    pydicom.dcmwrite(files[1], plain, implicit_vr=False, little_endian=True)
    _refused(capfd, files[0].parent, files[1], "compressed, but the file has no Transfer Syntax UID")


# -------------------------------------------------------------------------- files of the series that cannot be read
@pytest.mark.parametrize("number", [0, 3, 5])
def test_a_slice_cut_off_anywhere_is_never_left_out(files, number, capfd):
    content = files[number].read_bytes()
    for length in [0, 1, 100, 131, 132, 133, 140, *range(150, len(content), 61), len(content) - 1]:
        files[number].write_bytes(content[:length])
        with pytest.raises(InputError) as caught:
            read_volume(files[0].parent)
        assert files[number].name in str(caught.value), length
        assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["IM0101", "last.dcm", "LAST.IMA", "other"])
def test_an_empty_file_beside_the_slices(files, capfd, name):
    stray = files[0].with_name(name)
    stray.write_bytes(b"")
    _refused(capfd, files[0].parent, stray, "is empty; it may be a slice, copy or export it again, or remove it if not")


@pytest.mark.parametrize("name", ["IM0101", "last.dcm"])
def test_a_file_named_as_a_slice_that_is_no_dicom(files, capfd, name):
    stray = files[0].with_name(name)
    stray.write_text("<html>404 not found</html>" * 100)
    _refused(capfd, files[0].parent, stray, "is not DICOM; it may be a slice")


def test_a_link_to_nothing(files, capfd):
    stray = files[0].with_name("IM0101")
    stray.symlink_to("gone")
    _refused(capfd, files[0].parent, stray, "is a link to nothing; it may be a slice")


def test_a_link_in_a_circle(files, capfd):
    stray = files[0].with_name("IM0101")
    stray.symlink_to(stray.name)
    _refused(capfd, files[0].parent, stray, "is a link to nothing|cannot be opened .*links")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_a_named_pipe_is_never_opened(files, capfd):
    stray = files[0].with_name("IM0101")
    os.mkfifo(stray)
    _refused(capfd, files[0].parent, stray, "is no regular file; it may be a slice")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may open everything")
def test_files_and_folders_that_may_not_be_opened(files, capfd):
    files[5].chmod(0)
    _refused(capfd, files[0].parent, files[5], "cannot be opened .Permission denied.; it may be a slice")
    files[5].chmod(0o600)
    closed = files[0].parent / "closed"
    closed.mkdir()
    closed.chmod(0)
    _refused(capfd, files[0].parent, closed, "the folder cannot be opened .Permission denied.")
    closed.chmod(0o700)


def test_an_image_of_another_modality_in_the_series(files, capfd):
    dataset = pydicom.dcmread(files[5])
    dataset.Modality = "OT"
    dataset.save_as(files[5])
    _refused(capfd, files[0].parent, files[5], "is of modality OT, but in the CT series 1.2.3; it may be a slice")


def test_modality_is_read_leniently(files):
    for file, modality in zip(files, ("ct", "CT ", ["CT", "CT"], "CT", "", "CT"), strict=True):
        dataset = pydicom.dcmread(file)
        with pydicom.config.disable_value_validation():
            dataset.Modality = modality
        dataset.save_as(file)
    np.testing.assert_array_equal(read_volume(files[0].parent).array, _CANONICAL)


def test_an_image_without_series_uid(files, capfd):
    dataset = pydicom.dcmread(files[5])
    del dataset.SeriesInstanceUID
    dataset.save_as(files[5])
    _refused(capfd, files[0].parent, files[5], "holds no SeriesInstanceUID; it may be a slice")


def test_an_image_without_modality_of_no_known_class(files, capfd):
    dataset = pydicom.dcmread(files[5])
    del dataset.Modality
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.9999"
    dataset.save_as(files[5])
    _refused(capfd, files[0].parent, files[5], "holds no Modality; it may be a slice")


def test_a_series_without_uid_is_one_series(files):
    for file in files:
        dataset = pydicom.dcmread(file)
        del dataset.SeriesInstanceUID
        dataset.save_as(file)
    np.testing.assert_array_equal(read_volume(files[0].parent).array, _CANONICAL)


# ------------------------------------------------------------------------------------------- files of something else
def test_what_plainly_is_no_slice_is_skipped_and_counted(files):
    folder = files[0].parent
    (folder / "README").write_text("the scan")
    (folder / "key.jpg").write_bytes(b"\xff\xd8\xff\xe0" + bytes(500))
    (folder / "._IM0000").write_bytes(b"\x00\x05\x16\x07" + bytes(4000))
    (folder / "._x.dcm").write_bytes(b"")
    (folder / "viewer").mkdir()
    (folder / "viewer/skin.dcm").write_bytes(b"skin")
    (folder / "viewer/lost").symlink_to("gone")
    volume = read_volume(folder)
    np.testing.assert_array_equal(volume.array, _CANONICAL)
    counted = "skipped files that are not CT images: 2 damaged or not to be opened, 4 not DICOM"
    assert volume.history == ("DICOM series of 6 slices", counted)


def _beside(file, storage, **tags):
    """Turn a copy of a slice into another object of the series."""
    dataset = pydicom.dcmread(file)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = storage
    for name, value in tags.items():
        if value is None:
            del dataset[name]
        else:
            setattr(dataset, name, value)
    dataset.save_as(file.parent / "more.dcm")


_NOWHERE = {"ImagePositionPatient": None, "ImageOrientationPatient": None}
_PICTURE = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "BitsAllocated": 8, "PlanarConfiguration": 0}


@pytest.mark.parametrize("series", ["1.2.3", "1.2.9"])
@pytest.mark.parametrize(
    ("storage", "tags", "counted"),
    [
        (uid.SecondaryCaptureImageStorage, _NOWHERE, "1 screenshot"),
        (uid.SecondaryCaptureImageStorage, _PICTURE, "1 screenshot"),
        (uid.MultiFrameTrueColorSecondaryCaptureImageStorage, _PICTURE, "1 screenshot"),
        (uid.RawDataStorage, {"Rows": None, "PixelData": None}, "1 CT object without image"),
        ("1.3.12.2.1107.5.9.1", {"Rows": None, "PixelData": None}, "1 CT object without image"),
    ],
)
def test_dose_reports_and_raw_data_that_say_ct(files, storage, tags, counted, series):
    _beside(files[2], storage, SeriesInstanceUID=series, **tags)
    volume = read_volume(files[0].parent)
    np.testing.assert_array_equal(volume.array, _CANONICAL)
    assert volume.history[1:] == (f"skipped files that are not CT images: {counted}",)


def test_slices_written_as_secondary_captures_are_slices(files):
    for file in files:
        dataset = pydicom.dcmread(file)
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = uid.SecondaryCaptureImageStorage
        dataset.save_as(file)
    np.testing.assert_array_equal(read_volume(files[0].parent).array, _CANONICAL)


def test_a_ct_image_without_rows_is_not_skipped(files, capfd):
    _beside(files[2], uid.CTImageStorage, Rows=None)
    _refused(capfd, files[0].parent, files[0].parent / "more.dcm", "Rows is None")


def test_dicomdir_is_skipped(files):
    shutil.copy(pydicom.data.get_testdata_file("dicomdirtests/DICOMDIR", download=False), files[0].parent / "DICOMDIR")
    volume = read_volume(files[0].parent)
    assert volume.history[1:] == ("skipped files that are not CT images: 1 DICOMDIR",)


def test_damaged_files_of_another_series_do_not_matter(files, write_dicom_series):
    others = write_dicom_series(files[0].parent / "other", _HU, _AFFINE, series="1.2.9", prefix="X")
    others[2].write_bytes(others[2].read_bytes()[:300])
    np.testing.assert_array_equal(read_volume(files[0].parent, "1.2.3").array, _CANONICAL)
    with pytest.raises(InputError, match="it may be a slice"):
        read_volume(files[0].parent, "1.2.9")


def test_linked_folders_are_read_once(files, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for file in files[3:]:
        shutil.move(file, elsewhere / file.name)
    (files[0].parent / "more").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(files[0].parent)
    np.testing.assert_array_equal(read_volume(files[0].parent).array, _CANONICAL)


# ------------------------------------------------------------------------------------------------------ odd headers
def _patch(file, old: bytes, new: bytes) -> None:
    content = file.read_bytes()
    assert content.count(old) == 1
    assert len(new) <= len(old)
    file.write_bytes(content.replace(old, new.ljust(len(old))))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"0.8000000000\\0.7000000000", b"0,8\\0,7", r"PixelSpacing is '0,8\\0,7'; needed are 2 numbers"),
        (b"0.8000000000\\0.7000000000", b"NaN\\0.7", r"PixelSpacing is 'nan\\0.7'|PixelSpacing is 'NaN\\0.7'"),
        (b"0.8000000000\\0.7000000000", b"0.7", "PixelSpacing is '0.7'; needed are 2 numbers"),
        (b"0.8000000000\\0.7000000000", b"", "PixelSpacing is None; needed are 2 numbers"),
        (b"0.8000000000\\0.7000000000", b"0.0008\\0.0007", "PixelSpacing is 0.0008 x 0.0007; .* 0.05 to 50 mm"),
        (b"0.8000000000\\0.7000000000", b"800\\700", "PixelSpacing is 800 x 700; .* 0.05 to 50 mm"),
        (b"0.0000000000\\0.0000000000\\12.500000000", b"0\\0\\inf", "ImagePositionPatient is .*; needed are 3 numbers"),
        (
            b"0.0000000000\\0.0000000000\\12.500000000",
            b"0\\0\\12,5",
            "ImagePositionPatient is .*; needed are 3 numbers",
        ),
        (
            b"0.0000000000\\0.0000000000\\12.500000000",
            b"0\\0\\1\\2",
            "ImagePositionPatient is .*; needed are 3 numbers",
        ),
        (b"-1024.5 ", b"-1024,5", "RescaleIntercept is '-1024,5'; needed is a finite number"),
        (b"-1024.5 ", b"NaN", "RescaleIntercept is '(NaN|nan)'; needed is a finite number"),
        (b"-1024.5 ", b"-1\\-2", r"RescaleIntercept is '-1\\-2'; needed is a finite number"),
    ],
)
def test_odd_numbers_name_the_file_and_the_tag(files, capfd, old, new, message):
    dataset = pydicom.dcmread(files[5])
    dataset.RescaleIntercept = "-1024.5"
    dataset.save_as(files[5])
    _patch(files[5], old, new)
    _refused(capfd, files[0].parent, files[5], message)


def test_an_empty_value_of_a_type_that_does_not_exist(files):
    content = files[2].read_bytes()
    assert content.count(b"CS\x02\x00CT") == 1
    files[2].write_bytes(content.replace(b"CS\x02\x00CT", b"CN\x00\x00"))
    np.testing.assert_array_equal(read_volume(files[0].parent).array, _CANONICAL)


def test_unknown_character_sets_and_private_values_do_not_matter(files):
    for file in files:
        dataset = pydicom.dcmread(file)
        dataset.PatientName = "Name"
        block = dataset.private_block(0x0019, "SCANNER", create=True)
        block.add_new(1, "DS", ["1", "2"])
        block.add_new(2, "UN", b"\xff\xfe\x00odd")
        dataset.add_new(0x00080005, "CS", "ISO_IR 100")
        dataset.save_as(file)
        _patch(file, b"ISO_IR 100", b"ISO_IR 999")
        _patch(file, b"Name", b"\xff\xfe\xfd\xfc")
    np.testing.assert_array_equal(read_volume(files[0].parent).array, _CANONICAL)


def test_slices_too_far_apart_or_too_close(tmp_path, write_dicom_series, capfd):
    for step in (2000.0, 0.002):
        folder = tmp_path / f"step{step:g}"
        write_dicom_series(folder, _HU, np.diag([0.7, 0.8, step, 1.0]))
        _refused(
            capfd, folder, folder, f"slices lie {step:g} mm apart by ImagePositionPatient; allowed is 0.05 to 50 mm"
        )
    write_dicom_series(tmp_path / "one", _HU[:, :, :1], np.diag([0.7, 0.8, 2500, 1.0]))
    _refused(capfd, tmp_path / "one", tmp_path / "one", "2500 mm apart by SliceThickness")


@pytest.mark.parametrize("which", [slice(2, 3), slice(3, None)])
def test_a_rescale_that_only_some_slices_have(files, capfd, which):
    for file in files[which]:
        dataset = pydicom.dcmread(file)
        del dataset.RescaleSlope, dataset.RescaleIntercept
        dataset.save_as(file)
    count = len(files[which])
    _refused(capfd, files[0].parent, files[which][0], f"no RescaleSlope and RescaleIntercept, as {count} of 6 slices")


def test_hu_without_rescale_are_noted(files):
    for k, file in enumerate(files):
        dataset = pydicom.dcmread(file)
        del dataset.RescaleSlope, dataset.RescaleIntercept
        dataset.PixelRepresentation = 1
        dataset.PixelData = np.ascontiguousarray(_HU[:, :, k].T).tobytes()
        dataset.save_as(file)
    volume = read_volume(files[0].parent)
    np.testing.assert_array_equal(volume.array, _CANONICAL)
    assert "no RescaleSlope and RescaleIntercept: stored values assumed to be HU" in volume.history


def test_rescale_types(files, capfd):
    for file in files:
        dataset = pydicom.dcmread(file)
        dataset.RescaleType = "US"
        dataset.save_as(file)
    assert "RescaleType is US: values assumed to be HU" in read_volume(files[0].parent).history
    dataset.RescaleType = "HU"
    dataset.save_as(files[5])
    _refused(capfd, files[0].parent, files[0].parent, "RescaleType is HU and US in one series")


def test_a_deflated_file_that_unpacks_without_end(files, capfd):
    dataset = pydicom.dcmread(files[5])
    dataset.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
    dataset.save_as(files[5])
    np.testing.assert_array_equal(read_volume(files[0].parent).array, _CANONICAL)
    content = files[5].read_bytes()
    start = 144 + struct.unpack("<I", content[140:144])[0]
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    body = packer.compress(zlib.decompress(content[start:], -zlib.MAX_WBITS)) + packer.flush(zlib.Z_FULL_FLUSH)
    zeros = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    files[5].write_bytes(content[:start] + body + zeros * 300 + packer.flush())
    _refused(capfd, files[0].parent, files[5], "unpacks to more than 256 MiB")


def test_image_sizes_of_no_scanner(files, capfd):
    for file in files:
        dataset = pydicom.dcmread(file)
        dataset.Rows = dataset.Columns = 65535
        dataset.save_as(file)
    _refused(capfd, files[0].parent, files[0], "65535 Rows and 65535 Columns; allowed are 1 to 8192 each")


@pytest.mark.parametrize(("bits", "gibibytes"), [(16, "2.2"), (32, "2.9")])
def test_a_stack_that_does_not_fit_into_memory(files, tmp_path, bits, gibibytes):
    for file in files:
        dataset = pydicom.dcmread(file)
        dataset.Rows, dataset.Columns, dataset.BitsAllocated = 8192, 8000, bits
        dataset.save_as(file)

    def read(_):
        resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
        return read_volume(files[0].parent)

    outcome, said, peak = fuzz.attempt(fuzz.Target("dicom", lambda _: None, read), tmp_path, "")
    assert outcome == "refused", said
    assert f"scan: 8000 x 8192 x 6 of {bits} bits needs {gibibytes} GiB of memory, of which" in said
    assert peak / 1e6 < peak_memory_mb() + 100
