"""Tables of lesion boxes as people keep them: CSV with one box a line, and COCO JSON. Both become :class:`BoxRow`.

Voxel coordinates are those of the file as it is stored: x, y, z run along its first, second and third axis, which is
the index order of ITK, of nibabel's arrays, and of viewers that show voxel numbers. World coordinates name their frame.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from mmpluld.datasets.converters.assemble import LARGEST_MM
from mmpluld.errors import InputError, nearest
from mmpluld.structures.boxes import inclusive_to_edges
from mmpluld.structures.text_files import Table, check_columns, parse_number, parse_rows, read_table, refuse_faults

__all__ = ["BoxRow", "Convention", "edges", "read_box_csv", "truth_value", "whole"]

World = Literal["lps", "ras"]
Values = tuple[float, ...]

_VOLUME = ("volume", "file", "seriesuid")
_CORNERS = ("x1", "y1", "z1", "x2", "y2", "z2")
_FLAT = ("x1", "y1", "x2", "y2", "slice")
_CENTRES: dict[tuple[str, str, str], World | None] = {
    ("x_lps", "y_lps", "z_lps"): "lps",
    ("x_ras", "y_ras", "z_ras"): "ras",
    ("coordx", "coordy", "coordz"): None,
}
_DIAMETERS = (("diameter_mm",), ("diameter_x_mm", "diameter_y_mm", "diameter_z_mm"))
_OPTIONAL = ("key_slice", "lesion", "type", "ignore", "patient", "split")
_LAYOUTS = (
    "x1, y1, z1, x2, y2, z2 (voxels); x1, y1, x2, y2, slice (voxels of one slice); x_lps, y_lps, z_lps or "
    "x_ras, y_ras, z_ras or coordX, coordY, coordZ with --world, and diameter_mm or diameter_x_mm, diameter_y_mm, "
    "diameter_z_mm (world)"
)
_TRUE, _FALSE = ("1", "true", "yes"), ("0", "false", "no", "")
_SUFFIXES = (".csv", ".tsv", ".txt")


@dataclass(frozen=True)
class Convention:
    """How a table counts voxels, and which world its centres are in.

    Attributes:
        inclusive: The far corner is the last voxel inside; otherwise the edge behind it (0-based, exclusive).
        one_based: The first voxel has number 1.
        world: Frame of centres whose columns do not name it.
    """

    inclusive: bool = False
    one_based: bool = False
    world: World | None = None


@dataclass(frozen=True)
class BoxRow:
    """One box of a table, or (with neither box nor centre) a scan that is listed without lesions.

    Attributes:
        where: "line 7" or "annotation 12", for messages.
        volume: Scan, as written.
        box: Voxel edges (x1, y1, z1, x2, y2, z2) of the file as stored.
        flat: The box is of one slice of the file's third axis.
        centre_lps, sizes_mm: Centre in LPS mm, with the diameter of a sphere or the sides of a box along x, y, z.
        key_slice: Slice of the file, counted from 0; None: not told.
        lesion: Name that joins flat boxes of a scan into one lesion; empty: a lesion of its own.
        type: Lesion type in words; None: not told.
        ignore: The box counts neither for nor against, in training and evaluation.
        patient, split: Empty where they are not told.
        plane_xy: Width and height that the table gives the slice, to be checked.
    """

    where: str
    volume: str
    box: Values | None = None
    flat: bool = False
    centre_lps: Values | None = None
    sizes_mm: Values = ()
    key_slice: int | None = None
    lesion: str = ""
    type: str | None = None
    ignore: bool = False
    patient: str = ""
    split: str = ""
    plane_xy: tuple[int, int] | None = None

    @property
    def empty(self) -> bool:
        """Whether the row only names a scan."""
        return self.box is None and self.centre_lps is None


@dataclass(frozen=True)
class _Layout:
    """Which columns hold what."""

    volume: str
    corners: tuple[str, ...] = ()
    centre: tuple[str, ...] = ()
    sizes: tuple[str, ...] = ()
    world: World = "lps"


def read_box_csv(path: str | os.PathLike[str], convention: Convention) -> list[BoxRow]:
    """Read a CSV table (comma, semicolon or tab) with a header; the case of column names does not matter.

    Raises:
        InputError: The file is missing or no table, a column is unknown, missing or ambiguous, or rows are faulty (the
            first five are named).
    """
    file = Path(path)
    columns, table = _read_table(file)
    layout = _layout(file, columns, convention)
    rows, faults = [], []
    for line, cells in table:
        try:
            rows.append(_row(f"line {line}", cells, layout, convention))
        except ValueError as error:
            faults.append(f"line {line}: {error}")
    refuse_faults(file, faults)
    return rows


def edges(values: Iterable[float], names: tuple[str, ...], convention: Convention) -> Values:
    """Voxel edges counted from 0, near corner first, of a box as the table counts.

    Raises:
        ValueError: A value is not finite, or the box ends before it begins; the message names the coordinates.
    """
    box = list(values)
    half = len(box) // 2
    for name, value in zip(names, box, strict=True):
        if not math.isfinite(value):
            raise ValueError(f"{name} is {value}; needed is a finite number")
    if convention.inclusive:
        box = inclusive_to_edges(box).tolist()
    for axis in range(half):
        if box[axis + half] <= box[axis]:
            near, far = names[axis], names[axis + half]
            shown = box[axis + half] - (1 if convention.inclusive else 0)
            hint = "" if convention.inclusive else ", or pass --inclusive if it is the last voxel inside"
            raise ValueError(f"{far} is {shown:g} and {near} {box[axis]:g}; needed is {far} above {near}{hint}")
    return tuple(value - convention.one_based for value in box)


def whole(name: str, value: object) -> int:
    """A whole number, given as such, as text, or as 12.0.

    Raises:
        ValueError: It is none.
    """
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(value, bool) or not number.is_integer():
        raise ValueError(f"{name} is {value!r}; needed is a whole number")
    return int(number)


def truth_value(name: str, value: object) -> bool:
    """True or false, as people write it; false if there is nothing.

    Raises:
        ValueError: It is something else.
    """
    text = str("" if value is None else value).strip().lower()
    if text not in _TRUE + _FALSE:
        raise ValueError(f"{name} is {value!r}; allowed are 0, 1, true, false, yes, no")
    return text in _TRUE


def _read_table(file: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Column names in lower case, and (line, cells) of each row that is not blank."""
    raw = read_table(file, "a CSV or COCO file of boxes")
    table = Table([name.lower() for name in raw.columns], raw.rows)
    return table.columns, parse_rows(file, table, lambda row, line, cells: (line, cells))


