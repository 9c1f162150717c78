"""A folder of CT scans and a table of boxes, CSV or COCO, to annotation files: the converter for one's own data."""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from mmpluld.datasets.converters.assemble import (
    Case,
    Unusable,
    annotation_files,
    assign_splits,
    convert_cases,
    padded,
    place_in_scan,
    refuse_faults,
    sphere_lesion,
    write_cases,
)
from mmpluld.datasets.converters.box_coco import read_box_coco
from mmpluld.datasets.converters.box_rows import BoxRow, Convention, read_box_csv
from mmpluld.datasets.converters.overrides import Override, read_overrides
from mmpluld.datasets.converters.pseudo_masks import encode_mask, pseudo_mask
from mmpluld.datasets.converters.report import ConversionReport
from mmpluld.datasets.converters.volume_store import store_volume
from mmpluld.errors import InputError, nearest
from mmpluld.io import read_volume
from mmpluld.io.hounsfield import Units
from mmpluld.io.readers import VOLUME_SUFFIXES
from mmpluld.structures import CTVolume, LesionRecord

__all__ = ["convert_boxes"]

_SPLITS = ("train", "val", "test")
_FRACTIONS = (70, 10, 20)
_SCOPES = ("universal-partial", "universal-complete")
_TABLES = (".csv", ".tsv", ".txt")
_NO_PATIENTS = "no patients given, a scan counts as a patient of its own"
_SINGLE = "boxes of one slice without 'lesion', each a lesion of its own"


@dataclass(frozen=True)
class _Scan:
    """One scan of the table and what it says of it."""

    path: Path
    rows: list[BoxRow]
    patient: str
    split: str


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
    pad_px: float = 0.0,
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
        pad_px: Pixels added to each side of a box in the plane.
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
    splits_told = any(row.split for row in rows)
    if splits_told and (fractions is not None or seed is not None):
        raise InputError(f"{table}: tells the splits, and --split or --seed asks for others; leave one of them out")
    told = [float(any(row.split == split for row in rows)) for split in _SPLITS]
    shares = told if splits_told else (_FRACTIONS if fractions is None else fractions)
    report = ConversionReport(files=annotation_files(root, shares, overwrite))
    scans = _group(root, table, rows, _find_scans(root, table, rows, report), report)
    splits = _told_splits(table, scans) if splits_told else _random_splits(scans, shares, seed or 0, report)
    corrections = read_overrides(overrides, scans)
    convert = partial(
        _convert,
        root=root,
        table=table,
        scans=scans,
        overrides=corrections,
        pad_px=pad_px,
        max_gap_mm=max_gap_mm,
        overwrite=overwrite,
        units=units,
    )
    cases = convert_cases(list(scans), convert, corrections, report)
    report.masks["ellipse"] = sum(len(case.lesions) for case in cases)
    counted = {splits[case.volume.patient] for case in cases if not all(lesion.ignore for lesion in case.lesions)}
    for split in report.files:
        if split not in counted:
            report.remark("split without a lesion that counts", split)
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
        raise InputError(f"{table}: no box in it ({len(rows)} rows); give a table of boxes")
    faults = []
    for row in rows:
        if row.split and row.split not in _SPLITS:
            close = nearest(row.split, _SPLITS)
            hint = f", did you mean {close!r}?" if close else ""
            faults.append(f"{row.where}: split is {row.split!r}; allowed are {', '.join(_SPLITS)}{hint}")
    refuse_faults(table, faults)
    return rows


def _find_scans(root: Path, table: Path, rows: list[BoxRow], report: ConversionReport) -> dict[str, Path]:
    """Scan as the table names it -> file or folder."""
    files, named = _index(root)
    found: dict[str, Path] = {}
    faults = []
    for row in rows:
        if row.volume in found:
            continue
        matches = _matches(root, row.volume, named)
        if len(matches) == 1:
            found[row.volume] = matches[0]
            continue
        found[row.volume] = root
        if matches:
            listed = " and ".join(str(path.relative_to(root)) for path in matches[:2])
            faults.append(f"{row.where}: scan {row.volume!r} may be {listed}; give its path below {root}")
        else:
            close = nearest(row.volume, named)
            hint = f"did you mean {close!r}?" if close else f"there are {len(files)} scans in files"
            faults.append(f"{row.where}: no scan {row.volume!r} below {root}; {hint}")
    refuse_faults(table, faults)
    for path in sorted(files - set(found.values())):
        report.remark("scan not in the table, left out", str(path.relative_to(root)))
    return found


