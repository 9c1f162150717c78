"""The header of an NRRD file, attached or detached, read as far as needed to check it before ITK reads the voxels."""

from __future__ import annotations

import os
import re
from pathlib import Path

from mmpluld.errors import InputError
from mmpluld.inputs import file_size
from mmpluld.io.faults import damaged
from mmpluld.io.promised import Coding, Promise, check_held, check_memory, data_names, voxel_file
from mmpluld.io.text_header import TextHeader, numbers, whole_numbers

__all__ = ["nrrd_parts", "read_nrrd_header"]

_NAMES = {
    1: ("signed char", "int8", "int8_t", "uchar", "unsigned char", "uint8", "uint8_t"),
    2: ("short", "short int", "signed short", "signed short int", "int16", "int16_t", "ushort", "unsigned short",
        "unsigned short int", "uint16", "uint16_t"),
    4: ("int", "signed int", "int32", "int32_t", "uint", "unsigned int", "uint32", "uint32_t", "float"),
    8: ("longlong", "long long", "long long int", "signed long long", "signed long long int", "int64", "int64_t",
        "ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t", "double"),
}  # fmt: skip
_BYTES = {name: size for size, names in _NAMES.items() for name in names}
_CODINGS: dict[str, Coding] = {
    "raw": "raw", "gzip": "deflate", "gz": "deflate", "ascii": "text", "text": "text", "txt": "text", "hex": "hex",
}  # fmt: skip
# Spaces whose axes are the patient's.
_PATIENT = re.compile(r"(lps|ras|las|(left|right)-(anterior|posterior)-superior)(t|-time)?$")
_MILLIMETRES = ("", "mm", "millimeter", "millimeters", "millimetre", "millimetres", "???", "none")
_DATA_FILE = "data file"
_MOST_BYTES = 1 << 20


def read_nrrd_header(file: Path) -> TextHeader:
    """Read an NRRD's header and compare what it promises with the files that hold the voxels.

    Raises:
        InputError: A field that is needed is missing or no such value, the size of a voxel is missing or not in mm, the
            voxels are elsewhere than below the header's folder, or the files hold more or less than promised.
    """
    fields, rest, start = _fields(file)
    for name in ("type", "dimension", "sizes", "encoding"):
        if name not in fields:
            raise InputError(damaged(file, "NRRD", f"its header has no '{name}'"))
    (dimension,) = whole_numbers(file, "dimension", fields["dimension"], 1, 1, 16)
    sizes = whole_numbers(file, "sizes", fields["sizes"], dimension, 1)
    kind = fields["type"].lower()
    if kind not in _BYTES:
        raise InputError(f"{file}: type is {kind!r}; allowed are whole and real numbers, export the scan again")
    header = TextHeader(Promise(tuple(sizes), kind, _BYTES[kind]), _components(fields, sizes), "space directions")
    if header.is_volume:
        _check_geometry(file, fields, dimension, header)
        header.parts += _check_voxels(file, fields, header.promise, rest, start)
    return header


def nrrd_parts(file: Path) -> list[str]:
    """Names of the files that hold the voxels, none if they follow the header; whether these are there is not asked.

    Raises:
        InputError: The header cannot be read, or names no files that it may.
    """
    fields, rest, _ = _fields(file)
    if _DATA_FILE not in fields:
        return []
    sizes = fields.get("sizes", "")
    shape = whole_numbers(file, "sizes", sizes, len(sizes.split()), 1)
    return data_names(file, f"'{_DATA_FILE}'", fields[_DATA_FILE], rest, shape)


def _components(fields: dict[str, str], sizes: list[int]) -> int:
    """Values of a voxel, which NRRD keeps along an axis of a kind of its own."""
    for kind, size in zip(fields.get("kinds", "").lower().split(), sizes, strict=False):
        if kind not in ("domain", "space", "time", "list", "none", "???", "stub", "scalar"):
            return size
    return 1


def _fields(file: Path) -> tuple[dict[str, str], list[str], int]:
    """Fields of the header, lines after ``data file``, and the byte at which voxels start that are in the file."""
    size = file_size(file)
    with file.open("rb") as stream:
        content = stream.read(min(size, _MOST_BYTES))
    if not re.match(rb"NRRD000[1-9]\r?\n", content):
        raise InputError(damaged(file, "NRRD", "it does not begin with NRRD000"))
    fields: dict[str, str] = {}
    rest: list[str] = []
    start = content.index(b"\n") + 1
    while start < len(content):
        end = content.find(b"\n", start)
        line = content[start : end if end >= 0 else len(content)].rstrip(b"\r")
        start = end + 1 if end >= 0 else len(content)
        if not line:
            return fields, rest, start
        text = os.fsdecode(line)  # as names of files come from the system
        if fields.get(_DATA_FILE, "").split()[:1] == ["LIST"]:
            rest.append(text)
        elif not text.startswith("#") and ":=" not in text:
            _add(file, fields, text)
    if _DATA_FILE not in fields:
        raise InputError(damaged(file, "NRRD", "its header does not end, or no voxels follow"))
    return fields, rest, start


