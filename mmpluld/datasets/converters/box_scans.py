"""Which scan each row of a table of boxes is about, and whether the rows of a scan agree."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mmpluld.datasets.converters.box_rows import BoxRow
from mmpluld.datasets.converters.report import ConversionReport
from mmpluld.errors import InputError, alike, counted, name_some, suggest
from mmpluld.io.readers import VOLUME_SUFFIXES
from mmpluld.structures.text_files import refuse_faults

__all__ = ["BoxScan", "find_scans", "group_by_scan", "rows_by_lesion"]

_NO_PATIENTS = "no patients given, a scan counts as a patient of its own"
_SINGLE = "boxes of one slice without 'lesion', each a lesion of its own"


@dataclass(frozen=True)
class BoxScan:
    """One scan of the table and what it says of it."""

    path: Path
    rows: list[BoxRow]
    patient: str
    split: str


def find_scans(root: Path, table: Path, rows: list[BoxRow], report: ConversionReport) -> dict[str, Path]:
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
            listed = name_some(_inside(root, matches), 4)
            faults.append(f"{row.where}: scan {row.volume!r} may be {listed}; give its path below {root}")
        else:
            hint = _hint(root, row.volume, named) or f"there are {counted(len(files), 'scan')} in files"
            faults.append(f"{row.where}: no scan {row.volume!r} below {root}; {hint}")
    refuse_faults(table, faults)
    for path in sorted(files - set(found.values())):
        report.remark("scan not in the table, left out", str(path.relative_to(root)))
    return found


def group_by_scan(
    root: Path, table: Path, rows: list[BoxRow], paths: Mapping[str, Path], report: ConversionReport
) -> dict[str, BoxScan]:
    """Volume id -> scan; refuses ids, patients, splits and rows that contradict each other."""
    faults: list[str] = []
    by_path: dict[Path, list[BoxRow]] = defaultdict(list)
    for row in rows:
        by_path[paths[row.volume]].append(row)
    patients_told, splits_told = any(row.patient for row in rows), any(row.split for row in rows)
    scans: dict[str, BoxScan] = {}
    for path, members in by_path.items():
        inside = path.relative_to(root).as_posix()
        name = inside[: len(inside) - len(_suffix(inside) if path.is_file() else "")].replace("/", "_")
        if "\\" in name or ".." in name or not name.isprintable():
            raise InputError(
                f"{path}: its id {name!r} cannot be part of a file name; rename it, without .. and \\ and line breaks"
            )
        if name in scans:
            raise InputError(f"{path}: gets the id {name!r}, as {scans[name].path} does; rename one of them")
        patient = _agreed(members, "patient", faults) if patients_told else name
        split = _agreed(members, "split", faults) if splits_told else ""
        scans[name] = BoxScan(path, [row for row in members if not row.empty], patient, split)
        faults += _contradictions(members)
        if not patients_told:
            report.remark(_NO_PATIENTS, name)
        for row in members:
            if row.flat and not row.lesion:
                report.remark(_SINGLE, row.where)
    refuse_faults(table, faults)
    return scans


def rows_by_lesion(rows: list[BoxRow]) -> list[tuple[str, list[BoxRow]]]:
    """Name and rows of each lesion, in the order of the table; a row without a name is one."""
    groups: dict[str | int, list[BoxRow]] = {}
    for number, row in enumerate(rows):
        groups.setdefault(row.lesion or number, []).append(row)
    return [(parts[0].lesion, parts) for parts in groups.values()]


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


def _inside(root: Path, paths: Iterable[Path]) -> list[str]:
    return sorted({path.relative_to(root).as_posix() for path in paths})


def _hint(root: Path, name: str, named: Mapping[str, list[Path]]) -> str:
    """Paths below the root that a name like none of them may stand for, in words; empty without any."""
    known: Mapping[str, list[Path]] = named
    if "/" in name:  # compared as a whole, for names repeat from folder to folder
        known = {
            path.relative_to(root).with_name(key).as_posix(): [path] for key, paths in named.items() for path in paths
        }
    return suggest(_inside(root, (path for key in alike(name, known) for path in known[key])))


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
    for lesion, parts in rows_by_lesion([row for row in rows if not row.empty]):
        if len(parts) > 1:
            where = f"{parts[0].where} and {parts[1].where}: lesion {lesion!r} of {parts[0].volume!r}"
            if not all(row.flat for row in parts):
                faults.append(f"{where} has two boxes in 3D; give each lesion a name of its own")
            elif len({row.key_slice for row in parts}) < len(parts):
                faults.append(f"{where} has two boxes on one slice; give each lesion a name of its own")
            elif len({(row.type, row.ignore) for row in parts}) > 1:
                faults.append(f"{where} differs in type or ignore between its slices; needed is one for all")
    return faults
