"""Bits of a DICOM pixel in every transfer syntax, against the numbers that were put in and against other decoders."""

from __future__ import annotations

import io
from pathlib import Path

import jpeg_ls
import numpy as np
import openjpeg.utils
import PIL.Image
import pydicom
import pytest
import SimpleITK as sitk
from pydicom import uid
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate, get_frame

from mmpluld.errors import InputError
from mmpluld.io import read_volume
from mmpluld.io.dicom_pixels import read_pixels, stored_bits

_SHAPE = (72, 66, 3)  # (i, j, k), large enough for the wavelets of JPEG 2000
_AFFINE = np.diag([0.7, 0.8, 2.5, 1.0])
_JPEG_LOSSLESS = uid.JPEGLosslessSV1


def _body() -> np.ndarray:
    """(i, j, k) HU: fat and soft tissue in air."""
    random = np.random.default_rng(5)
    hu = np.full(_SHAPE, -1000)
    hu[8:60, 8:60] = -100
    hu[16:50, 16:50] = 50
    hu[20:24, 20:24] = 1000
    return (hu + random.normal(0, 8, _SHAPE)).clip(-1024, 2000).astype(np.int16)


_HU = _body()


def _lossless_jpeg(words: np.ndarray, tmp_path) -> bytes:
    writer = sitk.ImageFileWriter()
    writer.SetImageIO("GDCMImageIO")
    writer.SetFileName(str(tmp_path / "encoded.dcm"))
    writer.UseCompressionOn()
    writer.SetCompressor("JPEG")
    writer.Execute(sitk.GetImageFromArray(words[None]))
    dataset = pydicom.dcmread(tmp_path / "encoded.dcm")
    assert dataset.file_meta.TransferSyntaxUID == _JPEG_LOSSLESS
    return get_frame(dataset.PixelData, 0, number_of_frames=1)


def _store(file, words: np.ndarray, syntax: uid.UID, tmp_path, precision: int = 16, **tags) -> None:
    """Put pixel words into a slice, encoded with all their bits, or (JPEG 2000) ``precision`` of them."""
    dataset = _plain(pydicom.dcmread(file))
    for name, value in tags.items():
        setattr(dataset, name, value)
    words = np.ascontiguousarray(words)
    dataset.BitsAllocated = words.dtype.itemsize * 8
    dataset.file_meta.TransferSyntaxUID = syntax
    if not syntax.is_encapsulated:
        dataset.PixelData = words.astype(words.dtype.newbyteorder("<" if syntax.is_little_endian else ">")).tobytes()
        dataset["PixelData"].VR = "OW"
        pydicom.dcmwrite(file, dataset, enforce_file_format=True)
        return
    if syntax == uid.RLELossless:
        dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
        dataset.PixelData = words.tobytes()
        dataset.compress(uid.RLELossless)
    else:
        code = {
            uid.JPEG2000Lossless: lambda: openjpeg.utils.encode_array(
                words, bits_stored=precision, photometric_interpretation=2, use_mct=False
            ),
            uid.JPEGLSLossless: lambda: bytes(jpeg_ls.encode_array(words)),
            _JPEG_LOSSLESS: lambda: _lossless_jpeg(words, tmp_path),
        }[syntax]()
        dataset.PixelData = encapsulate([code])
        dataset["PixelData"].is_undefined_length = True
    dataset["PixelData"].VR = "OB"
    pydicom.dcmwrite(file, dataset, enforce_file_format=True)


def _plain(dataset: pydicom.Dataset) -> pydicom.Dataset:
    """The elements without their encoding, which pydicom holds on to otherwise."""
    plain = pydicom.Dataset()
    for element in dataset:
        plain.add(element)
    plain.file_meta = dataset.file_meta
    return plain


_WHOLE_WORDS = [
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.DeflatedExplicitVRLittleEndian,
    uid.RLELossless,
    uid.JPEG2000Lossless,
    uid.JPEGLSLossless,
    _JPEG_LOSSLESS,
]


