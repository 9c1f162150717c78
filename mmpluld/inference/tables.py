"""Findings as tables: for the terminal, for notebooks, and as pandas frames and back."""

from __future__ import annotations

import html
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from mmpluld.compat.extras import check_extra
from mmpluld.errors import InputError, counted, printable
from mmpluld.structures import RECIST, CTVolume, Finding, ScanFindings
from mmpluld.structures.slice_masks import SliceMask
from mmpluld.text_table import text_table

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["findings_html", "findings_of_frame", "findings_text", "frame_of_findings"]

_MOST_ROWS = 30
_BOX = ("x1", "y1", "z1", "x2", "y2", "z2")
_KEY_BOX = ("key_x1", "key_y1", "key_x2", "key_y2")
_ENDS = tuple(f"end_{axis}{number}" for number in range(1, 5) for axis in "xy")
_SOURCE = ("i1", "j1", "k1", "i2", "j2", "k2")
_WORLD = ("x1_lps_mm", "y1_lps_mm", "z1_lps_mm", "x2_lps_mm", "y2_lps_mm", "z2_lps_mm")
_NEEDED = ("score", *_BOX, "key_slice", *_KEY_BOX)
_TOLERANCE = 1e-6


def findings_text(found: ScanFindings) -> str:
    """A table for the terminal: score, size, where, and what else the model says."""
    rows = _cells(found)
    table = [text_table(rows, left=0)] if len(rows) > 1 else []
    return "\n".join([_title(found), *table, *_rest(found)])


def findings_html(found: ScanFindings) -> str:
    """The same for a notebook; whatever is from files is escaped."""
    header, *rows = _cells(found)
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>" if rows else ""
    notes = "".join(f"<p>{html.escape(line)}</p>" for line in (_title(found), *_rest(found)))
    return f"<div>{notes}{table}</div>"


def _title(found: ScanFindings) -> str:
    details = [f"{name.lower()} {text}" for name, text in found.details.items() if name in ("Model", "Score threshold")]
    return printable(f"{found.name}: {'; '.join([counted(len(found), 'finding'), *details])}")


def _rest(found: ScanFindings) -> list[str]:
    hidden = len(found) - _MOST_ROWS
    return [f"... and {hidden} more"] if hidden > 0 else []


def _cells(found: ScanFindings) -> list[list[str]]:
    """Header and rows."""
    shown = found.findings[:_MOST_ROWS]
    measured, tagged = any(item.recist for item in shown), any(item.tags for item in shown)
    header = ["", "score", "size mm", "centre mm (L, P, S)", "slice"]
    header += ["diameters mm"] * measured + ["tags"] * tagged
    spacing = np.array(found.volume.spacing_mm[::-1])
    rows = []
    for rank, item in enumerate(shown, 1):
        box, world = np.array(item.box_canonical).reshape(2, 3), np.array(item.box_world_lps).reshape(2, 3)
        size = " x ".join(f"{value:.0f}" for value in (box[1] - box[0]) * spacing)
        centre = ", ".join(f"{value:.0f}" for value in world.mean(axis=0) + 0.0)
        row = [str(rank), f"{item.score:.2f}", size, centre, str(item.key_slice_source)]
        if measured:
            row.append("" if item.recist is None else f"{item.recist.long_mm:.0f} x {item.recist.short_mm:.0f}")
        if tagged:
            row.append(printable("; ".join(f"{name} {score:.2f}" for name, score in item.tags)))
        rows.append(row)
    return [header, *rows]


def frame_of_findings(found: ScanFindings) -> DataFrame:
    """One row for each finding; :func:`findings_of_frame` turns it back.

    Raises:
        InputError: pandas is not installed.
    """
    pandas = _pandas()
    columns = (*_NEEDED, "long_mm", "short_mm", *_ENDS, "tags", "mask", "key_slice_source", *_SOURCE, *_WORLD)
    rows = []
    for item in found:
        recist = (
            (math.nan,) * 10 if item.recist is None else (item.recist.long_mm, item.recist.short_mm, *item.recist.ends)
        )
        rows.append(
            (
                *(item.score, *item.box_canonical, item.key_slice, *item.key_box, *recist, dict(item.tags), item.mask),
                *(item.key_slice_source, *item.box_source, *item.box_world_lps),
            )
        )
    return pandas.DataFrame(rows, columns=list(columns))


