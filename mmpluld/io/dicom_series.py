r"""Which images of a DICOM folder make the volume that is asked for.

Archives join under one SeriesInstanceUID what are two volumes: passes with and without contrast, phases,
reconstructions. Such a series is refused with its parts, and one of them is chosen by attribute:
``UID:AcquisitionNumber=2``, by several ``UID:ConvolutionKernel=B30f:SliceThickness=5``. A value is given as the header
holds it, several numbers joined by ``\``; ``InstanceNumber`` takes a range, ``InstanceNumber=1-24``.
"""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

from mmpluld.errors import InputError, counted, did_you_mean, name_some
from mmpluld.io.dicom_files import DicomFolder, DicomImage, header_text
from mmpluld.io.dicom_geometry import Slice, parse_slice

__all__ = [
    "TAGS", "Choice", "SeriesFacts", "check_one_volume", "check_passes", "choose_images", "fits", "refuse_no_series",
    "series_facts", "tell_apart",
]  # fmt: skip

# Attributes that never differ within a volume, and how far a number may be off.
_ONE_VALUE: dict[str, float | None] = {
    "PatientID": None,
    "StudyInstanceUID": None,
    "FrameOfReferenceUID": None,
    "ImageType": None,
    "ConvolutionKernel": None,
    "ContrastBolusAgent": None,
    "TemporalPositionIdentifier": 1e-3,
    "TemporalPositionIndex": 1e-3,
    "NominalPercentageOfCardiacPhase": 1e-3,
    "KVP": 1e-3,
    "Rows": 1e-3,
    "Columns": 1e-3,
    "PixelSpacing": 1e-3,
    "ImageOrientationPatient": 1e-3,
    "SliceThickness": 1e-2,
}
# Attributes that may differ, and tell images apart that share a position.
_MAY_DIFFER: dict[str, float | None] = {
    "AcquisitionNumber": 1e-3,
    "SeriesNumber": 1e-3,
    "SeriesDescription": None,
    "AcquisitionTime": None,
}
# What tells whose images they are.
_IDENTITY = ("PatientID", "StudyInstanceUID", "FrameOfReferenceUID")
# What software that writes single images makes up for each; then it tells nothing.
_MADE_UP = ("StudyInstanceUID", "FrameOfReferenceUID")
# What some exports leave out of single images; two volumes would both have it.
_MAY_LACK = ("KVP", "ConvolutionKernel", "SliceThickness")
_ALL = {**_ONE_VALUE, **_MAY_DIFFER, "InstanceNumber": None}
_RANGE = re.compile(r"([0-9]+)-([0-9]+)")
TAGS = ("SeriesInstanceUID", *_ALL)
# More parts than this are no parts but a property of each slice.
_MOST_PARTS = 50


class Choice:
    """What ``--series`` asks for: a SeriesInstanceUID, values of attributes, or both.

    Attributes:
        uid: The series; None where it is not named.
        values: Attribute -> value.

    Raises:
        InputError: If an attribute is unknown.
    """

    def __init__(self, folder: Path, series: str | None) -> None:
        uid, *pairs = re.split(r":(?=[A-Za-z]+=)", series or "")
        if "=" in uid:
            uid, pairs = "", [uid, *pairs]
        self.uid = uid or None
        self.values = dict(pair.split("=", 1) for pair in pairs)
        for name in self.values:
            if name not in _ALL:
                allowed = ", ".join(_ALL)
                hint = did_you_mean(name, _ALL, "choose one of them")
                raise InputError(f"{folder}: series '{series}' names {name}; allowed are {allowed}{hint}")

    def note(self) -> str:
        """The part that was chosen, for the history: without what names a person."""
        values = [f"{name} {value}" for name, value in self.values.items() if name not in _IDENTITY]
        return f" ({', '.join(values)})" if values else ""

    def example(self, uid: str, name: str, value: str) -> str:
        """The option that chooses this part of a series as well, and what to do for commands that have none."""
        values = {**self.values, name: value}
        chosen = ":".join([uid, *(f"{key}={text}" for key, text in values.items())])
        return f"--series {shlex.quote(chosen)} (`detect`), or keep its files in a folder of their own"


