"""Damaged files of every kind that the package reads: each is read, or refused in one line.

Every input is a good one with seeded damage (bits flipped, cut off, lengthened, numbers of the header changed), read in
a child process that is watched for time and memory. To look at one again, call ``make_input`` with the
target and the number that the table names. A new kind of file is one more :class:`Target` in ``TARGETS``.

Run: python -m benchmarks fuzz --inputs 10000
"""

from __future__ import annotations

import json
import os
import re
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from benchmarks._fuzz_records import RECORDS
from mmpluld.errors import InputError
from mmpluld.io import read_volume, write_volume
from mmpluld.io.array_store import open_array, write_array
from mmpluld.io.slice_sources import PNGSliceSource
from mmpluld.structures import CTVolume

TIMEOUT_S = 20.0
MEMORY_LIMIT = 4 << 30
GOOD = ("same", "other", "refused")
BAD = ("exception", "several lines", "printed", "crash", "hang", "memory")
_HEADER = 700  # bytes in which most damage is done


@dataclass(frozen=True)
class Target:
    """A kind of file.

    Attributes:
        name: For the table and the seed.
        make: Writes a good input into an empty folder; every file there may be damaged.
        read: Reads what lies in the folder as the package does; returns something with a ``repr`` of its content.
    """

    name: str
    make: Callable[[Path], object]
    read: Callable[[Path], object]


def _volume() -> CTVolume:
    """A small body in air."""
    array = np.full((8, 14, 12), -1000, np.int16)
    array[:, 3:11, 2:10] = np.random.default_rng(3).normal(40, 30, (8, 8, 8)).astype(np.int16)
    array[:, 4:7, 3:6] = -100
    return CTVolume.from_canonical(array, (2.5, 0.8, 0.7))


def _content(volume: CTVolume) -> tuple[object, ...]:
    return volume.shape, str(volume.array.dtype), crc32(volume.array.tobytes()), volume.affine_lps.round(6).tolist()


def _scan(name: str) -> Target:
    return Target(
        name.replace("scan", "").lstrip("."),
        lambda folder: write_volume(_volume(), folder / name),
        lambda folder: _content(read_volume(folder / name)),
    )


def _compressed(suffix: str) -> Target:
    def make(folder: Path) -> None:
        import SimpleITK as sitk

        image = sitk.GetImageFromArray(_volume().array)
        image.SetSpacing((0.7, 0.8, 2.5))
        sitk.WriteImage(image, str(folder / f"scan{suffix}"), useCompression=True)

    return Target(f"{suffix[1:]} compressed", make, lambda folder: _content(read_volume(folder / f"scan{suffix}")))


def _mhd_list() -> Target:
    def make(folder: Path) -> None:
        array = _volume().array
        names = [f"{z:02d}.raw" for z in range(len(array))]
        for name, plane in zip(names, array, strict=True):
            (folder / name).write_bytes(plane.tobytes())
        header = {"ObjectType": "Image", "NDims": 3, "BinaryData": "True", "BinaryDataByteOrderMSB": "False"}
        header |= {"ElementSpacing": "0.7 0.8 2.5", "DimSize": "12 14 8", "ElementType": "MET_SHORT"}
        lines = [f"{key} = {value}" for key, value in header.items()]
        (folder / "scan.mhd").write_text("\n".join([*lines, "ElementDataFile = LIST", *names]) + "\n")

    return Target("mhd list", make, lambda folder: _content(read_volume(folder / "scan.mhd")))


def _png_folder() -> Target:
    def make(folder: Path) -> None:
        import cv2

        for z, plane in enumerate(_volume().array[:2]):
            cv2.imwrite(str(folder / f"{z + 1:03d}.png"), (plane.astype(np.int32) + 32768).astype(np.uint16))

    def read(folder: Path) -> object:
        source = PNGSliceSource(folder, (2.5, 0.8, 0.7))
        return source.shape_yx, [crc32(source.read(int(index)).tobytes()) for index in source.indices]

    return Target("png", make, read)


def _npy() -> Target:
    def read(folder: Path) -> object:
        array = open_array(folder / "scan.npy")
        return array.shape, crc32(np.ascontiguousarray(array).tobytes())

    return Target("npy", lambda folder: write_array(folder / "scan.npy", _volume().array), read)


