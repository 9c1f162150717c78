"""What a header promises against what its file holds and what memory there is, before a voxel is read.

Libraries reserve memory for whatever a header says, fill what a file lacks with whatever the memory held before, and
leave out what it has too much. So sizes are compared here first.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import BinaryIO, Literal

from mmpluld.compat.memory import available_memory
from mmpluld.errors import InputError, NoMemoryError
from mmpluld.inputs import file_size

__all__ = [
    "Coding",
    "Promise",
    "check_held",
    "check_memory",
    "check_ratio",
    "check_volume",
    "data_names",
    "size_message",
    "voxel_file",
]

Coding = Literal["raw", "deflate", "text", "hex", "unknown"]

_BLOCK = 1 << 20
# Deflate makes at most 1032 bytes of one.
_DEFLATE_RATIO = 1032
_MOST_FILES = 100_000


@dataclass(frozen=True)
class Promise:
    """What a header says of its voxels.

    Attributes:
        shape: Sizes of the axes, in file order.
        kind: Type of the voxels in the header's words.
        voxel_bytes: Bytes of one voxel.
    """

    shape: tuple[int, ...]
    kind: str
    voxel_bytes: int

    @property
    def voxels(self) -> int:
        """How many there are."""
        return math.prod(self.shape)

    def __str__(self) -> str:
        return f"{' x '.join(map(str, self.shape))} of {self.kind}"


def check_volume(file: Path, shape: Sequence[int]) -> tuple[int, int, int]:
    """Return the 3D shape if all further axes are of length one.

    Raises:
        InputError: It is no 3D volume.
    """
    if len(shape) < 3 or any(size != 1 for size in shape[3:]) or min(shape) < 1:
        size = " x ".join(map(str, shape))
        raise InputError(
            f"{file}: image size is {size}; needed is one 3D volume (a fourth axis of 1 is fine), split the file"
        )
    return (int(shape[0]), int(shape[1]), int(shape[2]))


def check_memory(file: Path, promise: Promise) -> None:
    """Refuse a volume that does not fit into memory beside its copy in HU.

    Raises:
        NoMemoryError: It does not fit.
    """
    needed, free = promise.voxels * (promise.voxel_bytes + 4), available_memory()
    if needed > free:
        raise NoMemoryError(
            f"{file}: {promise} needs {needed / 2**30:.1f} GiB of memory, of which {free / 2**30:.1f} GiB are free; "
            "use a machine with more memory, or cut the scan (if it is not that large, its header is damaged)"
        )


def check_held(file: Path, promise: Promise, coding: Coding = "raw", start: int = 0, share: int = 1) -> None:
    """Refuse a file that holds more or less than its header promises.

    Args:
        file: Where the voxels are.
        promise: Of the whole volume.
        coding: How the voxels are written. What the reading library cannot decode either is left to it.
        start: Bytes of the file before the voxels; -1 if these are its last bytes, whatever is before.
        share: How many files hold the volume, in equal parts.

    Raises:
        InputError: The file holds another number of bytes, or its compressed data are damaged.
    """
    size = file_size(file) - max(start, 0)
    promised = promise.voxels * promise.voxel_bytes // share
    if coding == "raw":
        held = promised if start < 0 and size >= promised else size
    elif coding == "unknown":
        return
    else:
        if coding == "deflate":
            check_ratio(file, promise, size, share)
        with file.open("rb") as stream:
            stream.seek(max(start, 0))
            held = _COUNTS[coding](stream, promised, file)
        if coding == "text":
            promised = promise.voxels // share
    if held != promised:
        text = f"more than {promised}" if held > promised and coding == "deflate" else str(held)
        raise InputError(size_message(file, promise, f"{text} {'numbers' if coding == 'text' else 'bytes'}", promised))


def check_ratio(file: Path, promise: Promise, size: int, share: int = 1) -> None:
    """Refuse a promise that no ``size`` bytes of compressed data can keep.

    Raises:
        InputError: It is too large.
    """
    promised = promise.voxels * promise.voxel_bytes // share
    if promised > _DEFLATE_RATIO * max(size, 0) + 1024:
        raise InputError(size_message(file, promise, f"{size} compressed bytes", promised))


def size_message(file: Path, promise: Promise, held: str, promised: int) -> str:
    """The message for a file that holds other data than its header promises."""
    return (
        f"{file}: holds {held} of voxels, but its header promises {promised} ({promise}); it is damaged or cut off, "
        "copy or export it again"
    )


def _inflated(stream: BinaryIO, limit: int, file: Path) -> int:
    """Bytes that a zlib or gzip stream holds, counted no further than just above ``limit``."""
    decoder, count = zlib.decompressobj(47), 0
    try:
        while not decoder.eof and count <= limit:
            block = decoder.unconsumed_tail or stream.read(_BLOCK)
            if not block:
                raise InputError(
                    f"{file}: compressed data end early; it is damaged or cut off, copy or export it again"
                )
            count += len(decoder.decompress(block, _BLOCK))
    except zlib.error as error:
        reason = f"compressed data do not decode ({error})"
        raise InputError(f"{file}: {reason}; it is damaged or cut off, copy or export it again") from None
    return count + len(decoder.unused_data) + len(stream.read(1))


def _numbers(stream: BinaryIO, _: int, __: Path) -> int:
    """Numbers in a text."""
    count, inside = 0, False
    while block := stream.read(_BLOCK):
        words = len(block.split())
        count += words - (1 if words and inside and not block[:1].isspace() else 0)
        inside = not block[-1:].isspace()
    return count


def _hex_bytes(stream: BinaryIO, _: int, __: Path) -> int:
    """Bytes written as two hexadecimal digits each."""
    digits = 0
    while block := stream.read(_BLOCK):
        digits += sum(map(len, block.split()))
    return digits // 2


_COUNTS = {"deflate": _inflated, "text": _numbers, "hex": _hex_bytes}


@contextmanager
def voxel_file(header: Path, name: str) -> Iterator[Path]:
    """Yield the path of a file with voxels; what is wrong with it is said of the header, which the user gave."""
    try:
        yield header.parent / name
    except InputError as error:
        raise type(error)(f"{header}: its voxels in {error}") from None


def data_names(header: Path, field: str, value: str, following: Sequence[str], shape: Sequence[int]) -> list[str]:
    """Names of the files that hold the voxels, as MetaImage and NRRD write them in their header.

    Args:
        header: The header's file.
        field: Name of the field, for messages.
        value: Its value: a name, ``LIST [DIMENSION]`` with the names in the lines that follow, or a pattern with
            numbers, ``slice%03d.raw FIRST LAST STEP [DIMENSION]``.
        following: Lines after the field.
        shape: Sizes of the axes.

    Raises:
        InputError: A name leaves the header's folder, or there are more or fewer names than slices.
    """
    words = value.split()
    dimension = len(shape) - 1
    if words[:1] == ["LIST"]:
        names = [line.strip() for line in following if line.strip()]
        dimension = _whole(header, field, value, words[1:] or [str(dimension)])[0]
    elif "%" in value:
        names, extra = _numbered(header, field, value, words)
        dimension = extra if extra is not None else dimension
    else:
        _check_name(header, field, value)
        return [value]
    if not 1 <= dimension <= len(shape):
        raise InputError(
            f"{header}: {field} is {value!r}; the dimension of a file is 1 to {len(shape)}, mend the header"
        )
    needed = math.prod(shape[dimension:])
    if len(names) != needed:
        raise InputError(
            f"{header}: {field} names {len(names)} files where {needed} are needed for {' x '.join(map(str, shape))} "
            "voxels; add the missing ones, or mend the header"
        )
    for name in names:
        _check_name(header, field, name)
    return names


def _numbered(header: Path, field: str, value: str, words: list[str]) -> tuple[list[str], int | None]:
    """Names of a pattern and the dimension of a file, if it is given."""
    if not re.fullmatch(r"[^%]*%0?\d?d[^%]*", words[0]) or len(words) not in (4, 5):
        raise InputError(
            f"{header}: {field} is {value!r}; allowed is a name without %, or 'slice%03d.raw FIRST LAST STEP', mend "
            "the header"
        )
    first, last, step, *rest = _whole(header, field, value, words[1:])
    if step == 0 or abs(last - first) // abs(step) > _MOST_FILES:
        raise InputError(f"{header}: {field} is {value!r}; its numbers make no list of files, mend the header")
    numbers = range(first, last + (1 if step > 0 else -1), step)
    return [words[0] % number for number in numbers], rest[0] if rest else None


def _whole(header: Path, field: str, value: str, words: Sequence[str]) -> list[int]:
    if not all(re.fullmatch(r"-?\d{1,9}", word) for word in words):
        raise InputError(f"{header}: {field} is {value!r}; needed are whole numbers there, mend the header")
    return [int(word) for word in words]


def _check_name(header: Path, field: str, name: str) -> None:
    """A header may not make the program read files elsewhere on the machine."""
    windows, posix = PureWindowsPath(name), PurePosixPath(name)
    if windows.drive or windows.root or posix.root or ".." in (*windows.parts, *posix.parts) or not name:
        raise InputError(
            f"{header}: {field} is {name!r}; allowed is a file beside the header or in a folder beside it, move it "
            "there and mend the name"
        )