def _index(root: Path) -> tuple[set[Path], dict[str, list[Path]]]:
    """All volume files, and name (of files also without its ending) -> what has it, files and folders."""
    files: set[Path] = set()
    named: dict[str, list[Path]] = defaultdict(list)
    seen: set[str] = set()
    for folder, folders, names in os.walk(root, followlinks=True):  # scans are often linked from elsewhere
        if os.path.realpath(folder) in seen:
            folders.clear()
            continue
        seen.add(os.path.realpath(folder))
        for item in names:
            if suffix := _suffix(item):
                files.add(Path(folder, item))
                for key in (item, item[: -len(suffix)]):
                    named[key].append(Path(folder, item))
        for item in folders:
            named[item].append(Path(folder, item))
    return files, named


def _suffix(name: str) -> str:
    return next((suffix for suffix in VOLUME_SUFFIXES if name.lower().endswith(suffix)), "")


def _matches(root: Path, name: str, named: Mapping[str, list[Path]]) -> list[Path]:
    """What ``name`` may mean: a path below the root, the same without its ending, or a name anywhere below."""
    # Not resolved: a linked folder lies where its link is.
    base, path = (Path(os.path.normpath(Path.cwd() / place)) for place in (root, root / name.replace("\\", "/")))
    if path == base or not path.is_relative_to(base):
        return []
    path = root / path.relative_to(base)
    if path.is_file() and _suffix(path.name):
        return [path]
    folder = [path] if path.is_dir() else []
    with_ending = [path.with_name(path.name + suffix) for suffix in VOLUME_SUFFIXES]
    return [*folder, *(file for file in with_ending if file.is_file())] or named.get(name, [])


def _group(
    root: Path, table: Path, rows: list[BoxRow], paths: Mapping[str, Path], report: ConversionReport
) -> dict[str, _Scan]:
    """Volume id -> scan; refuses ids, patients, splits and rows that contradict each other."""
    faults: list[str] = []
    by_path: dict[Path, list[BoxRow]] = defaultdict(list)
    for row in rows:
        by_path[paths[row.volume]].append(row)
    patients_told, splits_told = any(row.patient for row in rows), any(row.split for row in rows)
    scans: dict[str, _Scan] = {}
    for path, members in by_path.items():
        inside = path.relative_to(root).as_posix()
        name = inside[: len(inside) - len(_suffix(inside) if path.is_file() else "")].replace("/", "_")
        if name in scans:
            raise InputError(f"{path}: gets the id {name!r}, as {scans[name].path} does; rename one of them")
        patient = _agreed(members, "patient", faults) if patients_told else name
        split = _agreed(members, "split", faults) if splits_told else ""
        scans[name] = _Scan(path, [row for row in members if not row.empty], patient, split)
        faults += _contradictions(members)
        if not patients_told:
            report.remark(_NO_PATIENTS, name)
        for row in members:
            if row.flat and not row.lesion:
                report.remark(_SINGLE, row.where)
    refuse_faults(table, faults)
    return scans


def _agreed(rows: list[BoxRow], key: Literal["patient", "split"], faults: list[str]) -> str:
    """What the rows of a scan say about it, all the same."""
    values = {getattr(row, key): row for row in rows}
    if len(values) > 1:
        one, two = list(values)[:2]
        faults.append(
            f"{values[one].where} and {values[two].where}: {key} of {rows[0].volume!r} is {one!r} and {two!r}; "
            "needed is one for all rows of a scan"
        )
    elif not next(iter(values)):
        faults.append(f"{rows[0].where}: no {key} of {rows[0].volume!r}, though others have one; add it")
    return str(next(iter(values)))


def _contradictions(rows: list[BoxRow]) -> list[str]:
    """The same box twice, a scan with boxes and without, lesions whose slices do not make one."""
    faults = []
    seen: dict[object, BoxRow] = {}
    for row in rows:
        first = seen.setdefault((row.box, row.centre_lps, row.sizes_mm), row)
        if first is not row and not row.empty:
            faults.append(f"{first.where} and {row.where}: the same box twice in {row.volume!r}; remove one")
    bare = next((row for row in rows if row.empty), None)
    if bare and not all(row.empty for row in rows):
        faults.append(f"{bare.where}: scan {bare.volume!r} without a box, but other rows have boxes in it; remove one")
    for lesion, parts in _by_lesion([row for row in rows if not row.empty]):
        if len(parts) > 1:
            where = f"{parts[0].where} and {parts[1].where}: lesion {lesion!r} of {parts[0].volume!r}"
            if not all(row.flat for row in parts):
                faults.append(f"{where} has two boxes in 3D; give each lesion a name of its own")
            elif len({row.key_slice for row in parts}) < len(parts):
                faults.append(f"{where} has two boxes on one slice; give each lesion a name of its own")
            elif len({(row.type, row.ignore) for row in parts}) > 1:
                faults.append(f"{where} differs in type or ignore between its slices; needed is one for all")
    return faults