def _dicom(name: str, compressor: str = "") -> Target:
    """A series of three slices; ``compressor`` is that of SimpleITK, or RLE."""

    def make(folder: Path) -> None:
        import pydicom
        import SimpleITK as sitk

        for k, plane in enumerate(_volume().array[:3]):
            image = sitk.GetImageFromArray(plane[None])
            image.SetSpacing((0.7, 0.8, 2.5))
            tags = {"0008|0060": "CT", "0020|000e": "1.2.3", "0020|0013": str(k), "0020|0037": "1\\0\\0\\0\\1\\0"}
            tags |= {"0020|0032": f"0\\0\\{2.5 * k}", "0028|1052": "0", "0028|1053": "1", "0028|0030": "0.8\\0.7"}
            for tag, value in tags.items():
                image.SetMetaData(tag, value)
            writer = sitk.ImageFileWriter()
            writer.SetFileName(str(folder / f"{k}.dcm"))
            writer.KeepOriginalImageUIDOn()
            if compressor and compressor != "RLE":
                writer.UseCompressionOn()
                writer.SetCompressor(compressor)
            writer.Execute(image)
            if compressor == "RLE":
                dataset = pydicom.dcmread(folder / f"{k}.dcm")
                dataset.compress(pydicom.uid.RLELossless)
                dataset.save_as(folder / f"{k}.dcm")

    return Target(name, make, lambda folder: _content(read_volume(folder)))


TARGETS = {
    target.name: target
    for target in (
        *map(_scan, ("scan.nii", "scan.nii.gz", "scan.mha", "scan.mhd", "scan.nrrd")),
        *map(_compressed, (".mha", ".nrrd")),
        _mhd_list(),
        _png_folder(),
        _npy(),
        _dicom("dicom"),
        _dicom("dicom rle", "RLE"),
        _dicom("dicom jpeg", "JPEG"),
        _dicom("dicom jpeg 2000", "JPEG2000"),
        *(Target(name, make, read) for name, (make, read) in RECORDS.items()),
    )
}


def make_input(target: Target, number: int, folder: Path, seed: int = 0) -> str:
    """Write input ``number`` of a target into an empty folder; returns what was done to which file."""
    target.make(folder)
    random = np.random.default_rng([seed, crc32(target.name.encode()), number])
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    file = files[random.integers(len(files))]
    damage = _DAMAGES[random.integers(len(_DAMAGES))]
    file.write_bytes(damage(bytearray(file.read_bytes()), random))
    return f"{file.name}: {damage.__name__.strip('_')}"


def _place(content: bytearray, random: np.random.Generator) -> int:
    """A byte, mostly one of the header."""
    end = len(content) if random.random() < 0.2 else min(len(content), _HEADER)
    return int(random.integers(max(end, 1)))


def _flipped(content: bytearray, random: np.random.Generator) -> bytes:
    for _ in range(int(random.integers(1, 9))):
        if content:
            content[_place(content, random)] ^= 1 << int(random.integers(8))
    return bytes(content)


def _cut(content: bytearray, random: np.random.Generator) -> bytes:
    return bytes(content[: int(random.integers(len(content) + 1))])


def _lengthened(content: bytearray, random: np.random.Generator) -> bytes:
    return bytes(content) + random.bytes(int(random.integers(1, 5000)))


def _removed(content: bytearray, random: np.random.Generator) -> bytes:
    start = _place(content, random)
    return bytes(content[:start] + content[start + int(random.integers(1, 60)) :])


def _inserted(content: bytearray, random: np.random.Generator) -> bytes:
    start = _place(content, random)
    return bytes(content[:start]) + random.bytes(int(random.integers(1, 60))) + bytes(content[start:])


def _overwritten(content: bytearray, random: np.random.Generator) -> bytes:
    """A field of 1 to 8 bytes becomes an extreme."""
    start, width = _place(content, random), int(random.choice([1, 2, 4, 8]))
    fill = [b"\x00" * width, b"\xff" * width, b"\xff" * (width - 1) + b"\x7f", b"\x7f" + b"\xff" * (width - 1)]
    content[start : start + width] = fill[random.integers(4)]
    return bytes(content)


def _renumbered(content: bytearray, random: np.random.Generator) -> bytes:
    """A number in the header's text becomes another."""
    numbers = list(re.finditer(rb"[0-9]+", bytes(content[:_HEADER])))
    if not numbers:
        return _overwritten(content, random)
    found = numbers[random.integers(len(numbers))]
    values = (b"0", b"-1", b"1", b"3", b"17", b"65536", b"2147483648", b"99999999999999999999", b"1e30", b"nan", b"x")
    content[found.start() : found.end()] = values[random.integers(len(values))]
    return bytes(content)