@pytest.mark.parametrize("layout", ["overlay above", "drawing below", "signed", "full"])
@pytest.mark.parametrize("syntax", _WHOLE_WORDS, ids=lambda syntax: syntax.keyword)
def test_only_the_stored_bits_count(tmp_path, write_dicom_series, syntax, layout):
    files = write_dicom_series(tmp_path / "scan", _HU, _AFFINE)
    drawing = np.zeros(_SHAPE[:2], np.uint16).T
    drawing[10:60, 30:33] = 1
    for k, file in enumerate(files):
        hu = _HU[:, :, k].T.astype(np.int32)
        stored, high_bit, signed, intercept = 12, 11, 0, -1024
        if layout == "overlay above":
            words = (hu + 1024) | drawing << 12 | drawing << 15
        elif layout == "drawing below":  # values at the upper end of the word
            words, high_bit = (hu + 1024) << 4 | drawing, 15
        elif layout == "signed":  # 12 bits of two's complement, the sign not carried on
            words, signed, intercept = hu & 0xFFF, 1, 0
        else:
            words, stored, high_bit, signed, intercept = hu & 0xFFFF, 16, 15, 1, 0
        _store(
            file, words.astype(np.uint16), syntax, tmp_path, BitsStored=stored, HighBit=high_bit,
            PixelRepresentation=signed, RescaleIntercept=intercept,
        )  # fmt: skip
    np.testing.assert_array_equal(read_volume(tmp_path / "scan").array, _HU.transpose()[::-1])


@pytest.mark.parametrize("coded_signed", [False, True])
@pytest.mark.parametrize(("precision", "high_bit"), [(12, 11), (12, 15), (13, 11), (16, 11)])
def test_jpeg_2000_of_other_bits_than_the_header(tmp_path, write_dicom_series, precision, high_bit, coded_signed):
    file = write_dicom_series(tmp_path / "scan", _HU[:, :, :1], _AFFINE)[0]
    hu = _HU[:, :, 0].T
    words = hu if coded_signed else (hu & 0xFFF).astype(np.uint16)
    _store(
        file, words, uid.JPEG2000Lossless, tmp_path, precision, BitsStored=12, HighBit=high_bit, PixelRepresentation=1
    )
    np.testing.assert_array_equal(read_pixels(file, hu.shape)[0], hu)


def test_eight_and_thirty_two_bits(tmp_path, write_dicom_series):
    random = np.random.default_rng(2)
    file = write_dicom_series(tmp_path / "scan", _HU[:, :, :1], _AFFINE)[0]
    for kind, stored in (("u1", 8), ("u1", 6), ("u4", 20), ("i4", 32)):
        signed = int(kind[0] == "i")
        low = -(1 << 30) if signed else 0
        values = random.integers(low, 1 << min(stored, 30), (66, 72)).astype(kind)
        for syntax in (uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian, *[uid.RLELossless] * (stored == 8)):
            words = values if stored == values.dtype.itemsize * 8 else values | np.array(1 << stored, values.dtype)
            data = words.view("u2").byteswap().view(kind) if kind == "u1" and not syntax.is_little_endian else words
            _store(file, data, syntax, tmp_path, BitsStored=stored, HighBit=stored - 1, PixelRepresentation=signed)
            np.testing.assert_array_equal(read_pixels(file, values.shape)[0], values)


def test_what_counts_of_a_word():
    words = np.array([0x0FFF, 0xF800, 0x1234], np.uint16)
    assert stored_bits(words.copy(), 12, 11, signed=True).tolist() == [-1, -2048, 0x234]
    assert stored_bits(words.copy(), 12, 11, signed=False).tolist() == [0xFFF, 0x800, 0x234]
    assert stored_bits(words.copy(), 4, 15, signed=False).tolist() == [0, 15, 1]
    frozen = words.copy()
    frozen.flags.writeable = False
    assert stored_bits(frozen, 12, 11, signed=True).tolist() == [-1, -2048, 0x234]
    assert frozen.tolist() == words.tolist()


