"""Detections brought into the voxels in which the truth counts, or refused.

Whoever writes a record says what its boxes count (``frame``): the axes of a file as stored, those of the scan in
canonical orientation, or the slice numbers of a series. The truth is read in canonical x and y, with z as it numbers
its slices; detections are mapped there through the geometry that they bring along.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mmpluld.errors import InputError
from mmpluld.structures.records import (
    CANONICAL_VOXELS,
    FILE_VOXELS,
    SERIES_SLICES,
    Detections,
    DetectionSet,
    VolumeRecord,
)
from mmpluld.structures.volume import index_matrix, inverse_index_matrix, nearest_axes, permute_boxes
from mmpluld.structures.volume_record import SPACING_RTOL
from mmpluld.typing import FloatArray

__all__ = [
    "DEEPLESION_NAME",
    "Grid",
    "Placed",
    "adopt_frame",
    "fits",
    "grid_of_record",
    "grid_of_volume",
    "place",
    "turned",
]

DEEPLESION_NAME = re.compile(
    r"(?P<series>(?P<patient>\d{6})_\d{2}_\d{2})(_(?P<first>\d{3,})(-(?P<last>\d{3,}))?(\.png)?)?", re.ASCII
)
"""How DeepLesion names a series, a sub-volume of it (FIRST-LAST, also what its script exports as NIfTI), or a slice."""

# Headers keep positions as 32-bit numbers; the next voxel is 1 away.
_PLACE_ATOL_VOXELS = 0.3


@dataclass(frozen=True)
class Grid:
    """The voxels that the boxes of one volume count, as far as its record tells.

    Attributes:
        frame: As in :class:`Detections`; None is unknown.
        shape: Sizes of the axes that the boxes count.
        affine_lps: (4, 4), voxel-centre index along these axes (the first slice is 0) to LPS mm.
        spacing_mm: (x, y, z), NaN where unknown; None where not even the order of the axes is known.
        first_slice: z of the first slice in the boxes; None is unknown.
    """

    frame: str | None = None
    shape: tuple[int, int, int] | None = None
    affine_lps: FloatArray | None = None
    spacing_mm: tuple[float, ...] | None = None
    first_slice: int | None = None

    @property
    def is_file(self) -> bool:
        """Whether boxes count along the axes of a file whose geometry is known."""
        return self.frame == FILE_VOXELS and self.shape is not None and self.affine_lps is not None

    def __str__(self) -> str:
        if self.shape is None:
            return "voxels of unknown number"
        text = " x ".join(map(str, self.shape)) + " voxels"
        if self.spacing_mm is not None and np.isfinite(self.spacing_mm).any():
            text += " of " + " x ".join(f"{value:.4g}" for value in self.spacing_mm) + " mm"
        return text


@dataclass
class Placed:
    """Detections by the ids and in the voxels of the truth.

    Attributes:
        detections: Boxes and scores of each volume.
        extra: Volumes that the truth does not know, left out.
        examined: Slices (first, end) that were looked at, of the volumes of which it is known that not all were.
    """

    detections: dict[str, Detections]
    extra: list[str]
    examined: dict[str, list[tuple[int, int]]]


def grid_of_volume(volume: VolumeRecord) -> Grid:
    """What an annotation file tells of a volume."""
    height, width = volume.shape_yx
    affine = None if volume.affine_lps is None else np.array(volume.affine_lps, dtype=np.float64)
    shape = (width, height, volume.num_slices)
    return Grid(volume.frame, shape, affine, volume.spacing_mm[::-1], volume.first_slice)


def grid_of_record(found: Detections) -> Grid:
    """What a detection record tells of a volume."""
    spacing: tuple[float, ...] | None = None if found.spacing_mm is None else found.spacing_mm[::-1]
    if found.affine_lps is not None:
        spacing = tuple(np.linalg.norm(found.affine_lps[:3, :3], axis=0).tolist())
    elif found.frame == FILE_VOXELS:
        spacing = None
    first = found.first_slice if found.frame == SERIES_SLICES else 0
    return Grid(found.frame, found.shape, found.affine_lps, spacing, first)


def adopt_frame(found: Detections, other: Detections | None) -> Detections:
    """A record that does not tell its frame, or not the geometry of its file, counts as the one it is compared with.

    Raises:
        InputError: It tells another number of voxels than that one.
    """
    if other is None or other.frame is None:
        return found
    untold = found.frame is None or (found.frame == other.frame == FILE_VOXELS and found.affine_lps is None)
    if not untold:
        return found
    if found.shape is not None and other.shape is not None and found.shape != other.shape:
        raise InputError(
            f"records of one volume tell {grid_of_record(found)} and {grid_of_record(other)}; boxes of another crop or "
            "of a resampled scan cannot be compared, examine the scan that the truth is of"
        )
    return replace(
        found, frame=other.frame, shape=other.shape, affine_lps=other.affine_lps, first_slice=other.first_slice
    )


def turned(found: Detections) -> Detections:
    """The same with boxes in canonical voxels, where the record holds the geometry of its file."""
    grid = grid_of_record(found)
    if not grid.is_file:
        return found
    upright, matrix = _upright(grid)
    boxes = permute_boxes(found.boxes, matrix)
    return replace(found, boxes=boxes, frame=CANONICAL_VOXELS, shape=upright.shape, affine_lps=upright.affine_lps)


def place(
    detections: DetectionSet,
    grids: dict[str, Grid],
    records: dict[str, Detections],
    truth: str,
    first_slice: int | None = None,
) -> Placed:
    """Bring detections into the voxels of the truth.

    A scan named like a sub-volume of DeepLesion is part of the series, if the truth lists that alone.

    Args:
        detections: As they were read.
        grids: What the truth counts, by volume.
        records: The truth's own entries, where it is a detection record.
        truth: Name of its file, for messages.
        first_slice: Which slice of its series the first slice of the one scan is.

    Raises:
        InputError: If boxes cannot be mapped, are of another scan than the truth, or lie outside it.
    """
    if first_slice is not None and len(detections.volumes) != 1:
        raise InputError(
            f"--first-slice {first_slice}: there are {len(detections.volumes)} volumes; it is for one, name scans "
            "SERIES_FIRST-LAST as DeepLesion's script does"
        )
    result = Placed({}, [], {})
    parts: dict[str, list[tuple[str, Detections, tuple[int, int] | None]]] = {}
    for name, found in detections.volumes.items():
        target = name if name in grids else _series_of(name, found, grids)
        if target is None:
            result.extra.append(name)
            continue
        mapper = _Mapper(name, found, grids[target], truth, first_slice)
        mapper.adopt(records.get(target))
        parts.setdefault(target, []).append((name, *mapper.mapped()))
    for target, members in parts.items():
        result.detections[target] = _joined(target, members)
        spans = [span for _, _, span in members]
        if None not in spans:
            result.examined[target] = [span for span in spans if span is not None]
    return result


def fits(name: str, found: Detections, target: Grid, truth: str) -> bool:
    """Whether the numbers of voxels and the affines of both are known and say that they are of one scan."""
    if found.shape is None or found.affine_lps is None or target.shape is None or target.affine_lps is None:
        return False
    try:
        _Mapper(name, found, target, truth, None).mapped()
    except InputError:
        return False
    return True


class _Mapper:
    """Maps the detections of one volume."""

    def __init__(self, name: str, found: Detections, target: Grid, truth: str, first_slice: int | None) -> None:
        self.where = f"volume '{name}'"
        self.name = name
        self.found = found
        self.target = target
        self.truth = truth
        self.wanted_first = first_slice

    def adopt(self, record: Detections | None) -> None:
        """Take the frame of the truth's own record, where the detections tell none."""
        self.found = adopt_frame(self.found, record)

    def mapped(self) -> tuple[Detections, tuple[int, int] | None]:
        """The detections in the truth's voxels, and the slices (first, end) that they are of if that is known."""
        grid, span = grid_of_record(self.found), None
        boxes = self.found.boxes
        if self.wanted_first is not None and (grid.frame in (None, SERIES_SLICES) or not self._in_series):
            raise InputError(
                f"{self.where}: --first-slice {self.wanted_first} is for a scan's file whose truth counts the slices "
                "of a series; leave it out"
            )
        if grid.frame == FILE_VOXELS and not grid.is_file:
            if self.target.frame not in (None, FILE_VOXELS):
                self._refuse_file()
        elif self.target.frame == FILE_VOXELS:
            raise InputError(
                f"{self.where}: boxes are in {grid.frame}, those of {self.truth} in {FILE_VOXELS} without the "
                "geometry of the file; add its shape and affine_lps, or give the truth in canonical voxels"
            )
        elif grid.frame == SERIES_SLICES:
            span = self._check_series(grid)
        elif grid.frame is not None and self.target.frame is not None:
            boxes, span = self._map(grid)
        self._refuse_outside(boxes)
        return Detections(boxes, self.found.scores), span

    @property
    def _in_series(self) -> bool:
        return self.target.frame == SERIES_SLICES

    def _refuse_file(self) -> None:
        scan = f"the file {self.found.source}" if self.found.source else "a file"
        raise InputError(
            f"{self.where}: boxes are in voxels of {scan}, those of {self.truth} in {self.target.frame}, and the "
            "record lacks the geometry of that file (shape, affine_lps); examine the scan again with `mmpluld detect`"
        )

    def _refuse_grid(self, grid: Grid, what: str) -> None:
        raise InputError(
            f"{self.where}: {what}: examined were {grid}, {self.truth} has {self.target}; boxes of another crop or "
            "of a resampled or moved scan cannot be compared, examine the scan that the truth is of"
        )

    def _check_series(self, grid: Grid) -> tuple[int, int] | None:
        """Compare what is known of a series on both sides; boxes stay as they are."""
        if not self._in_series and grid.first_slice not in (None, self.target.first_slice):
            self._refuse_grid(grid, f"slices are counted from {grid.first_slice}, there from {self.target.first_slice}")
        self._compare(grid, depth=not self._in_series)
        if grid.shape is None or grid.first_slice is None:
            return None
        return self._checked_span(grid, grid.first_slice, grid.shape[2])

    def _map(self, grid: Grid) -> tuple[FloatArray, tuple[int, int]]:
        """Boxes of a file or of canonical voxels in the truth's voxels."""
        boxes, first = self.found.boxes, self.target.first_slice or 0
        if grid.affine_lps is not None and grid.shape is not None and self.target.affine_lps is not None:
            matrix = self._through_world(grid)
            boxes = permute_boxes(boxes, matrix)
            depth = self.target.shape[2] if self.target.shape else 0
        else:
            if grid.is_file:
                upright, matrix = _upright(grid)
                boxes, grid = permute_boxes(boxes, matrix), upright
            self._compare(grid, depth=not self._in_series)
            if self._in_series:
                first = self._first_slice(grid)
            depth = grid.shape[2] if grid.shape else 0
        boxes = boxes + np.array([0, 0, first, 0, 0, first], dtype=np.float64)
        return boxes, self._checked_span(grid, first, depth)

    def _through_world(self, grid: Grid) -> FloatArray:
        """Matrix from voxel edges to those of the truth, both of which lie in the world."""
        assert grid.shape is not None and grid.affine_lps is not None
        assert self.target.shape is not None and self.target.affine_lps is not None
        relative = np.linalg.inv(self.target.affine_lps) @ grid.affine_lps
        turn = np.rint(relative[:3, :3])
        if not (np.abs(turn).sum(axis=0) == 1).all() or not (np.abs(turn).sum(axis=1) == 1).all():
            self._refuse_grid(grid, "voxel size or directions differ")
        sizes = np.abs(turn) @ np.array(grid.shape)
        if sizes.tolist() != list(self.target.shape):
            self._refuse_grid(grid, "numbers of voxels differ")
        i, j, k = (int(axis) for axis in np.array([1, 2, 3]) @ turn)
        centres = index_matrix((i, j, k), self.target.shape, edges=False)
        corners = np.array(np.meshgrid(*[(0, size - 1) for size in grid.shape], [1])).reshape(4, -1)
        off = float(np.abs((relative - centres) @ corners).max())
        if off > _PLACE_ATOL_VOXELS:
            self._refuse_grid(grid, f"corners lie up to {off:.3g} voxels apart in the world")
        return index_matrix((i, j, k), self.target.shape, edges=True)

    def _compare(self, grid: Grid, depth: bool) -> None:
        """Refuse what is known to differ in size or spacing, of two upright grids."""
        count = 3 if depth else 2
        if grid.shape and self.target.shape and grid.shape[:count] != self.target.shape[:count]:
            self._refuse_grid(grid, "numbers of voxels differ")
        if grid.spacing_mm is not None and self.target.spacing_mm is not None:
            own, wanted = np.array(grid.spacing_mm), np.array(self.target.spacing_mm)
            if (np.abs(own - wanted) > SPACING_RTOL * wanted).any():  # not where one is NaN
                self._refuse_grid(grid, "voxel size differs")

    def _first_slice(self, grid: Grid) -> int:
        """Which slice of the series the first slice of a scan is: as told, as named, or the first of equally many."""
        if self.wanted_first is not None:
            return self.wanted_first
        named = DEEPLESION_NAME.fullmatch(self.name)
        if named and named["last"]:
            first, count = int(named["first"]), int(named["last"]) - int(named["first"]) + 1
            if grid.shape is None or grid.shape[2] == count:
                return first
            self._refuse_grid(grid, f"the name tells {count} slices, {first} to {named['last']} (or use --first-slice)")
        if grid.shape is not None and self.target.shape is not None and grid.shape[2] == self.target.shape[2]:
            return self.target.first_slice or 0
        slices = f"{grid.shape[2]} slices" if grid.shape else "slices of unknown number"
        known = "slices of a series"
        if self.target.shape is not None and self.target.first_slice is not None:
            known = f"slices {self.target.first_slice} to {self.target.first_slice + self.target.shape[2] - 1}"
        raise InputError(
            f"{self.where}: a scan of {slices}, but {self.truth} counts {known}; name it SERIES_FIRST-LAST as "
            "DeepLesion's script does, or say which slice is its first (--first-slice)"
        )

    def _checked_span(self, grid: Grid, first: int, depth: int) -> tuple[int, int]:
        """The slices that were examined; they must be some of the truth's."""
        if self.target.shape is not None and self.target.first_slice is not None:
            low, high = self.target.first_slice, self.target.first_slice + self.target.shape[2]
            if first < low or first + depth > high:
                self._refuse_grid(grid, f"slices {first} to {first + depth - 1} are not all among {low} to {high - 1}")
        return first, first + depth

    def _refuse_outside(self, boxes: FloatArray) -> None:
        """Refuse boxes that touch no voxel of the truth's volume: they count something else."""
        if self.target.shape is None or self.target.first_slice is None:
            return
        low = np.array([0, 0, self.target.first_slice], dtype=np.float64)
        outside = np.flatnonzero(((boxes[:, :3] > low + self.target.shape) | (boxes[:, 3:] < low)).any(axis=1))
        if outside.size:
            shown = ", ".join(f"{value:g}" for value in boxes[outside[0]])
            raise InputError(
                f"{self.where}: box {outside[0]} ({shown}) lies outside the volume of {self.truth}, {self.target} from "
                f"slice {self.target.first_slice}; the boxes count other voxels than the truth, say their frame"
            )


