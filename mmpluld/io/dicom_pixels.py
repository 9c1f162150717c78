"""Pixels of one DICOM image as the numbers that its header describes, and their rescale to Hounsfield units.

Of each pixel only ``BitsStored`` bits up to ``HighBit`` count: scanners and archives keep drawings (overlays) or
garbage in the others. Decoders differ in what they do about that, so they are asked for all bits that the file holds,
and one function takes those that count.
"""

from __future__ import annotations

import io
import math
import re
import struct
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmpluld.errors import InputError
from mmpluld.io.dicom_files import header_text, open_dicom
from mmpluld.io.faults import captured_stderr, damaged, reading

__all__ = ["Rescale", "read_pixels", "stored_bits"]

_TAGS = [
    "SOPClassUID",
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "NumberOfFrames",
    "PhotometricInterpretation",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "RescaleSlope",
    "RescaleIntercept",
    "RescaleType",
    "ModalityLUTSequence",
    "FloatPixelData",
    "DoubleFloatPixelData",
    "PixelData",
]
# What the JPEG libraries inside ITK say when they make up pixels.
_COMPLAINTS = re.compile(r"[^\n]*(corrupt|premature|truncat|extraneous)[^\n]*", re.IGNORECASE)
# PixelData of one frame: the element, an empty table of offsets, the begin of the frame's item; its length follows.
_FRAME = bytes.fromhex("e07f1000 4f420000 ffffffff feff00e0 00000000 feff00e0")
_FRAME_END = bytes.fromhex("feffdde0 00000000")
_J2K, _END = b"\xff\x4f\xff\x51", b"\xff\xd9"
# Start of frame of JPEG and JPEG-LS: all of C0..CF but the tables C4, C8, CC; F7.
_FRAMES = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}


@dataclass(frozen=True)
class Rescale:
    """Modality rescale of one image; None where the file does not hold it.

    ``kind`` is ``RescaleType``, "HU" if that is missing.
    """

    slope: float | None
    intercept: float | None
    kind: str = "HU"


@dataclass(frozen=True)
class _Pixels:
    """How a header says that pixels are stored."""

    shape_yx: tuple[int, int]
    allocated: int
    stored: int
    high_bit: int
    signed: bool


def read_pixels(file: Path, shape_yx: tuple[int, int]) -> tuple[npt.NDArray[Any], Rescale]:
    """Return the stored values (row, column) of an image, signed or unsigned, and their rescale.

    Args:
        file: The image.
        shape_yx: Its rows and columns.

    Raises:
        InputError: If the file is damaged or cut off, its header contradicts itself or its data, or its transfer syntax
            or units are none that can be read.
    """
    with reading(file, "DICOM"), file.open("rb") as stream:
        dataset = open_dicom(stream, specific_tags=list(_TAGS))
        if "PixelData" not in dataset:
            raise InputError(f"{file}: holds no PixelData; it is damaged or cut off, copy or export it again")
        pixels = _layout(file, dataset, shape_yx)
        rescale = _rescale(file, dataset)
        values = _decoded(file, dataset, pixels)
    return values, rescale


def stored_bits(values: npt.NDArray[Any], stored: int, high_bit: int, signed: bool) -> npt.NDArray[Any]:
    """Take the bits that count out of each pixel word.

    Args:
        values: Words of any integer type in the machine's byte order; copied if read-only and anything must change.
        stored: Number of bits that count, at least 1.
        high_bit: Place of the highest of them, counted from 0.
        signed: Whether that is a sign, to be extended.
    """
    width = values.dtype.itemsize * 8
    words: npt.NDArray[Any] = values.view(f"{'i' if signed else 'u'}{width // 8}")
    if stored == width:
        return words
    if not words.flags.writeable:
        words = words.copy()
    if high_bit < width - 1:
        np.left_shift(words, width - 1 - high_bit, out=words)
    np.right_shift(words, width - stored, out=words)
    return words


def _layout(file: Path, dataset: Any, shape_yx: tuple[int, int]) -> _Pixels:
    numbers: list[int] = []
    for name in ("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"):
        text = header_text(dataset, name)
        if name == "HighBit" and not text:
            numbers.append(numbers[1] - 1)
        elif text.isdecimal():
            numbers.append(int(text))
        else:
            raise InputError(f"{file}: {name} is '{text}'; needed is a whole number, export the series again")
    allocated, stored, high_bit, representation = numbers
    if not (
        allocated in (8, 16, 32)
        and 1 <= stored <= allocated
        and stored <= high_bit + 1 <= allocated
        and representation in (0, 1)
    ):
        raise InputError(
            f"{file}: BitsAllocated {allocated}, BitsStored {stored}, HighBit {high_bit}, PixelRepresentation "
            f"{representation}; allowed are 8, 16 or 32 bits that hold those stored, signed 1 or unsigned 0, export "
            "the series again"
        )
    photometric = header_text(dataset, "PhotometricInterpretation")
    if photometric not in ("MONOCHROME1", "MONOCHROME2", ""):
        raise InputError(f"{file}: PhotometricInterpretation is {photometric}; allowed is a CT in grey values")
    return _Pixels(shape_yx, allocated, stored, high_bit, representation == 1)


