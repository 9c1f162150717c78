"""The slices of a scan as a page holds them: HU in 8 bits, so that every window can still be chosen.

Codes are fine where soft tissue is (3 HU a step) and coarse in lung (11 HU) and dense bone (33 HU). Each slice is one
JPEG, cut to the body, and stored once however many findings lie near it.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from mmpluld.structures import CTVolume, Finding
from mmpluld.visualization.pictures import GreyPicture, encode_jpeg

__all__ = ["KNOTS", "Stack", "hu_codes", "neighbourhood", "plan_stack"]

KNOTS = ((0, -1024.0), (72, -200.0), (216, 232.0), (255, 1500.0))
"""Code and HU at the ends of the straight pieces between them."""

MAX_PIXELS = 48_000_000
"""Slices are made smaller beyond it: at about 1.2 bits a pixel a page stays near 10 MB."""

_QUALITY = 90
_LEAST_MM = 70.0  # side of what is shown around a finding
_MARGIN_MM = 25.0  # around it on each side, where it is large
_AIR_HU = -500
_SEARCH_STEP = 4  # the body is looked for in every fourth voxel

Range = tuple[int, int]


@dataclass(frozen=True)
class Stack:
    """Which part of a scan is stored, and how.

    Attributes:
        slices: Canonical slices, ascending.
        x: First and last voxel (exclusive) that is stored.
        y: The same along y.
        size: Width and height of the stored pictures.
    """

    slices: tuple[int, ...]
    x: Range
    y: Range
    size: tuple[int, int]

    def pictures(self, volume: CTVolume) -> Iterator[tuple[int, str]]:
        """Yield each slice and its JPEG in base64; one is held at a time."""
        import cv2

        for z in self.slices:
            codes = hu_codes(volume.array[z, self.y[0] : self.y[1], self.x[0] : self.x[1]])
            if codes.shape[::-1] != self.size:
                codes = cv2.resize(codes, self.size, interpolation=cv2.INTER_AREA)
            yield z, base64.b64encode(encode_jpeg(codes, _QUALITY)).decode("ascii")


@cache
def _table() -> GreyPicture:
    """(65536,) code of each HU, in the order of the bits of int16."""
    codes, hu = np.array(KNOTS).T
    every = np.arange(65536, dtype=np.uint16).view(np.int16)
    table: GreyPicture = np.interp(every, hu, codes).round().astype(np.uint8)
    return table


def hu_codes(slice_hu: npt.NDArray[Any]) -> GreyPicture:
    """Turn HU (H, W), int16 or float32, into codes 0 to 255."""
    if slice_hu.dtype != np.int16:
        slice_hu = np.nan_to_num(slice_hu, nan=-1024.0).clip(-1024, 3071).round().astype(np.int16)
    return _table()[np.ascontiguousarray(slice_hu).view(np.uint16)]


def neighbourhood(volume: CTVolume, finding: Finding) -> tuple[Range, Range, Range]:
    """What is shown around a finding: first and last voxel (exclusive) along x, y, z.

    It is a cube in millimetres, cut where the scan ends, of at least 70 mm and 25 mm around the box.
    """
    box = np.array(finding.box_canonical)
    box[[0, 1]] = np.minimum(box[[0, 1]], finding.key_box[:2])
    box[[3, 4]] = np.maximum(box[[3, 4]], finding.key_box[2:])
    spacing, shape = np.array(volume.spacing_mm[::-1]), np.array(volume.shape[::-1])
    side = max(_LEAST_MM, float(((box[3:] - box[:3]) * spacing).max()) + 2 * _MARGIN_MM) / spacing
    start = np.floor((box[:3] + box[3:]) / 2 - side / 2)
    start = np.maximum(np.minimum(start, shape - np.ceil(side)), 0).astype(int)
    stop = np.minimum(start + np.ceil(side).astype(int), shape)
    start = np.minimum(start, stop - 1)
    x, y, z = ((int(a), int(b)) for a, b in zip(start, stop, strict=True))
    key = int(np.clip(finding.key_slice, 0, volume.shape[0] - 1))
    return x, y, (min(z[0], key), max(z[1], key + 1))


def plan_stack(volume: CTVolume, findings: Sequence[Finding], max_pixels: int = MAX_PIXELS) -> Stack:
    """Decide what to store: all slices near a finding, cut to the body and to what is near a finding."""
    near = [neighbourhood(volume, finding) for finding in findings]
    slices = tuple(sorted({z for _, _, (first, end) in near for z in range(first, end)}))
    x, y = body_of(volume)
    x = (min([x[0], *(n[0][0] for n in near)]), max([x[1], *(n[0][1] for n in near)]))
    y = (min([y[0], *(n[1][0] for n in near)]), max([y[1], *(n[1][1] for n in near)]))
    width, height = x[1] - x[0], y[1] - y[0]
    scale = min(1.0, (max_pixels / (max(len(slices), 1) * width * height)) ** 0.5)
    return Stack(slices, x, y, (max(1, round(width * scale)), max(1, round(height * scale))))


def body_of(volume: CTVolume) -> tuple[Range, Range]:
    """First and last voxel (exclusive) along x and y that is not air, with some room; all of a scan of air."""
    step = _SEARCH_STEP
    thick: npt.NDArray[np.bool_] = np.any(volume.array[::step, ::step, ::step] > _AIR_HU, axis=0)
    ranges = []
    for size, line in ((volume.shape[2], np.any(thick, axis=0)), (volume.shape[1], np.any(thick, axis=1))):
        found = np.flatnonzero(line)
        if len(found):
            ranges.append((max(0, int(found[0]) * step - 2 * step), min(size, int(found[-1]) * step + 3 * step)))
        else:
            ranges.append((0, size))
    return ranges[0], ranges[1]