@pytest.mark.parametrize(
    "name",
    [
        "MR_small_jp2klossless.dcm",
        "MR_small_jpeg_ls_lossless.dcm",
        "J2K_pixelrep_mismatch.dcm",
        "693_J2KI.dcm",
        "JPEG2000.dcm",
        "JPEGLSNearLossless_16.dcm",
    ],
)
def test_agrees_with_other_decoders(name):
    """Against openjpeg and CharLS themselves, their numbers cut to the bits of the header by hand."""
    file = get_testdata_file(name, download=False)
    dataset = pydicom.dcmread(file)
    code = get_frame(dataset.PixelData, 0, number_of_frames=1)
    is_wavelet = dataset.file_meta.TransferSyntaxUID in uid.JPEG2000TransferSyntaxes
    other = openjpeg.utils.decode(code) if is_wavelet else jpeg_ls.decode(np.frombuffer(code, np.uint8))
    bits = other.astype(np.int64) & ((1 << dataset.BitsStored) - 1)
    if dataset.PixelRepresentation:
        bits -= (bits >> (dataset.BitsStored - 1)) << dataset.BitsStored
    values, _ = read_pixels(Path(file), (dataset.Rows, dataset.Columns))
    np.testing.assert_array_equal(values, bits)


def test_baseline_jpeg_agrees_with_pillow(tmp_path, write_dicom_series):
    file = write_dicom_series(tmp_path / "scan", _HU[:, :, :1], _AFFINE)[0]
    grey = ((_HU[:, :, 0].T.astype(int) + 1024) >> 4).astype(np.uint8)
    stream = io.BytesIO()
    PIL.Image.fromarray(grey).save(stream, "JPEG", quality=90)
    dataset = pydicom.dcmread(file)
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit = 7
    dataset.file_meta.TransferSyntaxUID = uid.JPEGBaseline8Bit
    dataset.PixelData = encapsulate([stream.getvalue()])
    dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    dataset.save_as(file, enforce_file_format=True)
    values, _ = read_pixels(file, grey.shape)
    other = np.asarray(PIL.Image.open(stream)).astype(int)
    assert np.abs(values.astype(int) - other).max() <= 1  # two versions of one library's cosine transform
    assert np.abs(values.astype(int) - grey).max() < 30


def test_rescale_is_applied_once_to_compressed_pixels(tmp_path, write_dicom_series):
    files = write_dicom_series(tmp_path / "scan", _HU, _AFFINE)
    for k, file in enumerate(files):
        words = ((_HU[:, :, k].T.astype(int) + 1024) * 2).astype(np.uint16)
        _store(file, words, uid.JPEG2000Lossless, tmp_path, RescaleSlope="0.5")
    np.testing.assert_array_equal(read_volume(tmp_path / "scan").array, _HU.transpose()[::-1])


# ----------------------------------------------------------------------------------------------------- refusals
def _refused(file, message, shape_yx=(66, 72)):
    with pytest.raises(InputError, match=message) as caught:
        read_pixels(file, shape_yx)
    assert str(caught.value).startswith(str(file))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("syntax", [uid.RLELossless, uid.JPEG2000Lossless, uid.JPEGLSLossless, _JPEG_LOSSLESS])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.97])
def test_compressed_pixels_that_are_cut_off(tmp_path, write_dicom_series, capfd, syntax, part):
    file = write_dicom_series(tmp_path / "scan", _HU[:, :, :1], _AFFINE)[0]
    _store(file, (_HU[:, :, 0].T + 1024).astype(np.uint16), syntax, tmp_path)
    whole = pydicom.dcmread(file)
    code = get_frame(whole.PixelData, 0, number_of_frames=1)
    whole.PixelData = encapsulate([code[: int(part * len(code))]])
    whole["PixelData"].VR, whole["PixelData"].is_undefined_length = "OB", True
    whole.save_as(file, enforce_file_format=True)
    _refused(file, "damaged or cut off|cannot be decoded")
    assert capfd.readouterr() == ("", "")


@pytest.mark.filterwarnings("ignore:End of file reached before delimiter")
@pytest.mark.parametrize("syntax", [uid.RLELossless, uid.JPEG2000Lossless, uid.JPEGLSLossless, _JPEG_LOSSLESS])
def test_file_of_compressed_pixels_that_is_cut_off(tmp_path, write_dicom_series, capfd, syntax):
    file = write_dicom_series(tmp_path / "scan", _HU[:, :, :1], _AFFINE)[0]
    _store(file, (_HU[:, :, 0].T + 1024).astype(np.uint16), syntax, tmp_path)
    content = file.read_bytes()
    for missing in (9, 200, 1000):
        file.write_bytes(content[:-missing])
        _refused(file, "damaged or cut off")
    assert capfd.readouterr() == ("", "")


