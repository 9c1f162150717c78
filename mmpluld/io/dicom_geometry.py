"""Where the slices of a DICOM series lie: one even stack, or a refusal that says where it is not one."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmpluld.errors import InputError
from mmpluld.io.dicom_files import DicomImage, header_text
from mmpluld.structures.volume import VOXEL_MM
from mmpluld.typing import FloatArray

__all__ = ["TAGS", "Slice", "parse_slice", "sorted_slices", "stack_affine", "stack_notes"]

TAGS = (
    "NumberOfFrames", "SamplesPerPixel", "Rows", "Columns", "PixelSpacing", "ImagePositionPatient",
    "ImageOrientationPatient", "SliceThickness", "SpacingBetweenSlices", "InstanceNumber", "BitsAllocated",
)  # fmt: skip
# Positions are often rounded to 0.1 mm, which may move a gap by that much.
_ROUNDING_MM = 0.11
# A few kilobytes of JPEG 2000 may unpack to 65535 x 65535 pixels; no CT has a sixtieth of that.
_MOST_PIXELS = 8192


@dataclass(frozen=True)
class Slice:
    """Header of one CT image file. Positions and directions are LPS."""

    image: DicomImage
    position: FloatArray
    row_direction: FloatArray
    column_direction: FloatArray
    pixel_spacing: tuple[float, float]
    shape_yx: tuple[int, int]

    @property
    def file(self) -> Path:
        """The image's file."""
        return self.image.file

    @property
    def normal(self) -> FloatArray:
        """Row direction x column direction."""
        return np.cross(self.row_direction, self.column_direction)


def parse_slice(image: DicomImage) -> Slice:
    """Check one header and take its geometry.

    Raises:
        InputError: If the image is multi-frame or in colour, or a number is missing, odd or implausible.
    """
    file = image.file
    for name, found in (("NumberOfFrames", "multi-frame DICOM"), ("SamplesPerPixel", "colour image")):
        count = header_text(image.header, name)
        if count not in ("", "0", "1"):
            unit, allowed = {
                "NumberOfFrames": ("frames", "one slice a file, convert the scan to NIfTI"),
                "SamplesPerPixel": ("samples a pixel", "a CT in HU, give the original series instead of a screenshot"),
            }[name]
            raise InputError(f"{file}: {found} ({count} {unit}); allowed is {allowed}")
    rows, columns = (_numbers(image, name, 1)[0] for name in ("Rows", "Columns"))
    vertical, horizontal = _numbers(image, "PixelSpacing", 2)
    orientation = np.array(_numbers(image, "ImageOrientationPatient", 6))
    position = np.array(_numbers(image, "ImagePositionPatient", 3))
    if min(rows, columns) < 1 or max(rows, columns) > _MOST_PIXELS:
        raise InputError(f"{file}: {rows:g} Rows and {columns:g} Columns; allowed are 1 to {_MOST_PIXELS} each")
    if min(vertical, horizontal) < VOXEL_MM[0] or max(vertical, horizontal) > VOXEL_MM[1]:
        raise InputError(
            f"{file}: PixelSpacing is {vertical:g} x {horizontal:g}; allowed is a spacing above 0, from "
            f"{VOXEL_MM[0]:g} to {VOXEL_MM[1]:g} mm, check its unit and export the series again"
        )
    with np.errstate(over="ignore"):
        upright = abs(np.linalg.norm(np.cross(orientation[:3], orientation[3:])) - 1.0) < 0.01
    if not upright:
        raise InputError(
            f"{file}: ImageOrientationPatient is {orientation.tolist()}; needed are two unit directions at right "
            "angles, export the series again"
        )
    return Slice(image, position, orientation[:3], orientation[3:], (vertical, horizontal), (int(rows), int(columns)))


def sorted_slices(slices: Sequence[Slice]) -> list[Slice]:
    """Order slices along the normal of the first."""
    normal = slices[0].normal
    return sorted(slices, key=lambda item: (float(item.position @ normal), item.file))