def _line_changed(content: bytearray, random: np.random.Generator) -> bytes:
    """A line of the header is doubled, dropped, or cut."""
    lines = bytes(content).split(b"\n")
    place = int(random.integers(min(len(lines), 16)))
    change = random.integers(3)
    lines[place : place + 1] = [[lines[place]] * 2, [], [lines[place][: len(lines[place]) // 2]]][change]
    return b"\n".join(lines)


_DAMAGES = (_flipped, _cut, _lengthened, _removed, _inserted, _overwritten, _renumbered, _line_changed)


class Reader:
    """A child process that reads one folder after another; after one that ends badly the next gets a new child.

    Args:
        target: What is read.
        expected: ``repr`` of the good content.
    """

    def __init__(self, target: Target, expected: str) -> None:
        self._target, self._expected = target, expected
        self._terminal = tempfile.TemporaryFile()  # noqa: SIM115
        self._child = self._questions = self._answers = 0

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
        self._terminal.close()

    def attempt(self, folder: Path) -> tuple[str, str, int]:
        """Read a folder.

        Returns:
            The outcome (one of ``GOOD`` or ``BAD``), what was said, and the peak of the child's memory in bytes.
        """
        if not self._child:
            self._start()
        os.write(self._questions, f"{folder}\n".encode())
        answer, late = self._listen()
        self._terminal.seek(0)  # which the child shares
        printed = self._terminal.read().decode(errors="replace")
        self._terminal.seek(0)
        self._terminal.truncate()
        if late:
            os.kill(self._child, signal.SIGKILL)
            return "hang", f"above {TIMEOUT_S:g} s", self._end()[1]
        if not answer.endswith(b"\n"):
            status, peak = self._end()
            return "crash", f"status {status} {printed[-200:]}", peak
        outcome, text, peak = json.loads(answer)
        if peak > MEMORY_LIMIT:
            outcome, text = "memory", f"{peak / 2**30:.1f} GiB, {outcome} {text}"
        elif outcome in GOOD and printed:
            outcome, text = "printed", printed[-200:]
        if outcome in BAD:
            self._end()
        return outcome, text, peak

    def _start(self) -> None:
        questions, self._questions = os.pipe()
        self._answers, answers = os.pipe()
        self._child = os.fork()
        if self._child == 0:
            os.close(self._questions)
            _answer_and_exit(self._target, self._expected, questions, answers, self._terminal.fileno())
        os.close(questions)
        os.close(answers)

    def _listen(self) -> tuple[bytes, bool]:
        """The child's answer, without its line end if the child has ended; and whether it takes too long."""
        answer, deadline = b"", time.monotonic() + TIMEOUT_S
        while not answer.endswith(b"\n"):
            ready, _, _ = select.select([self._answers], [], [], max(deadline - time.monotonic(), 0))
            if not ready:
                return b"", True
            part = os.read(self._answers, 1 << 16)
            if not part:
                break
            answer += part
        return answer, False

    def _end(self) -> tuple[int, int]:
        """Status of the child, which ends when nothing more is asked, and its peak of memory in bytes."""
        if not self._child:
            return 0, 0
        os.close(self._questions)
        os.close(self._answers)
        _, status, usage = os.wait4(self._child, 0)
        self._child = 0
        return status, usage.ru_maxrss * 1024


def attempt(target: Target, folder: Path, expected: str) -> tuple[str, str, int]:
    """Read one folder in a child process of its own; returns what :meth:`Reader.attempt` does."""
    with Reader(target, expected) as reader:
        return reader.attempt(folder)


def _answer_and_exit(target: Target, expected: str, questions: int, answers: int, terminal: int) -> None:
    """What the child does: a folder a line comes in, an outcome a line goes out."""
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.dup2(terminal, 1)
        os.dup2(terminal, 2)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))  # a test may catch them
        with os.fdopen(questions) as lines:
            for line in lines:
                outcome, text = _outcome(target, Path(line.rstrip("\n")), expected)
                sys.stdout.flush()
                sys.stderr.flush()
                peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
                os.write(answers, f"{json.dumps([outcome, text[:9000], peak])}\n".encode())
    finally:
        os._exit(0)


def _outcome(target: Target, folder: Path, expected: str) -> tuple[str, str]:
    try:
        return ("same" if repr(target.read(folder)) == expected else "other"), ""
    except InputError as error:
        return ("several lines" if "\n" in str(error) else "refused"), str(error)
    except BaseException as error:
        return "exception", f"{type(error).__name__}: {' '.join(str(error).split())}"


def fuzz(target: Target, inputs: int, seed: int = 0) -> dict[str, Any]:
    """One row of the table: how many inputs ended how, the peak of memory, and the first bad one."""
    counts: Counter[str] = Counter()
    highest, worst = 0, ""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as top:
        good = Path(top) / "good"
        good.mkdir()
        target.make(good)
        with Reader(target, repr(target.read(good))) as reader:
            for number in range(inputs):
                folder = Path(top) / str(number)
                folder.mkdir()
                change = make_input(target, number, folder, seed)
                outcome, said, peak = reader.attempt(folder)
                counts[outcome] += 1
                highest = max(highest, peak)
                if outcome in BAD and not worst:
                    worst = f"{number} ({change}): {outcome} {said}".replace("|", "/")
                shutil.rmtree(folder)
    return {
        "kind": target.name,
        "inputs": inputs,
        **{outcome: counts[outcome] for outcome in (*GOOD, *BAD)},
        "peak MiB": highest >> 20,
        "first bad": worst,
    }


def run(inputs: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Share the inputs out among the targets."""
    share = -(-inputs // len(TARGETS))
    return {
        "name": "Damaged inputs",
        "bar": f"each is read or refused in one line: 0 of {', '.join(BAD)} (above {MEMORY_LIMIT >> 30} GiB)",
        "rows": [fuzz(target, share, seed) for target in TARGETS.values()],
    }