def _by_lesion(rows: list[BoxRow]) -> list[tuple[str, list[BoxRow]]]:
    """Name and rows of each lesion, in the order of the table; a row without a name is one."""
    groups: dict[str | int, list[BoxRow]] = {}
    for number, row in enumerate(rows):
        groups.setdefault(row.lesion or number, []).append(row)
    return [(parts[0].lesion, parts) for parts in groups.values()]


def _told_splits(table: Path, scans: Mapping[str, _Scan]) -> dict[str, str]:
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
    scans: Mapping[str, _Scan], shares: Sequence[float], seed: int, report: ConversionReport
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
    scans: Mapping[str, _Scan],
    overrides: dict[str, Override],
    pad_px: float,
    max_gap_mm: float,
    overwrite: bool,
    units: Units | None,
) -> Case:
    scan = scans[name]
    read = partial(read_volume, scan.path, units=units)
    stored = store_volume(root, name, _raw_files(scan.path), read, overrides.get(name), overwrite, units)
    case = Case(stored.record(name, scan.patient, "1", "1"))
    case.remarks += [(what, name) for what in stored.remarks]
    if stored.volume.spacing_mm == (1.0, 1.0, 1.0):
        case.remarks.append(("header says 1 x 1 x 1 mm; if it is wrong, correct it (--overrides)", name))
    faults = []
    for lesion_name, rows in _parted(_by_lesion(scan.rows), stored.volume.spacing_mm[0], max_gap_mm, case):
        try:
            lesion = _lesion(rows, stored.volume, case, pad_px)
        except ValueError as error:
            faults.append(f"{rows[0].where}: {error}")
            continue
        if lesion_name:
            lesion.attributes["lesion"] = lesion_name
        lesion.attributes["rows"] = [row.where for row in rows]
        case.lesions.append(lesion)
    if faults:
        try:
            refuse_faults(table, faults)
        except InputError as error:
            raise Unusable(str(error)) from None
    return case


def _parted(
    lesions: list[tuple[str, list[BoxRow]]], slice_mm: float, max_gap_mm: float, case: Case
) -> list[tuple[str, list[BoxRow]]]:
    """Lesions whose slices lie further apart than anyone leaves out, taken as several that share a name."""
    parted = []
    for name, rows in lesions:
        slices = sorted(row.key_slice or 0 for row in rows) if rows[0].flat else [0]
        starts = [0, *(n for n, gap in enumerate(np.diff(slices), 1) if (gap - 1) * slice_mm > max_gap_mm)]
        for start, end in zip(starts, [*starts[1:], len(slices)], strict=True):
            part = [row for row in rows if not row.flat or slices[start] <= (row.key_slice or 0) <= slices[end - 1]]
            parted.append((name, part))
            if start:
                what = f"more than {max_gap_mm:g} mm unmarked within a lesion, a lesion of its own from there"
                case.remarks.append((what, f"{name!r} of {case.volume.id}, {part[0].where}"))
    return parted


def _raw_files(path: Path) -> list[Path]:
    if path.is_dir():
        return [file for file in path.rglob("*") if file.is_file()]
    return [path, *(file for suffix in (".raw", ".zraw", ".raw.gz") if (file := path.with_suffix(suffix)).is_file())]


def _lesion(rows: list[BoxRow], volume: CTVolume, case: Case, pad_px: float) -> LesionRecord:
    """The lesion of one row, or of several that are its slices.

    Raises:
        ValueError: It does not fit the scan; the message says why.
    """
    row = rows[0]
    if row.centre_lps is not None:
        lesion = _from_world(row, volume, case, pad_px)
    else:
        lesion = _from_voxels(rows, volume, case, pad_px)
    lesion.type, lesion.ignore = row.type, row.ignore
    if row.key_slice is not None and not row.flat:
        lesion.key_slice = _key_slice(row.key_slice, lesion, volume)
    if lesion.key_slice is None:
        lesion.key_slice = math.floor((lesion.box[2] + lesion.box[5]) / 2)
    flat = next(
        (cut[1:] for cut in lesion.attributes.get("slice_boxes", ()) if cut[0] == lesion.key_slice),
        (*lesion.box[:2], *lesion.box[3:5]),
    )
    mask, _ = pseudo_mask(np.broadcast_to(np.int16(0), volume.shape[1:]), flat, None)
    lesion.mask = encode_mask(mask)
    return lesion


