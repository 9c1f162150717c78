"""LUNA16 (``subset0`` to ``subset9`` of .mhd and .raw, ``annotations.csv``) to annotation files.

Marks are world centres in LPS mm with a diameter. A mark becomes the box of its sphere: x and y exactly, z the slices
whose centre lies in the sphere (the slice that holds the centre if there is none). Where the header reverses x and y,
as some of this dataset's do, its direction matrix is used both for the voxels and for the marks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mmpluld.datasets.converters.assemble import (
    LARGEST_MM,
    Case,
    annotation_files,
    assign_splits,
    convert_cases,
    sphere_lesion,
    write_cases,
)
from mmpluld.datasets.converters.overrides import Override, read_overrides
from mmpluld.datasets.converters.report import ConversionReport, DroppedRow
from mmpluld.datasets.converters.volume_store import raw_files, store_volume
from mmpluld.errors import InputError, counted
from mmpluld.io import read_volume
from mmpluld.io.hounsfield import Units
from mmpluld.structures import CTVolume, LesionRecord
from mmpluld.structures.text_files import parse_number, parse_rows, read_table, read_text
from mmpluld.typing import StrPath

__all__ = ["LUNA16_COLUMNS", "LunaMark", "convert_luna16", "read_luna16_marks"]

LUNA16_COLUMNS = ("seriesuid", "coordX", "coordY", "coordZ", "diameter_mm")
_UNKNOWN_DIAMETER_MM = 10.0


@dataclass(frozen=True)
class LunaMark:
    """One row of ``annotations.csv`` or ``annotations_excluded.csv``.

    Attributes:
        row, line: Row from 0 below the header, line of the file from 1.
        seriesuid: DICOM UID of the scan's series, which is its file name.
        centre_lps: World centre, mm.
        diameter_mm: 10 where an excluded finding has none, as the official evaluation takes it.
    """

    row: int
    line: int
    seriesuid: str
    centre_lps: tuple[float, float, float]
    diameter_mm: float


def convert_luna16(
    root: StrPath,
    *,
    fractions: Sequence[float] = (80, 0, 20),
    seed: int = 0,
    test_subset: int | None = None,
    with_excluded: bool = False,
    pad_mm: float = 0.0,
    overrides: StrPath | None = None,
    overwrite: bool = False,
    units: Units | None = None,
) -> ConversionReport:
    """Write ``ROOT/annotations/*.json`` and the volume store for a LUNA16 folder.

    Args:
        root: Folder that holds ``annotations.csv`` and the subset folders; some of the subsets will do. A scan's id,
            patient and series are its series UID, for the dataset names no patients; its study is the subset.
        fractions: Shares of training, validation and test; LENS takes 80 % and 20 % at random.
        seed: Of the random split.
        test_subset: Number of the subset to test on, all others being for training (the official folds); replaces
            the random split.
        with_excluded: Add the findings of ``annotations_excluded.csv`` as lesions to be ignored.
        pad_mm: Margin added to each side of a box in the plane; DeepLesion's 5 pixels are about 4 mm.
        overrides: Table of corrections, see :mod:`mmpluld.datasets.converters.overrides`.
        overwrite: Replace annotation files, and volumes whose raw files have changed.
        units: ``hu`` to take values for HU that do not look like it.

    Returns:
        What was written, and what was left out and why.

    Raises:
        InputError: No scan or no table is there, the table is faulty, files exist, or no scan can be read.
    """
    root = Path(root)
    if test_subset is not None:
        fractions = (1, 0, 1)
    report = ConversionReport(files=annotation_files(root, fractions, overwrite))
    scans = _scans(root)
    marks = _marks_by_scan(root, with_excluded, scans, report)
    for uid in _listed(root / "seriesuids.csv"):
        if uid not in scans:
            report.remark("in seriesuids.csv, but no scan in the subsets", uid)
    table = read_overrides(overrides, scans)
    convert = partial(
        _convert,
        root=root,
        scans=scans,
        marks=marks,
        overrides=table,
        pad_mm=pad_mm,
        overwrite=overwrite,
        units=units,
    )
    splits = assign_splits(scans, fractions, seed) if test_subset is None else _fold(scans, test_subset)
    cases = convert_cases(sorted(scans), convert, table, report)
    return write_cases({"name": "luna16", "label_scope": "lung-nodules"}, cases, splits, report)


def _marks_by_scan(
    root: Path, with_excluded: bool, scans: Mapping[str, Path], report: ConversionReport
) -> dict[str, list[tuple[LunaMark, bool]]]:
    """The marks of each scan, and whether they are to be ignored; nodules of scans that are not there are reported."""
    marks = read_luna16_marks(root / "annotations.csv")
    excluded = read_luna16_marks(root / "annotations_excluded.csv") if with_excluded else []
    for mark in marks:
        if mark.seriesuid not in scans:
            report.dropped.append(DroppedRow(mark.row, mark.line, "no scan", mark.seriesuid))
    if len(report.dropped) == len(marks):  # every scan would count as looked through and healthy
        raise InputError(
            f"{root / 'annotations.csv'}: none of its {counted(len(marks), 'nodule')} is in one of the "
            f"{counted(len(scans), 'scan')} of the subsets; give the table that belongs to them"
        )
    by_scan: dict[str, list[tuple[LunaMark, bool]]] = defaultdict(list)
    for ignore, group in ((False, marks), (True, excluded)):
        for mark in group:
            by_scan[mark.seriesuid].append((mark, ignore))
    return by_scan


def read_luna16_marks(path: StrPath) -> list[LunaMark]:
    """Read ``annotations.csv`` or ``annotations_excluded.csv``.

    Raises:
        InputError: The file is missing, lacks columns or holds faulty rows (the first five are named).
    """
    file = Path(path)
    return parse_rows(file, read_table(file, "LUNA16's table", LUNA16_COLUMNS), _mark)


def _mark(row: int, line: int, raw: dict[str, str]) -> LunaMark:
    x, y, z, diameter = (parse_number(name, raw[name]) for name in LUNA16_COLUMNS[1:])
    if diameter == 0 or diameter > LARGEST_MM:
        raise ValueError(f"diameter_mm is {diameter:g}; needed are mm up to {LARGEST_MM:g}, other than 0")
    return LunaMark(row, line, raw["seriesuid"], (x, y, z), diameter if diameter > 0 else _UNKNOWN_DIAMETER_MM)


def _scans(root: Path) -> dict[str, Path]:
    """Series UID -> header file of every scan in the subset folders."""
    scans: dict[str, Path] = {}
    for path in sorted(root.glob("subset[0-9]/*.mhd")):
        if path.stem in scans:
            raise InputError(f"{path}: the same scan as {scans[path.stem]}; remove one of them")
        scans[path.stem] = path
    if not scans:
        raise InputError(f"{root}: no scans subset0/*.mhd to subset9/*.mhd; unpack LUNA16's subsets there")
    return scans


def _listed(path: Path) -> list[str]:
    """The scans of the dataset, where its list of them is there."""
    if not path.is_file():
        return []
    lines = [line.strip() for line in read_text(path, "LUNA16's list of its scans").splitlines()]
    return [line for line in lines if line not in ("", "seriesuid")]


def _fold(scans: dict[str, Path], test_subset: int) -> dict[str, str]:
    wanted, found = f"subset{test_subset}", sorted({path.parent.name for path in scans.values()})
    if wanted not in found:
        raise InputError(f"test subset {test_subset}: no folder {wanted} with scans; there are {', '.join(found)}")
    return {uid: "test" if path.parent.name == wanted else "train" for uid, path in scans.items()}


def _convert(
    uid: str,
    *,
    root: Path,
    scans: dict[str, Path],
    marks: dict[str, list[tuple[LunaMark, bool]]],
    overrides: dict[str, Override],
    pad_mm: float,
    overwrite: bool,
    units: Units | None,
) -> Case:
    header = scans[uid]
    read = partial(read_volume, header, units=units)
    stored = store_volume(root, uid, raw_files(header), read, overrides.get(uid), overwrite, units)
    case = Case(stored.record(uid, uid, header.parent.name, uid))
    case.remarks += [(what, uid) for what in stored.remarks]
    # Canonical x runs with file axis 1 in this dataset's usual headers.
    if stored.volume.source_axes[0] < 0 or stored.volume.source_axes[1] < 0:
        case.remarks.append(("header reverses x or y, reoriented", uid))
    seen = set()
    for mark, ignore in marks[uid]:
        item = f"line {mark.line} of annotations{'_excluded' if ignore else ''}.csv ({uid})"
        if (key := (mark.centre_lps, mark.diameter_mm, ignore)) in seen:
            case.remarks.append(("mark repeated, taken once", item))
            continue
        seen.add(key)
        lesion = _lesion(mark, stored.volume, uid, pad_mm)
        if lesion is None:
            case.remarks.append(("mark outside its scan, dropped", item))
            continue
        lesion.ignore = ignore
        case.lesions.append(lesion)
    return case


def _lesion(mark: LunaMark, volume: CTVolume, uid: str, pad_mm: float) -> LesionRecord | None:
    """The box of a mark's sphere, or None if its centre lies outside the scan."""
    lesion = sphere_lesion(mark.centre_lps, mark.diameter_mm, volume, uid, pad_mm)
    if lesion is not None:
        lesion.type = "lung"
        lesion.attributes = {"row": mark.row, **lesion.attributes}
    return lesion