def _rescale(file: Path, dataset: Any) -> Rescale:
    if dataset.get("ModalityLUTSequence"):
        raise InputError(
            f"{file}: values are translated by a table (ModalityLUTSequence); allowed are RescaleSlope and "
            "RescaleIntercept, export the series again"
        )
    values: list[float | None] = []
    for name in ("RescaleSlope", "RescaleIntercept"):
        text = header_text(dataset, name)
        values.append(_number(text) if text else None)
        if text and (not math.isfinite(values[-1] or 0.0) or (name == "RescaleSlope" and values[-1] == 0)):
            raise InputError(f"{file}: {name} is '{text}'; needed is a finite number, export the series again")
    slope, intercept = values
    if (slope is None) != (intercept is None):
        missing, there = ("RescaleSlope", "RescaleIntercept") if slope is None else ("RescaleIntercept", "RescaleSlope")
        raise InputError(f"{file}: has {there} but no {missing}; needed are both, export the series again")
    kind = header_text(dataset, "RescaleType").upper() or "HU"
    if kind not in ("HU", "US", "HU_MOD"):
        raise InputError(f"{file}: RescaleType is {kind}; allowed are Hounsfield units (HU), give the CT itself")
    return Rescale(slope, intercept, kind)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _decoded(file: Path, dataset: Any, pixels: _Pixels) -> npt.NDArray[Any]:
    import pydicom

    syntax = dataset.file_meta.get("TransferSyntaxUID")
    encapsulated = dataset["PixelData"].is_undefined_length
    if syntax is None and encapsulated:
        raise InputError(
            f"{file}: pixels are compressed, but the file has no Transfer Syntax UID that says how; export it again "
            "with File Meta Information"
        )
    if syntax is None or not syntax.is_compressed or syntax == pydicom.uid.DeflatedExplicitVRLittleEndian:
        words = _native(file, dataset, pixels)
    elif syntax == pydicom.uid.RLELossless:
        decoder = pydicom.pixels.get_decoder(syntax)
        words, _ = decoder.as_array(
            dataset, index=0, raw=True, decoding_plugin="pydicom", correct_unused_bits=False, allow_excess_frames=False
        )
    else:
        return _from_codestream(file, dataset, syntax, pixels)
    return stored_bits(words.reshape(pixels.shape_yx), pixels.stored, pixels.high_bit, pixels.signed)