def findings_of_frame(frame: DataFrame, volume: CTVolume) -> tuple[Finding, ...]:
    """Findings from rows that :func:`frame_of_findings` made, whichever are left and however they are ordered.

    Args:
        frame: Needs ``score``, the box ``x1`` to ``z2`` and ``key_slice`` of the canonical volume, and the box there,
            ``key_x1`` to ``key_y2``. Diameters, tags and masks are taken where there are any. Columns in voxels of
            the file and in LPS mm follow from these, and are checked where they are there.
        volume: The scan.

    Returns:
        Best score first.

    Raises:
        InputError: A column is missing, a value is no number, a box lies outside the scan or a key slice outside its
            box, or columns contradict each other.
    """
    missing = [name for name in _NEEDED if name not in frame.columns]
    if missing:
        raise InputError(f"the frame has no column {missing[0]!r}; needed are {', '.join(_NEEDED)}")
    found = [_finding(place, dict(row), volume) for place, (_, row) in enumerate(frame.iterrows())]
    return tuple(sorted(found, key=lambda item: -item.score))


def _finding(place: int, row: dict[str, Any], volume: CTVolume) -> Finding:
    where = f"row {place} of the frame"
    numbers = {name: _number(row, name, where) for name in _NEEDED}
    if not 0 <= numbers["score"] <= 1:
        raise InputError(f"{where}: score is {numbers['score']:g}; allowed is 0 to 1")
    key_slice = numbers["key_slice"]
    if key_slice != int(key_slice) or not 0 <= key_slice < volume.shape[0]:
        raise InputError(
            f"{where}: key_slice is {key_slice:g}; allowed are whole numbers from 0 to {volume.shape[0] - 1}"
        )
    try:
        made = Finding.from_canonical(
            volume,
            [numbers[name] for name in _BOX],
            numbers["score"],
            int(key_slice),
            [numbers[name] for name in _KEY_BOX],
            _recist(row, where),
            _tags(row.get("tags"), where),
            _mask(row.get("mask"), where),
        )
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    _check_place(numbers, volume, where)
    derived = ("key_slice_source", *_SOURCE, *_WORLD)
    for name, value in zip(derived, (made.key_slice_source, *made.box_source, *made.box_world_lps), strict=True):
        if name in row and not math.isclose(_number(row, name, where), value, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE):
            raise InputError(
                f"{where}: {name} is {row[name]:g}, but by x1 to z2 and key_slice it is {value:g}; change these, and "
                f"drop the column {name!r}"
            )
    return made


def _check_place(numbers: dict[str, float], volume: CTVolume, where: str) -> None:
    depth, height, width = volume.shape
    ranges = {"x": width, "y": height, "z": depth, "key_x": width, "key_y": height}
    for axis, size in ranges.items():
        low, high = numbers[f"{axis}1"], numbers[f"{axis}2"]
        if high <= 0 or low >= size:
            raise InputError(
                f"{where}: {axis}1 to {axis}2 are {low:g} to {high:g}, outside the scan; needed is a box that overlaps "
                f"its voxels, 0 to {size}"
            )
    if not numbers["z1"] - 1 < numbers["key_slice"] < numbers["z2"]:
        raise InputError(
            f"{where}: key_slice is {numbers['key_slice']:g}, outside its box; needed is a slice from z1 "
            f"{numbers['z1']:g} to z2 {numbers['z2']:g}"
        )


def _recist(row: dict[str, Any], where: str) -> RECIST | None:
    names = ("long_mm", "short_mm", *_ENDS)
    if any(name not in row for name in names) or all(_is_nan(row[name]) for name in names):
        return None
    long_mm, short_mm, *ends = (_number(row, name, where) for name in names)
    return RECIST(long_mm, short_mm, tuple(ends))


def _tags(tags: Any, where: str) -> tuple[tuple[str, float], ...]:
    if tags is None or _is_nan(tags):
        return ()
    if not isinstance(tags, dict):
        raise InputError(f"{where}: tags is {tags!r}; needed is a dict of scores by name")
    return tuple((str(name), float(score)) for name, score in tags.items())


def _mask(mask: Any, where: str) -> SliceMask | None:
    if mask is None or _is_nan(mask):
        return None
    if not isinstance(mask, SliceMask):
        raise InputError(f"{where}: mask is {str(mask)[:60]!r}; needed is that of a finding, or None")
    return mask


def _number(row: dict[str, Any], name: str, where: str) -> float:
    try:
        value = float(row[name])
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{where}: {name} is {row[name]!r}; needed is a finite number")
    return value


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _pandas() -> Any:
    check_extra("pandas", "a frame of findings")
    import pandas

    return pandas