def choose_images(folder: Path, found: DicomFolder, choice: Choice) -> list[DicomImage]:
    """Return the images of the series and part asked for.

    Raises:
        InputError: If there is none, or several and none is chosen; if files that by place and name belong to it cannot
            be read, or are images of another modality.
    """
    images = _series_images(folder, found, choice)
    lost = found.lost(folder, images)
    if lost:
        more = f", and {len(lost) - 1} more such files" if len(lost) > 1 else ""
        raise InputError(f"{lost[0].fault}{more}; it may be a slice, copy or export it again, or remove it if not")
    for name, value in choice.values.items():
        images = _with_value(folder, images, name, value)
    return images


def check_one_volume(folder: Path, images: Sequence[DicomImage], choice: Choice) -> list[str]:
    """Refuse images that differ in what one volume has once; return notes on what was made up or left out.

    Raises:
        InputError: With the parts and how to choose one.
    """
    notes = []
    for name, tolerance in _ONE_VALUE.items():
        groups = _groups(images, name, tolerance)
        if name in _MADE_UP and len(groups) == len(images) > 1:
            notes.append(f"{name} is another one in each file: assumed one scan")
        elif name in _MAY_LACK and len(groups) == 2 and "" in groups:
            notes.append(f"{name} is missing in {len(groups[''])} of {len(images)} files: assumed that of the others")
        elif len(groups) > 1:
            raise InputError(f"{folder}: {_parts(images, name, groups, choice)}")
    return notes


def check_passes(folder: Path, slices: Sequence[Slice], choice: Choice) -> list[str]:
    """Refuse slices of several passes along the table that mix; return notes on passes that follow each other.

    Args:
        folder: For messages.
        slices: Ordered along z.
        choice: As it was asked for.

    Raises:
        InputError: With the parts and how to choose one.
    """
    images = [item.image for item in slices]
    groups = _groups(images, "AcquisitionNumber", _ALL["AcquisitionNumber"])
    notes = []
    if len(groups) > 1:
        index = {image.file: number for number, group in enumerate(groups.values()) for image in group}
        order = [index[image.file] for image in images]
        runs = 1 + sum(one != two for one, two in zip(order, order[1:], strict=False))
        if runs > len(groups):
            raise InputError(f"{folder}: {_parts(images, 'AcquisitionNumber', groups, choice)}")
        listed = f"{_listed(groups, files=False)}, " if len(groups) <= 8 else ""
        notes.append(
            f"AcquisitionNumber takes {len(groups)} values along z, {listed}in one even stack: assumed one volume"
        )
    if "InstanceNumber" not in choice.values and (sweeps := _sweeps(slices)):
        uid = header_text(images[0].header, "SeriesInstanceUID")
        example = choice.example(uid, "InstanceNumber", next(iter(sweeps)))
        raise InputError(
            f"{folder}: InstanceNumber runs through the same stretch {len(sweeps)} times, {_listed(sweeps)}; a volume "
            f"is one pass, choose one with {example}; a wider range takes all that belong together"
        )
    return notes


def tell_apart(slices: Sequence[Slice], choice: Choice) -> str:
    """Return how to choose one image of each position, as the end of a message; "" if no attribute tells them apart."""
    images = [item.image for item in slices]
    places = {item.file: tuple(np.round(item.position, 2)) for item in slices}
    for name, tolerance in _MAY_DIFFER.items():
        groups = _groups(images, name, tolerance)
        once = all(max(Counter(places[image.file] for image in group).values()) == 1 for group in groups.values())
        if 1 < len(groups) <= _MOST_PARTS and once and min(map(len, groups.values())) > 1:
            return _parts(images, name, groups, choice)
    return ""