def _native(file: Path, dataset: Any, pixels: _Pixels) -> npt.NDArray[Any]:
    data = dataset.PixelData
    width = pixels.allocated // 8
    row = pixels.shape_yx[1] * width
    needed = pixels.shape_yx[0] * row
    # Some pad beyond the one byte that makes the length even, but a whole row more is an image of another size.
    if not needed <= len(data) < needed + max(row, 2):
        raise InputError(
            f"{file}: PixelData holds {len(data)} bytes, but {pixels.shape_yx[0]} x {pixels.shape_yx[1]} pixels of "
            f"{pixels.allocated} bits are {needed}; it is damaged or cut off, copy or export it again"
        )
    little = dataset.original_encoding[1] is not False
    words = np.frombuffer(data, dtype=f"{'<' if little else '>'}u{width}", count=needed // width)
    if not little and width == 1 and dataset["PixelData"].VR == "OW":
        pairs = np.frombuffer(data, dtype="u2", count=(needed + 1) // 2).byteswap()
        words = pairs.view(np.uint8)[:needed]
    return words.astype(words.dtype.newbyteorder("="), copy=False)


def _from_codestream(file: Path, dataset: Any, syntax: Any, pixels: _Pixels) -> npt.NDArray[Any]:
    """Decode JPEG, JPEG-LS or JPEG 2000 to the numbers in the codestream, then take the bits that count."""
    from pydicom.encaps import get_frame

    code = get_frame(dataset.PixelData, 0, number_of_frames=1)
    found = _codestream_header(code)
    if found is None or not _decodable(syntax):
        raise InputError(
            f"{file}: pixels in transfer syntax {syntax.name} ({syntax}) cannot be decoded; allowed are uncompressed, "
            "RLE, JPEG, JPEG-LS and JPEG 2000, decompress the series first, for example with pydicom and pylibjpeg"
        )
    shape_yx, components, precision, signed = found
    if shape_yx != pixels.shape_yx or components != 1:
        raise InputError(
            f"{file}: its compressed image has {shape_yx[0]} x {shape_yx[1]} pixels of {components} components, its "
            f"header says {pixels.shape_yx[0]} x {pixels.shape_yx[1]} of 1; export the series again"
        )
    if not 0 < precision <= (pixels.allocated if _J2K in code[:256] else min(pixels.allocated, 16)):  # JPEG has 16
        raise InputError(f"{file}: {_other_bits(precision, pixels)}")
    if _END not in code[-64:]:
        raise InputError(f"{file}: its compressed image has no end; it is damaged or cut off, copy or export it again")
    words = _with_itk(file, code, syntax, shape_yx, precision, signed)
    return _counting_bits(file, words, pixels, precision, signed)


def _counting_bits(
    file: Path, words: npt.NDArray[Any], pixels: _Pixels, precision: int, signed: bool
) -> npt.NDArray[Any]:
    """Take the bits that count out of decoded numbers of ``precision`` bits.

    Encoders keep the whole word, or the stored bits alone; the latter then are the lowest, whatever ``HighBit``. With
    fewer bits than those stored, a number is itself unless its highest bit may or may not be a sign.
    """
    fits = precision <= pixels.allocated
    high_bit = pixels.high_bit
    if precision <= pixels.stored:
        high_bit = pixels.stored - 1
        if pixels.signed and not signed and precision < pixels.stored:
            fits = fits and not bool((words >> (precision - 1)).any())
    if not fits:
        raise InputError(f"{file}: {_other_bits(precision, pixels)}")
    words = words.astype(f"{words.dtype.kind}{pixels.allocated // 8}", copy=False)
    return stored_bits(words, pixels.stored, high_bit, pixels.signed)


def _other_bits(precision: int, pixels: _Pixels) -> str:
    return (
        f"its compressed image has {precision} bits, its header says BitsAllocated {pixels.allocated}, BitsStored "
        f"{pixels.stored}, HighBit {pixels.high_bit}; decompress the series with the software that wrote it"
    )


def _decodable(syntax: Any) -> bool:
    from pydicom import uid

    return syntax in (
        uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLossless, uid.JPEGLosslessSV1, uid.JPEGLSLossless,
        uid.JPEGLSNearLossless, uid.JPEG2000Lossless, uid.JPEG2000,
    )  # fmt: skip


def _codestream_header(code: bytes) -> tuple[tuple[int, int], int, int, bool] | None:
    """Read (rows, columns), components, bits and whether signed from a codestream; None if it is none."""
    start = code.find(_J2K, 0, 256)  # after the boxes of a JP2 file, which some put around it
    if start >= 0:
        if len(code) < start + 43:
            return None
        x1, y1, x0, y0 = struct.unpack(">4I", code[start + 8 : start + 24])
        (components,) = struct.unpack(">H", code[start + 40 : start + 42])
        depth = code[start + 42]
        return (y1 - y0, x1 - x0), components, (depth & 0x7F) + 1, bool(depth & 0x80)
    place = 2 if code[:2] == b"\xff\xd8" else len(code)
    while place + 10 <= len(code):
        if code[place] != 0xFF:
            return None
        marker, length = code[place + 1], int.from_bytes(code[place + 2 : place + 4], "big")
        if marker == 0xFF:  # padding before a marker
            place += 1
        elif marker in _FRAMES:
            precision, rows, columns, components = struct.unpack(">BHHB", code[place + 4 : place + 10])
            return (rows, columns), components, precision, False
        else:
            place += 2 + length
    return None


def _with_itk(
    file: Path, code: bytes, syntax: Any, shape_yx: tuple[int, int], precision: int, signed: bool
) -> npt.NDArray[Any]:
    """Decode a codestream with ITK.

    It gets a file of its own whose header says exactly what the codestream holds and no rescale: ITK would apply that,
    and takes header and codestream for granted where they differ.
    """
    import SimpleITK as sitk

    header = _itk_header(str(syntax), shape_yx, precision, signed)
    with tempfile.TemporaryDirectory(prefix="mmpluld-") as folder, captured_stderr() as remarks:
        alone = Path(folder, "slice.dcm")
        with alone.open("wb") as stream:
            stream.writelines((header, _FRAME + struct.pack("<I", len(code) + len(code) % 2), code))
            stream.write(b"\0" * (len(code) % 2) + _FRAME_END)
        try:
            reader = sitk.ImageFileReader()
            reader.SetImageIO("GDCMImageIO")
            reader.SetFileName(str(alone))
            values: npt.NDArray[Any] = sitk.GetArrayFromImage(reader.Execute())
        except RuntimeError as error:
            raise InputError(damaged(file, f"an image in {syntax.name}", remarks() or error)) from None
        if complaint := _COMPLAINTS.search(remarks()):
            raise InputError(damaged(file, f"an image in {syntax.name}", complaint[0]))
    return values.reshape(shape_yx)


@cache
def _itk_header(syntax: str, shape_yx: tuple[int, int], precision: int, signed: bool) -> bytes:
    """A DICOM file of one grey image up to its pixels."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage

    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = syntax
    image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID = CTImageStorage
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID = "1.2.3"
    image.Rows, image.Columns = shape_yx
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated, image.PixelRepresentation = 8 if precision <= 8 else 16, int(signed)
    image.BitsStored, image.HighBit = precision, precision - 1
    stream = io.BytesIO()
    image.save_as(stream, enforce_file_format=True)
    return stream.getvalue()