def _layout(file: Path, columns: list[str], convention: Convention) -> _Layout:
    """Which of the allowed layouts the header is."""
    centre_names = [name for names in _CENTRES for name in names]
    known = [*_VOLUME, *_CORNERS, "slice", *centre_names, *(name for names in _DIAMETERS for name in names), *_OPTIONAL]
    for name in columns:
        if name not in known:
            close = nearest(name, known)
            hint = f"did you mean {close!r}? " if close else ""
            raise InputError(
                f"{file}: unknown column {name!r}; {hint}Allowed are {', '.join(_VOLUME)} (one of them), {_LAYOUTS}, "
                f"and optionally {', '.join(_OPTIONAL)}; rename or remove it"
            )
    check_columns(file, columns)
    volume = [name for name in _VOLUME if name in columns]
    if len(volume) != 1:
        raise InputError(f"{file}: columns {', '.join(volume) or 'none'} name the scan; needed is one of {_VOLUME}")
    boxes = [names for names in (_CORNERS, _FLAT) if set(names) <= set(columns)]
    centres = [names for names in _CENTRES if set(names) <= set(columns)]
    sizes = [names for names in _DIAMETERS if set(names) <= set(columns)]
    used = {name for names in (*boxes[:1], *centres[:1], *sizes[:1]) for name in names}
    stray = [name for name in columns if name in known and name not in {*volume, *_OPTIONAL, *used}]
    if len(boxes) + len(centres) != 1 or len(sizes) != len(centres) or stray:
        raise InputError(f"{file}: columns {', '.join(columns)} give no box, or two; allowed is one of: {_LAYOUTS}")
    if boxes:
        _refuse_world(file, convention)
        if boxes[0] == _FLAT and "key_slice" in columns:
            raise InputError(f"{file}: columns slice and key_slice; a box of one slice has no other, keep slice")
        return _Layout(volume[0], corners=boxes[0])
    return _Layout(volume[0], (), centres[0], sizes[0], _world(file, centres[0], convention))