def refuse_no_series(folder: Path, found: DicomFolder) -> NoReturn:
    """Say what is there in place of a CT series.

    Raises:
        InputError: Always.
    """
    damaged = [item for item in found.unreadable if item.dicom or item.silent]
    if damaged:
        raise InputError(f"{damaged[0].fault}; no CT image is there, copy or export the series again")
    counts = Counter(found.skipped)
    counts["not DICOM"] += len(found.unreadable)
    listed = ", ".join(f"{count} {what}" for what, count in sorted(counts.items()) if count)
    raise InputError(
        f"{folder}: no CT image among its files (found {listed or 'none'}); give a folder with a CT series"
    )


def fits(images: Sequence[DicomImage], choice: Choice) -> bool:
    """Whether some of the images of a series have the values that are asked for."""
    return all(
        any(_same(text, value, _ALL[name]) for text in {header_text(image.header, name) for image in images})
        or name == "InstanceNumber"  # its range chooses a part of a series, no series
        for name, value in choice.values.items()
    )


@dataclass(frozen=True)
class SeriesFacts:
    """What the headers of a series say, for people who choose one; texts as they are written there.

    Attributes:
        uid, number, description, kernel, thickness, patient: SeriesInstanceUID, SeriesNumber, SeriesDescription,
            ConvolutionKernel, SliceThickness and PatientID; where images differ, that of the first.
        images: How many files.
        positions: How many places along the normal they have; None if that of one is not known.
        interval_mm: Usual distance of neighbouring places; None if there is one alone or they are not known.
        size: Columns and rows.
    """

    uid: str
    number: str
    description: str
    kernel: str
    thickness: str
    patient: str
    images: int
    positions: int | None
    interval_mm: float | None
    size: tuple[str, str]


def series_facts(uid: str, images: Sequence[DicomImage], whole: bool = True) -> SeriesFacts:
    """Gather what the headers of a series say; it is not ``whole`` if files that may belong to it cannot be read."""

    def text(name: str) -> str:
        return header_text(images[0].header, name)

    depths = _depths(images)
    gaps = np.diff(depths or [])
    return SeriesFacts(
        uid, text("SeriesNumber"), text("SeriesDescription"), text("ConvolutionKernel"), text("SliceThickness"),
        text("PatientID"), len(images), len(depths) if depths and whole else None,
        float(np.median(gaps)) if gaps.size else None, (text("Columns"), text("Rows")),
    )  # fmt: skip


def _depths(images: Sequence[DicomImage]) -> list[float] | None:
    """Places along the normal of the first image, in mm, to 0.01 mm; None if one of the images is no readable slice."""
    try:
        slices = [parse_slice(image) for image in images]
    except InputError:
        return None
    normal = slices[0].normal
    return sorted({round(float(item.position @ normal), 2) for item in slices})


def _series_images(folder: Path, found: DicomFolder, choice: Choice) -> list[DicomImage]:
    listed = ", ".join(f"{uid or 'none'} ({len(items)} files)" for uid, items in sorted(found.series.items()))
    if not found.series:
        refuse_no_series(folder, found)
    if choice.uid is not None:
        if choice.uid not in found.series:
            hint = did_you_mean(choice.uid, found.series, "choose one of them")
            raise InputError(f"{folder}: no CT series '{choice.uid}'; there are {listed}{hint}")
        return found.series[choice.uid]
    if len(found.series) > 1:
        raise InputError(
            f"{folder}: {len(found.series)} CT series: {listed}; choose one with --series UID (`detect`), or keep the "
            "files of one in a folder of their own"
        )
    return next(iter(found.series.values()))


