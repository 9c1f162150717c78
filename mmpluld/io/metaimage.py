"""The header of a MetaImage (``.mha``, ``.mhd``), read as far as needed to check it before ITK reads the voxels."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np

from mmpluld.errors import InputError
from mmpluld.inputs import file_size
from mmpluld.io.faults import damaged
from mmpluld.io.promised import Coding, Promise, check_held, check_memory, data_names, voxel_file
from mmpluld.io.text_header import TextHeader, numbers, whole_numbers

__all__ = ["metaimage_parts", "read_metaimage_header"]

# Bytes of a voxel, as MetaIO has them on every system.
_BYTES = {
    "MET_CHAR": 1, "MET_ASCII_CHAR": 1, "MET_UCHAR": 1, "MET_SHORT": 2, "MET_USHORT": 2, "MET_INT": 4, "MET_UINT": 4,
    "MET_LONG": 4, "MET_ULONG": 4, "MET_LONG_LONG": 8, "MET_ULONG_LONG": 8, "MET_FLOAT": 4, "MET_DOUBLE": 8,
}  # fmt: skip
_LAST = "ElementDataFile"
# Names that MetaIO takes for one thing.
_DIRECTIONS = ("TransformMatrix", "Rotation", "Orientation")
_POSITIONS = ("Offset", "Position", "Origin")
# MetaIO does not apply them.
_SCALE = {"ElementToIntensityFunctionSlope": 1.0, "ElementToIntensityFunctionOffset": 0.0}
_MILLIMETRES = ("mm", "?", "")
_MOST_BYTES = 1 << 20


def read_metaimage_header(file: Path) -> TextHeader:
    """Read a MetaImage's header and compare what it promises with the files that hold the voxels.

    Raises:
        InputError: A field that is needed is missing or no such value, the spacing is missing, the voxels are elsewhere
            than below the header's folder, or the files hold more or less than promised.
    """
    fields, rest, start = _fields(file)
    if not {"NDims", "DimSize", "ElementType"} <= set(fields):
        missing = next(name for name in ("NDims", "DimSize", "ElementType") if name not in fields)
        raise InputError(damaged(file, "MetaImage", f"its header has no {missing}"))
    (dimension,) = whole_numbers(file, "NDims", fields["NDims"], 1, 1, 10)
    shape = tuple(whole_numbers(file, "DimSize", fields["DimSize"], dimension, 1))
    kind = fields["ElementType"]
    if kind not in _BYTES:
        raise InputError(f"{file}: ElementType is {kind!r}; allowed are {', '.join(_BYTES)}, export the scan again")
    (channels,) = whole_numbers(file, "ElementNumberOfChannels", fields.get("ElementNumberOfChannels", "1"), 1, 1)
    header = TextHeader(Promise(shape, kind, _BYTES[kind] * channels), channels, "ElementSpacing")
    if header.is_volume:
        _check_geometry(file, fields, dimension, header)
        header.parts += _check_voxels(file, fields, header.promise, rest, start)
    return header


def metaimage_parts(file: Path) -> list[str]:
    """Names of the files that hold the voxels, none if they follow the header; whether these are there is not asked.

    Raises:
        InputError: The header cannot be read, or names no files that it may.
    """
    fields, rest, _ = _fields(file)
    if fields[_LAST].lower() == "local":
        return []
    size = fields.get("DimSize", "")
    return data_names(file, _LAST, fields[_LAST], rest, whole_numbers(file, "DimSize", size, len(size.split()), 1))


def _fields(file: Path) -> tuple[dict[str, str], list[str], int]:
    """Fields of the header, the lines after it, and the byte at which its voxels start if they are in the file."""
    size = file_size(file)
    with file.open("rb") as stream:
        content = stream.read(min(size, _MOST_BYTES))
    fields: dict[str, str] = {}
    start = 0
    while _LAST not in fields:
        end = content.find(b"\n", start)
        line = content[start : end if end >= 0 else len(content)]
        start += len(line) + 1
        if line.strip():
            name, found, value = re.sub(rb"\s*[=:]\s*", b"=", line.strip(), count=1).partition(b"=")
            key = os.fsdecode(name)
            if not found or len(line) > 4096 or key in fields:
                reason = f"{key[:40]} appears twice in its header" if key in fields else "its header is no MetaImage's"
                raise InputError(damaged(file, "MetaImage", reason))
            fields[key] = os.fsdecode(value)  # as names of files come from the system
        if end < 0 and _LAST not in fields:
            raise InputError(damaged(file, "MetaImage", f"its header has no {_LAST}"))
    lines = os.fsdecode(content[start:]).split("\n") if _is_list(fields[_LAST]) else []
    return fields, lines, start


def _is_list(value: str) -> bool:
    return value.split()[:1] == ["LIST"]


def _check_geometry(file: Path, fields: dict[str, str], dimension: int, header: TextHeader) -> None:
    """Refuse a missing spacing, note what else is assumed."""
    spacing = next((name for name in ("ElementSpacing", "ElementSize") if name in fields), None)
    if spacing is None:
        raise InputError(
            f"{file}: its header has no ElementSpacing, so the size of a voxel is unknown; add it in mm, or export the "
            "scan again"
        )
    header.lengths = f"{spacing}, in mm"
    if (unit := fields.get("DistanceUnits", "mm")).lower() not in _MILLIMETRES:
        raise InputError(f"{file}: DistanceUnits is {unit!r}; needed are lengths in mm, turn them into mm")
    for name in ("ElementSpacing", "ElementSize"):
        if name in fields and min(numbers(file, name, fields[name], dimension)) <= 0:
            raise InputError(f"{file}: {name} is {fields[name]!r}; a spacing is above 0, mend the header")
    directions = [name for name in _DIRECTIONS if name in fields]
    positions = [name for name in _POSITIONS if name in fields]
    for name in directions:
        matrix = np.reshape(numbers(file, name, fields[name], dimension**2), (dimension, dimension))
        if np.linalg.matrix_rank(matrix) < dimension:
            raise InputError(
                f"{file}: {name} is {fields[name][:60]!r}; needed are directions that differ, mend the header"
            )
    for name in positions:
        numbers(file, name, fields[name], dimension)
    for group in (directions, positions):
        if len({fields[name] for name in group}) > 1:
            raise InputError(f"{file}: its header has both {group[0]} and {group[1]}; keep the one that is right")
    if not directions:
        said = fields.get("AnatomicalOrientation", "")
        unused = f" (AnatomicalOrientation {said} is not used)" if said not in ("", "RAI", "???") else ""
        header.notes.append(f"no TransformMatrix in the header: axes assumed to run left, back and up{unused}")
    if not positions:
        header.notes.append("no Offset in the header: the first voxel assumed at 0, 0, 0")


def _check_voxels(file: Path, fields: dict[str, str], promise: Promise, rest: list[str], start: int) -> list[str]:
    """Compare the voxels' files with the header; returns their names, none if the voxels follow the header."""
    check_memory(file, promise)
    for name, nothing in _SCALE.items():
        if name in fields and numbers(file, name, fields[name], 1) != [nothing]:
            raise InputError(
                f"{file}: {name} is {fields[name]!r}, which is not applied; allowed is {nothing:g}, store the values "
                "themselves"
            )
    (skipped,) = whole_numbers(file, "HeaderSize", fields.get("HeaderSize", "0"), 1, -1)
    coding: Coding = "raw"
    if fields.get("CompressedData", "False")[:1] in "Tt1":
        coding = "deflate"
    elif fields.get("BinaryData", "True")[:1] in "Ff0":
        coding = "text"
    if skipped and coding != "raw":
        raise InputError(f"{file}: HeaderSize is {skipped} for voxels that are not plain; write them without")
    value = fields[_LAST]
    if value.lower() == "local":
        offset = start if skipped == 0 else skipped
        held = file_size(file) - offset
        said = _check_compressed_size(file, fields, held, coding)
        check_held(file, promise, coding, offset)
        if said == 0 and coding == "deflate":  # ITK then decodes from a wrong byte, and tells nobody
            raise InputError(
                f"{file}: its header does not say how many compressed bytes follow; add 'CompressedDataSize = {held}' "
                f"before {_LAST}, or export the scan again"
            )
        return []
    names = data_names(file, _LAST, value, rest, promise.shape)
    for name in names:
        with voxel_file(file, name) as part:
            if len(names) == 1:
                _check_compressed_size(file, fields, file_size(part), coding)
            check_held(part, promise, coding, skipped, share=len(names))
    return names


def _check_compressed_size(file: Path, fields: dict[str, str], held: int, coding: Coding) -> int:
    """ITK takes as many bytes as the header says; returns that, 0 if it does not say."""
    if coding != "deflate":
        return 0
    (said,) = whole_numbers(file, "CompressedDataSize", fields.get("CompressedDataSize", "0"), 1, 0)
    if said not in (0, held):
        raise InputError(
            f"{file}: CompressedDataSize is {said}, but there are {held} compressed bytes; it is damaged or cut off, "
            "copy or export it again"
        )
    return said