def _from_world(row: BoxRow, volume: CTVolume, case: Case, pad_px: float) -> LesionRecord:
    centre = row.centre_lps or ()
    place = place_in_scan(centre, volume)
    if place is None:
        low, high = volume.boxes_to_world_lps([0, 0, 0, *volume.shape[::-1]])[0].reshape(2, 3).tolist()
        raise ValueError(
            f"centre {_listed(centre)} (LPS) lies outside its scan, which covers {_listed(low)} to {_listed(high)}; "
            "is it in this world (--world, names of the columns)?"
        )
    if len(row.sizes_mm) == 1:
        lesion = sphere_lesion(centre, row.sizes_mm[0], volume, case.volume.id, pad_px)
        assert lesion is not None  # it lies in the scan
        return lesion
    half = np.abs(np.linalg.inv(volume.affine_lps[:3, :3])) @ np.array(row.sizes_mm) / 2
    lesion = _record((*(np.array(place) - half), *(np.array(place) + half)), case, pad_px)
    lesion.attributes |= {"centre_lps": list(centre), "sizes_mm": list(row.sizes_mm)}
    return lesion


def _from_voxels(rows: list[BoxRow], volume: CTVolume, case: Case, pad_px: float) -> LesionRecord:
    sizes = volume.source_shape
    for row in rows:
        box = row.box or ()
        if row.plane_xy is not None and row.plane_xy != sizes[:2]:
            shown = "{} x {}".format(*row.plane_xy)
            raise ValueError(f"its image is {shown} (width x height), but the scan {_times(sizes)}; name the right one")
        for axis, size in zip("xyz", sizes, strict=True):
            near, far = box["xyz".index(axis)], box["xyz".index(axis) + 3]
            if near < 0 or far > size:
                raise ValueError(
                    f"box [{_listed(box)}] leaves its scan of {_times(sizes)} voxels along {axis}; allowed are edges "
                    f"from 0 to {size}, check the order of the axes, and --one-based and --inclusive"
                )
        if row.flat and abs(volume.source_axes[2]) != 3:
            raise ValueError(
                "a box of one slice, but the file is not stored in axial slices (its third axis does not run along the "
                "body); give boxes in 3D"
            )
    canonical = volume.boxes_from_source([row.box or () for row in rows])
    hull = (*canonical[:, :3].min(axis=0), *canonical[:, 3:].max(axis=0))
    lesion = _record(hull, case, pad_px)
    if rows[0].flat:
        shape = case.volume.shape_yx
        cuts = sorted([int(z), *padded((x1, y1, x2, y2), pad_px, shape)] for x1, y1, z, x2, y2, _ in canonical.tolist())
        lesion.attributes["slice_boxes"] = cuts
        lesion.key_slice = int(max(cuts, key=lambda cut: (cut[3] - cut[1]) * (cut[4] - cut[2]))[0])
    return lesion


def _record(box: Sequence[float], case: Case, pad_px: float) -> LesionRecord:
    """A lesion with a canonical box, within the image and along z on whole slices."""
    x1, y1, z1, x2, y2, z2 = (float(value) for value in box)
    depth = case.volume.num_slices
    first, end = max(math.ceil(z1 - 0.5), 0), min(math.ceil(z2 - 0.5), depth)
    if first >= end:
        first = min(math.floor((z1 + z2) / 2), depth - 1)
        end = first + 1
    flat = padded((x1, y1, x2, y2), pad_px, case.volume.shape_yx)
    return LesionRecord(0, case.volume.id, (*flat[:2], float(first), *flat[2:], float(end)))


def _key_slice(index: int, lesion: LesionRecord, volume: CTVolume) -> int:
    """Canonical number of a slice of the file, which must cross the lesion."""
    axis = volume.source_axes[2]
    size = volume.source_shape[abs(axis) - 1]
    number = index if axis > 0 else size - 1 - index
    if not lesion.box[2] <= number < lesion.box[5]:
        ends = sorted(z if axis > 0 else size - 1 - z for z in (int(lesion.box[2]), int(lesion.box[5]) - 1))
        raise ValueError(
            f"key slice {index} lies outside its box, which holds slices {ends[0]} to {ends[1]} (counted from 0 along "
            "the file's axis that runs along the body); mend it"
        )
    return number


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _times(sizes: Sequence[int]) -> str:
    return " x ".join(map(str, sizes))