def _with_value(folder: Path, images: list[DicomImage], name: str, value: str) -> list[DicomImage]:
    """The images whose attribute has a value asked for."""
    bounds = _RANGE.fullmatch(value) if name == "InstanceNumber" else None
    groups = _groups(images, name, _ALL[name])
    if bounds is None:
        chosen = next((group for text, group in groups.items() if _same(text, value, _ALL[name])), [])
    else:
        low, high = int(bounds[1]), int(bounds[2])
        chosen = [image for text in groups if text.isdecimal() and low <= int(text) <= high for image in groups[text]]
    if not chosen:
        raise InputError(f"{folder}: no image has {name} '{value}'; there are {_listed(groups)}, choose one of them")
    return chosen


def _groups(images: Iterable[DicomImage], name: str, tolerance: float | None) -> dict[str, list[DicomImage]]:
    """Value of an attribute, as the first image with it writes it -> the images that have it, in order."""
    groups: dict[str, list[DicomImage]] = {}
    known: dict[str, str] = {}
    for image in images:
        text = header_text(image.header, name)
        if text not in known:
            known[text] = next((value for value in groups if _same(value, text, tolerance)), text)
        groups.setdefault(known[text], []).append(image)
    return groups


def _same(one: str, two: str, tolerance: float | None) -> bool:
    if one == two or tolerance is None:
        return one == two
    try:
        first, second = ([float(item) for item in text.split("\\")] for text in (one, two))
    except ValueError:
        return False
    return len(first) == len(second) and bool(np.allclose(first, second, rtol=0.0, atol=tolerance))


def _sweeps(slices: Sequence[Slice]) -> dict[str, list[DicomImage]]:
    """Ranges of InstanceNumber in which the table moves one way, if they cover the same stretch; else none."""
    texts = [header_text(item.image.header, "InstanceNumber") for item in slices]
    if len(slices) < 4 or len(set(texts)) < len(texts) or not all(text.isdecimal() for text in texts):
        return {}
    numbered = sorted(zip(map(int, texts), range(len(slices)), strict=True))
    normal = slices[0].normal
    sweeps: list[list[tuple[int, int]]] = [[numbered[0]]]
    for number, place in numbered[1:]:
        last = sweeps[-1]
        if len(last) > 1 and (place > last[-1][1]) != (last[-1][1] > last[-2][1]):
            sweeps.append([])
        sweeps[-1].append((number, place))
    if len(sweeps) < 2 or min(map(len, sweeps)) < 3:  # one pass, but for single slices numbered out of order
        return {}
    ends = [sorted(float(slices[sweep[end][1]].position @ normal) for end in (0, -1)) for sweep in sweeps]
    if not any(_overlap(one, two) for one, two in zip(ends, ends[1:], strict=False)):
        return {}
    return {f"{sweep[0][0]}-{sweep[-1][0]}": [slices[place].image for _, place in sweep] for sweep in sweeps}


def _overlap(one: Sequence[float], two: Sequence[float]) -> bool:
    """Whether two ranges share more than half of the shorter one."""
    shared = min(one[1], two[1]) - max(one[0], two[0])
    return shared > 0.5 * min(one[1] - one[0], two[1] - two[0])


def _parts(images: Sequence[DicomImage], name: str, groups: dict[str, list[DicomImage]], choice: Choice) -> str:
    """The parts of a series by one attribute, and how to choose the largest."""
    uid = header_text(images[0].header, "SeriesInstanceUID")
    largest = max(groups, key=lambda value: len(groups[value]))
    return (
        f"series {uid} holds {len(groups)} parts that are not one volume, by {name}: {_listed(groups)}; choose one "
        f"with {choice.example(uid, name, largest)}"
    )


def _listed(groups: dict[str, list[DicomImage]], files: bool = True) -> str:
    """Values with numbers of slices; a part of one slice with its file, but in notes, which go into histories."""
    items = [
        f"'{value}' ({group[0].file.name if len(group) == 1 and files else counted(len(group), 'slice')})"
        for value, group in groups.items()
    ]
    return name_some(items, 10)