def test_compressed_image_of_another_size(tmp_path, write_dicom_series):
    file = write_dicom_series(tmp_path / "scan", _HU[:, :, :1], _AFFINE)[0]
    _store(file, (_HU[:, :, 0].T + 1024).astype(np.uint16), uid.JPEG2000Lossless, tmp_path)
    _refused(file, "has 66 x 72 pixels of 1 components, its header says 66 x 71", shape_yx=(66, 71))


def test_more_bits_than_jpeg_has(tmp_path, write_dicom_series):
    """ITK's decoder writes beyond its memory then."""
    file = write_dicom_series(tmp_path / "scan", _HU[:, :, :1], _AFFINE)[0]
    _store(file, (_HU[:, :, 0].T + 1024).astype(np.uint16), _JPEG_LOSSLESS, tmp_path)
    start = file.read_bytes().index(b"\xff\xc3")
    content = bytearray(file.read_bytes())
    for precision in (0, 17, 32):
        content[start + 4] = precision
        file.write_bytes(content)
        _refused(file, f"its compressed image has {precision} bits, its header says BitsAllocated 16")


def test_more_pixels_than_the_header_says(tmp_path, write_dicom_series):
    file = write_dicom_series(tmp_path / "scan", _HU[:, :, :1], _AFFINE)[0]
    _refused(file, "PixelData holds 9504 bytes, but 65 x 72 pixels of 16 bits are 9360", shape_yx=(65, 72))
    _refused(file, "PixelData holds 9504 bytes, but 67 x 72 pixels of 16 bits are 9648", shape_yx=(67, 72))


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"BitsStored": 17}, "BitsAllocated 16, BitsStored 17, HighBit 15"),
        ({"HighBit": 16}, "HighBit 16"),
        ({"BitsStored": 12, "HighBit": 10}, "BitsStored 12, HighBit 10"),
        ({"BitsAllocated": 12}, "BitsAllocated 12"),
        ({"PixelRepresentation": 2}, "PixelRepresentation 2"),
        ({"BitsStored": None}, "BitsStored is ''"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "PALETTE COLOR"),
        ({"RescaleIntercept": None}, "has RescaleSlope but no RescaleIntercept"),
        ({"RescaleSlope": 0}, "RescaleSlope is '0.0'"),
        ({"RescaleType": "OD"}, "RescaleType is OD"),
        ({"ModalityLUTSequence": [pydicom.Dataset()]}, "ModalityLUTSequence"),
    ],
)
def test_header_that_says_nothing_sound_about_pixels(tmp_path, write_dicom_series, tags, message):
    file = write_dicom_series(tmp_path / "scan", _HU[:, :, :1], _AFFINE, **tags)[0]
    _refused(file, message)


def test_transfer_syntax_that_is_not_decoded(tmp_path, write_dicom_series):
    file = write_dicom_series(tmp_path / "scan", _HU[:, :, :1], _AFFINE)[0]
    _store(file, (_HU[:, :, 0].T + 1024).astype(np.uint16), uid.JPEG2000Lossless, tmp_path)
    dataset = pydicom.dcmread(file)
    dataset.file_meta.TransferSyntaxUID = uid.HTJ2KLossless
    dataset.save_as(file, enforce_file_format=True)
    _refused(file, "High-Throughput JPEG 2000 .*1.2.840.10008.1.2.4.201.* pylibjpeg")


def test_signed_pixels_of_a_codestream_too_short_to_tell_the_sign(tmp_path, write_dicom_series):
    file = write_dicom_series(tmp_path / "scan", _HU[:, :, :1], _AFFINE)[0]
    words = (_HU[:, :, 0].T & 0xFFF).astype(np.uint16)
    _store(file, words, uid.JPEG2000Lossless, tmp_path, 12, BitsStored=16, HighBit=15, PixelRepresentation=1)
    _refused(file, "has 12 bits, its header says BitsAllocated 16, BitsStored 16")