def _upright(grid: Grid) -> tuple[Grid, FloatArray]:
    """The canonical grid of a file, and the matrix from the file's voxel edges to it."""
    assert grid.shape is not None and grid.affine_lps is not None
    axes = nearest_axes(grid.affine_lps)
    i, j, k = (grid.shape[abs(axis) - 1] for axis in axes)
    affine: FloatArray = grid.affine_lps @ index_matrix(axes, grid.shape, edges=False)
    spacing = tuple(np.linalg.norm(affine[:3, :3], axis=0).tolist())
    matrix = inverse_index_matrix(index_matrix(axes, grid.shape, edges=True))
    return Grid(CANONICAL_VOXELS, (i, j, k), affine, spacing, 0), matrix


def _series_of(name: str, found: Detections, grids: dict[str, Grid]) -> str | None:
    """The series of the truth that a sub-volume of DeepLesion is part of."""
    named = DEEPLESION_NAME.fullmatch(name)
    if named is None or not named["last"] or found.frame is None:
        return None
    series = named["series"]
    return series if series in grids and grids[series].frame == SERIES_SLICES else None


def _joined(target: str, members: Sequence[tuple[str, Detections, tuple[int, int] | None]]) -> Detections:
    """The parts of a series together."""
    if len(members) == 1:
        return members[0][1]
    ordered = sorted((span or (0, 0), name) for name, _, span in members)
    for (one, first), (two, second) in zip(ordered, ordered[1:], strict=False):
        if two[0] < one[1]:
            raise InputError(
                f"volumes '{first}' and '{second}' share slices of '{target}'; what is found twice would count twice, "
                "give each slice once"
            )
    scores = [found.scores if found.scores is not None else None for _, found, _ in members]
    if any(score is None and len(found.boxes) for score, (_, found, _) in zip(scores, members, strict=True)):
        raise InputError(f"volume '{target}': detections have no scores; FROC needs a score for each box")
    boxes = np.concatenate([found.boxes for _, found, _ in members])
    return Detections(boxes, np.concatenate([np.zeros(0) if score is None else score for score in scores]))