def _refuse_world(file: Path, convention: Convention) -> None:
    if convention.world:
        raise InputError(f"{file}: --world {convention.world}, but its boxes are in voxels; leave it out")


def _world(file: Path, names: tuple[str, str, str], convention: Convention) -> World:
    """The frame of centres, which must be told once."""
    if convention.inclusive or convention.one_based:
        raise InputError(f"{file}: centres are in mm; leave out --inclusive and --one-based, which are for voxels")
    named = _CENTRES[names]
    if named and convention.world:
        raise InputError(f"{file}: --world {convention.world}, but the columns are {', '.join(names)}; leave it out")
    world = named or convention.world
    if world is None:
        raise InputError(
            f"{file}: columns coordX, coordY, coordZ do not say in which world; pass --world lps (DICOM, ITK, LUNA16) "
            "or --world ras (NIfTI, 3D Slicer's display)"
        )
    return world


def _row(where: str, cells: Mapping[str, str], layout: _Layout, convention: Convention) -> BoxRow:
    """One line of the table.

    Raises:
        ValueError: A cell is faulty; the message says which.
    """
    volume = cells[layout.volume]
    if not volume:
        raise ValueError(f"{layout.volume} is empty; name the scan")
    row = BoxRow(where, volume, patient=cells.get("patient", ""), split=cells.get("split", ""))
    needed = (*layout.corners, *layout.centre, *layout.sizes)
    if not any(cells[name] for name in needed):  # a scan without a lesion
        told = [name for name in ("lesion", "type", "key_slice") if cells.get(name)]
        told += ["ignore"] if truth_value("ignore", cells.get("ignore")) else []
        if told:
            raise ValueError(f"{told[0]} is {cells[told[0]]}, but the row has no box; give one, or leave it empty, too")
        return row
    values = {name: parse_number(name, cells[name]) for name in needed if name != "slice"}
    key = cells.get("key_slice", "")
    row = replace(
        row,
        lesion=cells.get("lesion", ""),
        type=cells.get("type") or None,
        ignore=truth_value("ignore", cells.get("ignore")),
        key_slice=whole("key_slice", key) - convention.one_based if key else None,
    )
    if layout.centre:
        return replace(row, centre_lps=_centre_lps(values, layout), sizes_mm=_sizes_mm(values, layout))
    if layout.corners == _CORNERS:
        return replace(row, box=edges(values.values(), _CORNERS, convention))
    x1, y1, x2, y2 = edges(values.values(), _FLAT[:4], convention)
    index = whole("slice", cells["slice"]) - convention.one_based
    return replace(row, box=(x1, y1, float(index), x2, y2, index + 1.0), flat=True, key_slice=index)


def _centre_lps(values: Mapping[str, float], layout: _Layout) -> Values:
    x, y, z = (values[name] for name in layout.centre)
    return (x, y, z) if layout.world == "lps" else (-x, -y, z)


def _sizes_mm(values: Mapping[str, float], layout: _Layout) -> Values:
    for name in layout.sizes:
        if not 0 < values[name] <= LARGEST_MM:
            raise ValueError(f"{name} is {values[name]:g}; needed are mm above 0, up to {LARGEST_MM:g}")
    return tuple(values[name] for name in layout.sizes)
