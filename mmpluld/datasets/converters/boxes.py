"""A folder of CT scans and a table of boxes, CSV or COCO, to annotation files: the converter for one's own data."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from mmpluld.datasets.converters.assemble import (
    Case,
    Unusable,
    annotation_files,
    assign_splits,
    convert_cases,
    write_cases,
)
from mmpluld.datasets.converters.box_coco import read_box_coco
from mmpluld.datasets.converters.box_lesions import lesion_of_rows, split_at_gaps
from mmpluld.datasets.converters.box_rows import BoxRow, Convention, read_box_csv
from mmpluld.datasets.converters.box_scans import BoxScan, find_scans, group_by_scan, rows_by_lesion
from mmpluld.datasets.converters.overrides import Override, read_overrides
from mmpluld.datasets.converters.report import ConversionReport
from mmpluld.datasets.converters.volume_store import raw_files, store_volume
from mmpluld.errors import InputError, counted, nearest
from mmpluld.io import read_volume
from mmpluld.io.hounsfield import Units
from mmpluld.structures.splits import SPLITS
from mmpluld.structures.text_files import refuse_faults

__all__ = ["convert_boxes"]

_FRACTIONS = (70, 10, 20)
_SCOPES = ("universal-partial", "universal-complete")
_TABLES = (".csv", ".tsv", ".txt")


def convert_boxes(
    root: str | os.PathLike[str],
    boxes: str | os.PathLike[str],
    *,
    inclusive: bool = False,
    one_based: bool = False,
    world: Literal["lps", "ras"] | None = None,
    label_scope: str = "universal-partial",
    name: str | None = None,
    fractions: Sequence[float] | None = None,
    seed: int | None = None,
    pad_mm: float = 0.0,
    max_gap_mm: float = 10.0,
    overrides: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    units: Units | None = None,
) -> ConversionReport:
    """Write ``ROOT/annotations/*.json`` and the volume store for one's own scans.

    The table is read and checked before the first scan is; a scan that cannot be read is left out and reported, as by
    the other converters; a box that does not fit its scan ends the conversion. Boxes of the table may lie anywhere
    between voxels; along z a lesion takes the slices whose centres its box holds. Every lesion has a key slice, the
    given or the middle one, and on it a mask: the ellipse that fills its box.

    Args:
        root: Folder with the scans, in any subfolders: NIfTI, MHD, MHA, NRRD, NHDR, or folders of one DICOM series.
        boxes: Table, ``.csv`` (see :func:`~mmpluld.datasets.converters.box_rows.read_box_csv`) or COCO ``.json`` (see
            :mod:`~mmpluld.datasets.converters.box_coco`). It names a scan by its path below ``root``, with or without
            the ending, or by its name alone where that is unambiguous.
        inclusive: The far corner of a box is the last voxel inside, not the edge behind it (CSV).
        one_based: The first voxel has number 1, not 0.
        world: Frame of centres in mm, where the columns do not name it (CSV).
        label_scope: What the labels are about: ``universal-partial`` (some lesions of any kind),
            ``universal-complete`` (all of any kind), or one kind that is labelled completely, such as
            ``lung-nodules``.
        name: Of the dataset; None takes the folder's.
        fractions: Shares of training, validation and test for a random split by patient, 70 10 20 unless given; not
            with a table that tells the splits.
        seed: Of that split, 0 unless given.
        pad_mm: Margin added to each side of a box in the plane; DeepLesion's 5 pixels are about 4 mm.
        max_gap_mm: Boxes of one slice with one name are one lesion as long as no more than this lies unmarked between
            two of its slices; beyond, a new lesion begins, which is reported.
        overrides: Table of corrections, see :mod:`mmpluld.datasets.converters.overrides`.
        overwrite: Replace annotation files, and volumes whose raw files have changed.
        units: ``hu`` to take values for HU that do not look like it.

    Returns:
        What was written, and what was left out and why.

    Raises:
        InputError: The table is faulty or does not fit the scans, a split would be empty, files exist, or no scan can
            be read.
    """
    root, table = Path(root), Path(boxes)
    _check_scope(label_scope)
    rows = _read(table, Convention(inclusive, one_based, world))
    told = _told_shares(table, rows, fractions, seed)
    shares = told or (_FRACTIONS if fractions is None else fractions)
    report = ConversionReport(files=annotation_files(root, shares, overwrite))
    scans = group_by_scan(root, table, rows, find_scans(root, table, rows, report), report)
    splits = _told_splits(table, scans) if told else _random_splits(scans, shares, seed or 0, report)
    corrections = read_overrides(overrides, scans)
    convert = partial(
        _convert,
        root=root,
        table=table,
        scans=scans,
        overrides=corrections,
        pad_mm=pad_mm,
        max_gap_mm=max_gap_mm,
        overwrite=overwrite,
        units=units,
    )
    cases = convert_cases(list(scans), convert, corrections, report)
    report.masks["ellipse"] = sum(len(case.lesions) for case in cases)
    dataset: dict[str, object] = {"name": name or root.resolve().name, "label_scope": label_scope}
    return write_cases(dataset, cases, splits, report)


def _check_scope(scope: str) -> None:
    """A scope is free text, for it may name a kind of lesion; a slip in the two fixed ones is refused."""
    close = nearest(scope, _SCOPES, cutoff=0.8)
    if not scope.strip() or (close and scope not in _SCOPES):
        hint = f", did you mean {close!r}?" if close else ""
        raise InputError(f"label scope {scope!r}: allowed are {', '.join(_SCOPES)}, or a kind of lesion{hint}")


def _read(table: Path, convention: Convention) -> list[BoxRow]:
    suffix = table.suffix.lower()
    if suffix not in (*_TABLES, ".json"):
        raise InputError(f"{table}: unknown kind of table {suffix!r}; allowed are {', '.join(_TABLES)}, .json (COCO)")
    rows = read_box_coco(table, convention) if suffix == ".json" else read_box_csv(table, convention)
    if all(row.empty for row in rows):
        raise InputError(f"{table}: no box in it ({counted(len(rows), 'row')}); give a table of boxes")
    faults = []
    for row in rows:
        if row.split and row.split not in SPLITS:
            close = nearest(row.split, SPLITS)
            hint = f", did you mean {close!r}?" if close else ""
            faults.append(f"{row.where}: split is {row.split!r}; allowed are {', '.join(SPLITS)}{hint}")
    refuse_faults(table, faults)
    return rows


def _told_shares(
    table: Path, rows: Sequence[BoxRow], fractions: Sequence[float] | None, seed: int | None
) -> list[float] | None:
    """1 for each split that a row tells, else 0; None where the table tells no splits."""
    if not any(row.split for row in rows):
        return None
    if fractions is not None or seed is not None:
        raise InputError(f"{table}: tells the splits, and --split or --seed asks for others; leave one of them out")
    return [float(any(row.split == split for row in rows)) for split in SPLITS]


def _told_splits(table: Path, scans: Mapping[str, BoxScan]) -> dict[str, str]:
    """Patient -> split; no patient may be in two."""
    first: dict[str, tuple[str, str]] = {}
    faults = []
    for name, scan in scans.items():
        other, split = first.setdefault(scan.patient, (name, scan.split))
        if split != scan.split:
            faults.append(
                f"patient {scan.patient!r} is in two splits, {other!r} in {split} and {name!r} in {scan.split}; "
                "needed is one split for all scans of a patient"
            )
    refuse_faults(table, faults)
    return {patient: split for patient, (_, split) in first.items()}


def _random_splits(
    scans: Mapping[str, BoxScan], shares: Sequence[float], seed: int, report: ConversionReport
) -> dict[str, str]:
    splits = assign_splits([scan.patient for scan in scans.values()], shares, seed)
    for split in report.files:
        if split not in splits.values():
            raise InputError(
                f"split {' '.join(f'{share:g}' for share in shares)}: leaves {split} without any of {len(splits)} "
                "patients; give other shares (--split TRAIN VAL TEST, 0 for none), or tell the splits in the table"
            )
    return splits


def _convert(
    name: str,
    *,
    root: Path,
    table: Path,
    scans: Mapping[str, BoxScan],
    overrides: dict[str, Override],
    pad_mm: float,
    max_gap_mm: float,
    overwrite: bool,
    units: Units | None,
) -> Case:
    scan = scans[name]
    read = partial(read_volume, scan.path, units=units)
    stored = store_volume(root, name, raw_files(scan.path), read, overrides.get(name), overwrite, units)
    case = Case(stored.record(name, scan.patient, "1", "1"))
    case.remarks += [(what, name) for what in stored.remarks]
    if stored.volume.spacing_mm == (1.0, 1.0, 1.0):
        case.remarks.append(("header says 1 x 1 x 1 mm; if it is wrong, correct it (--overrides)", name))
    faults = []
    for lesion_name, rows in split_at_gaps(rows_by_lesion(scan.rows), stored.volume.spacing_mm[0], max_gap_mm, case):
        try:
            lesion = lesion_of_rows(rows, stored.volume, case, pad_mm)
        except ValueError as error:
            faults.append(f"{rows[0].where}: {error}")
            continue
        if lesion_name:
            lesion.attributes["lesion_name"] = lesion_name
        lesion.attributes["rows"] = [row.where for row in rows]
        case.lesions.append(lesion)
    if faults:
        try:
            refuse_faults(table, faults)
        except InputError as error:
            raise Unusable(str(error)) from None
    return case