def stack_affine(folder: Path, slices: Sequence[Slice], tell_apart: Callable[[], str]) -> FloatArray:
    """Return voxel (i, j, k) to LPS of sorted slices.

    Args:
        folder: For messages.
        slices: As :func:`sorted_slices` orders them.
        tell_apart: Called when positions occur twice: how to choose one image of each, or "".

    Raises:
        InputError: If slices are missing, doubled, uneven, off the line of the others, or implausibly far apart.
    """
    first = slices[0]
    positions = np.array([item.position for item in slices])
    depth = positions @ first.normal
    gaps = np.diff(depth)
    if gaps.size:
        _check_gaps(folder, slices, depth, gaps, tell_apart)
        step = (positions[-1] - positions[0]) / gaps.size
        strays = np.linalg.norm(positions - positions[0] - np.arange(len(slices))[:, None] * step, axis=1)
        worst = int(strays.argmax())
        if strays[worst] > 0.5 * np.linalg.norm(step):
            raise InputError(
                f"{folder}: {slices[worst].file.name} lies {strays[worst]:.2f} mm off the line of the other slices; "
                "allowed is one even stack, keep the files of one scan"
            )
        source = "ImagePositionPatient"
    else:
        step = first.normal * _single_thickness(folder, first)
        source = "SliceThickness"
    distance = float(np.linalg.norm(step))
    if not VOXEL_MM[0] <= distance <= VOXEL_MM[1]:
        raise InputError(
            f"{folder}: slices lie {distance:g} mm apart by {source}; allowed is {VOXEL_MM[0]:g} to {VOXEL_MM[1]:g} "
            "mm, check its unit and export the series again"
        )
    affine = np.eye(4)
    affine[:3, 0] = first.row_direction * first.pixel_spacing[1]
    affine[:3, 1] = first.column_direction * first.pixel_spacing[0]
    affine[:3, 2] = step
    affine[:3, 3] = first.position
    return affine


def stack_notes(slices: Sequence[Slice]) -> list[str]:
    """Return what is odd about the headers of an even stack, but changes nothing about how it is read."""
    return [*_spacing_note(slices), *_instance_note(slices)]


def _numbers(image: DicomImage, name: str, count: int) -> list[float]:
    text = header_text(image.header, name)
    try:
        values = [float(item) for item in text.split("\\")]
    except ValueError:
        values = []
    if len(values) != count or not all(map(math.isfinite, values)):
        shown = f"'{text}'" if text else "None"
        raise InputError(f"{image.file}: {name} is {shown}; needed are {count} numbers, export the series again")
    return values


def _single_thickness(folder: Path, only: Slice) -> float:
    if not header_text(only.image.header, "SliceThickness"):
        raise InputError(f"{folder}: one slice without SliceThickness; needed is a volume, add the other slices")
    return _numbers(only.image, "SliceThickness", 1)[0]


def _check_gaps(
    folder: Path, slices: Sequence[Slice], depth: FloatArray, gaps: FloatArray, tell_apart: Callable[[], str]
) -> None:
    def between(gap: int) -> str:
        return (
            f"{slices[gap].file.name} (at {depth[gap]:.2f} mm) and "
            f"{slices[gap + 1].file.name} (at {depth[gap + 1]:.2f} mm)"
        )

    smallest = int(gaps.argmin())
    if gaps[smallest] < 1e-3:
        more = int((gaps < 1e-3).sum()) - 1
        others = f", and so do {more} more pairs" if more else ""
        advice = tell_apart() or "allowed is one file a slice, remove one"
        raise InputError(f"{folder}: {between(smallest)} share one position{others}; {advice}")
    usual = float(np.median(gaps))
    worst = int(np.abs(gaps - usual).argmax())
    if gaps[worst] > 1.5 * usual:
        raise InputError(
            f"{folder}: slices are missing between {between(worst)}: the gap is {gaps[worst]:.2f} mm where others are "
            f"{usual:.2f} mm; add the missing files"
        )
    if abs(gaps[worst] - usual) > max(_ROUNDING_MM, 0.1 * usual):
        raise InputError(
            f"{folder}: uneven slice spacing: {gaps[worst]:.2f} mm between {between(worst)}, elsewhere {usual:.2f} mm; "
            "allowed is even spacing, resample the scan"
        )


def _spacing_note(slices: Sequence[Slice]) -> list[str]:
    """``SpacingBetweenSlices`` may be the distance along the normal or along the table, or a thickness, or wrong."""
    if len(slices) < 2:
        return []
    step = (slices[-1].position - slices[0].position) / (len(slices) - 1)
    distances = (abs(float(step @ slices[0].normal)), float(np.linalg.norm(step)))
    said = Counter(header_text(item.image.header, "SpacingBetweenSlices") for item in slices)
    said.pop("", None)
    for text in said:
        try:
            value = abs(float(text))
        except ValueError:
            value = math.nan
        if not any(abs(value - distance) <= max(0.02 * distance, 0.01) for distance in distances):
            return [
                f"SpacingBetweenSlices says {text} mm, positions say {distances[1]:.4g} mm: assumed positions are right"
            ]
    return []


def _instance_note(slices: Sequence[Slice]) -> list[str]:
    """Numbers left out between the first and the last, while the positions are even."""
    texts = [header_text(item.image.header, "InstanceNumber") for item in slices]
    if not all(text.lstrip("-").isdecimal() for text in texts):
        return []
    numbers = sorted({int(text) for text in texts})
    holes = numbers[-1] - numbers[0] + 1 - len(numbers)
    if not holes:
        return []
    return [
        f"InstanceNumbers run from {numbers[0]} to {numbers[-1]} with {holes} left out, positions are even: assumed "
        "that no slice is missing"
    ]