def _add(file: Path, fields: dict[str, str], line: str) -> None:
    name, found, value = line.partition(":")
    key = " ".join(name.lower().split())
    key = {"datafile": _DATA_FILE, "lineskip": "line skip", "byteskip": "byte skip"}.get(key, key)
    if not found or key in fields:
        reason = f"'{key[:40]}' appears twice in its header" if found else "its header is no NRRD's"
        raise InputError(damaged(file, "NRRD", reason))
    fields[key] = value.strip()


def _check_geometry(file: Path, fields: dict[str, str], dimension: int, header: TextHeader) -> None:
    """Refuse a missing or strange size of voxels, note what else is assumed."""
    for name in ("space units", "units"):
        for unit in re.findall(r'"([^"]*)"', fields.get(name, "")):
            if unit.strip().lower() not in _MILLIMETRES:
                raise InputError(f"{file}: '{name}' is {unit!r}; needed are lengths in mm, turn them into mm")
    axes = re.findall(r"none|\([^)]*\)", fields.get("space directions", "").lower())
    vectors = [axis for axis in axes if axis != "none"]
    if vectors:
        if len(axes) != dimension or "none" in axes[:3]:
            raise InputError(
                f"{file}: 'space directions' is {fields['space directions'][:60]!r}; needed is a vector for each axis "
                "of the volume, mend the header"
            )
        for vector in vectors:
            numbers(file, "space directions", vector.strip("()").replace(",", " "), vectors[0].count(",") + 1)
        space = fields.get("space", "")
        if not _PATIENT.match(space.lower()):
            said = f"space is '{space}', which names no directions of the patient" if space else "no 'space'"
            header.notes.append(f"{said}: axes of the world assumed to be left, posterior, superior")
        if "space origin" not in fields:
            header.notes.append("no 'space origin' in the header: the first voxel assumed at 0, 0, 0")
        return
    words = fields.get("spacings", "").lower().split()
    if len(words) != dimension or "nan" in words[:3]:
        raise InputError(
            f"{file}: its header has no 'space directions' (and no 'spacings'), so the size of a voxel is unknown; add "
            "them in mm, or export the scan again"
        )
    header.lengths = "spacings"
    if min(numbers(file, "spacings", " ".join(words[:3]), 3)) <= 0:
        raise InputError(f"{file}: 'spacings' is {fields['spacings']!r}; a spacing is above 0, mend the header")
    header.notes.append(
        "no 'space directions' in the header: axes assumed to run left, back and up, the first voxel at 0, 0, 0"
    )


def _check_voxels(file: Path, fields: dict[str, str], promise: Promise, rest: list[str], start: int) -> list[str]:
    """Compare the voxels' files with the header; returns their names, none if the voxels follow the header."""
    check_memory(file, promise)
    coding = _CODINGS.get(fields["encoding"].lower(), "unknown")
    (lines,) = whole_numbers(file, "line skip", fields.get("line skip", "0"), 1, 0)
    (skipped,) = whole_numbers(file, "byte skip", fields.get("byte skip", "0"), 1, -1)
    if (lines or skipped) and coding != "raw":
        raise InputError(f"{file}: 'byte skip' or 'line skip' before voxels that are not plain; write them without")
    if _DATA_FILE not in fields:
        _check_file(file, promise, coding, start, lines, skipped)
        return []
    names = data_names(file, f"'{_DATA_FILE}'", fields[_DATA_FILE], rest, promise.shape)
    for name in names:
        with voxel_file(file, name) as part:
            _check_file(part, promise, coding, 0, lines, skipped, len(names))
    return names


def _check_file(
    file: Path, promise: Promise, coding: Coding, start: int, lines: int, skipped: int, share: int = 1
) -> None:
    if skipped < 0:
        check_held(file, promise, coding, -1, share)
        return
    if lines:
        file_size(file)
        with file.open("rb") as stream:
            stream.seek(start)
            for _ in range(lines):
                if not stream.readline(1 << 20):
                    break
            start = stream.tell()
    check_held(file, promise, coding, start + skipped, share)
