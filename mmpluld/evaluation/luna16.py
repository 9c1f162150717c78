"""The LUNA16 challenge's own CSV files, evaluated by its rules."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mmpluld.errors import InputError, alike, nearest, suggest
from mmpluld.evaluation.evaluate import ONE_UNIT, plain
from mmpluld.evaluation.functional import (
    LUNA16_LEVELS,
    Matches,
    interpolated_sensitivity,
    match_marks,
    order_statistics,
    resample_interpolated,
    threshold_at,
)
from mmpluld.structures.records import AnnotationSet, DetectionSet
from mmpluld.structures.text_files import check_columns, parse_number, read_rows
from mmpluld.typing import FloatArray, StrPath

__all__ = ["LUNA16", "evaluate_luna16"]


LUNA16 = "luna16"
"""Name of the protocol on the command line and in reports."""
_PLACE = ("coordX", "coordY", "coordZ")
_CONFIDENCE = 0.95


def evaluate_luna16(
    pred_path: StrPath, truth_dir: StrPath, scans: StrPath | None = None, bootstrap: int = 0, seed: int = 0
) -> dict[str, Any]:
    """FROC of a submission to the LUNA16 challenge.

    Marks and findings of scans that ``seriesuids.csv`` does not list are left out, so that a list of some scans
    evaluates these alone (one of the ten folds, say). All listed scans count, with marks or without.

    Args:
        pred_path: CSV file with columns seriesuid, coordX, coordY, coordZ (world mm), probability; or a detection
            record with boxes in world mm (``detect`` and ``test`` write it), whose centres are the marks.
        truth_dir: Folder with ``annotations.csv`` and ``annotations_excluded.csv`` (seriesuid, coordX, coordY,
            coordZ, diameter_mm) and ``seriesuids.csv`` (one id a line, no header).
        scans: Annotation file of the scans to evaluate, of those listed, such as the test part of the converted
            dataset; None evaluates all.
        bootstrap: Resamples of scans for a 95 % interval, 1000 in the challenge; 0 for none.
        seed: Seed of the bootstrap.

    Returns:
        Plain values that fit into JSON, named as in the result of
        :func:`~mmpluld.evaluation.evaluate.evaluate_files`.

    Raises:
        InputError: If a file is missing or faulty (file, line, column), or there is no nodule to find.
    """
    folder = Path(truth_dir)
    series = _read_series(folder / "seriesuids.csv")
    if scans is not None:
        series = _listed(series, scans, folder / "seriesuids.csv")
    nodules = _by_scan(_read_table(folder / "annotations.csv", "diameter_mm"), series)
    excluded = _by_scan(_read_table(folder / "annotations_excluded.csv", "diameter_mm"), series)
    if not any(map(len, nodules)):
        raise InputError(
            f"{folder / 'annotations.csv'}: no nodule in the {len(series)} scans of {scans or 'seriesuids.csv'}; "
            "sensitivity needs at least one, give files whose scan ids agree"
        )
    submitted = _read_marks(Path(pred_path))
    if submitted and not set(submitted) & set(series):
        name = next(iter(submitted))
        hint = suggest(alike(name, series))
        raise InputError(
            f"{pred_path}: none of its scans ({name!r}, ...) is in {folder / 'seriesuids.csv'} ({series[0]!r}, ...); "
            f"name scans by their series UID{hint and '; '}{hint}"
        )
    marks = _by_scan(submitted, series)
    points, scores = [part[:, :3] for part in marks], [part[:, 3] for part in marks]
    matches = match_marks(points, scores, nodules, excluded)
    known = {*series}
    result = _summary(matches, sum(map(len, excluded)))
    result |= {
        "num_over_limit": sum(map(len, marks)) - len(matches.score),
        "missing_volumes": [name for name in series if name not in submitted],
        "extra_volumes": [name for name in submitted if name not in known],
    }
    if bootstrap and len(series) < 2:
        result["no_interval"] = ONE_UNIT.format("scan")
    elif bootstrap:
        result["interval"] = _interval(matches, bootstrap, seed)
    return result


def _summary(matches: Matches, num_excluded: int) -> dict[str, Any]:
    sensitivity = interpolated_sensitivity(matches, LUNA16_LEVELS)
    finders = np.unique(matches.found_by[matches.found_by < len(matches.score)])
    false_positives = int(matches.false_positive.sum())
    return {
        "protocol": LUNA16,
        "mode": "official",
        "dim": 3,
        "overlap": "distance",
        "threshold": 1.0,
        "per": "scan",
        "levels": list(LUNA16_LEVELS),
        "sensitivity": sensitivity.tolist(),
        "headline_levels": list(LUNA16_LEVELS),
        "average": float(sensitivity.mean()),
        "threshold_at_level": plain(threshold_at(matches, LUNA16_LEVELS)),
        "num_images": matches.num_images,
        "num_volumes": matches.num_images,
        "num_patients": None,
        "num_lesions": len(matches.found_by),
        "num_found": int((matches.found_by < len(matches.score)).sum()),
        "num_ignored_lesions": num_excluded,
        "num_detections": len(matches.score),
        "num_false_positives": false_positives,
        "num_set_aside": len(matches.score) - false_positives - len(finders),
        "num_off_slice_detections": 0,
    }


def _interval(matches: Matches, resamples: int, seed: int) -> dict[str, Any]:
    drawn = resample_interpolated(matches, LUNA16_LEVELS, resamples, seed)
    drawn = drawn[np.isfinite(drawn).all(axis=1)]
    if not len(drawn):
        drawn = np.full((1, len(LUNA16_LEVELS)), np.nan)
    ends = np.column_stack(order_statistics(drawn, _CONFIDENCE))
    return {
        "confidence": _CONFIDENCE,
        "resampled": "scans",
        "num_resampled": matches.num_images,
        "resamples": resamples,
        "seed": seed,
        "sensitivity": [plain(pair) for pair in ends],
        "average": plain(np.array(order_statistics(drawn.mean(axis=1), _CONFIDENCE))),
    }


def _read_marks(path: Path) -> dict[str, list[list[float]]]:
    """World centre and probability of the marks of each scan."""
    if path.suffix.lower() != ".json":
        return _read_table(path, "probability")
    table: dict[str, list[list[float]]] = {}
    for name, found in DetectionSet.load(path).volumes.items():
        table[name] = []
        if found.scores is not None and found.world_lps is not None:
            centres = (found.world_lps[:, :3] + found.world_lps[:, 3:]) / 2
            table[name] = np.column_stack([centres, found.scores]).tolist()
        elif len(found.boxes):
            lacking = "scores" if found.scores is None else "world_lps"
            raise InputError(
                f"{path}: volume '{name}': boxes without {lacking}; marks are places in world mm with a score, as "
                "`mmpluld detect` writes them, and `mmpluld test` where the annotation file has affine_lps"
            )
    return table


def _by_scan(table: dict[str, list[list[float]]], series: list[str]) -> list[FloatArray]:
    """(N, 4) rows of each scan."""
    return [np.array(table.get(name, []), dtype=np.float64).reshape(-1, 4) for name in series]


def _read_series(path: Path) -> list[str]:
    names: dict[str, int] = {}
    for line, row in _csv_rows(path):
        name = row[0].strip()
        if len(row) != 1 or not name:
            raise InputError(f"{path}: line {line}: {','.join(row)!r}; needed is one scan id a line, mend the line")
        if name in names:
            raise InputError(f"{path}: line {line}: {name!r} stands on line {names[name]} already; remove one")
        names[name] = line
    if not names:
        raise InputError(f"{path}: no scan id; list the scans to evaluate, one a line without header")
    return list(names)


def _listed(series: list[str], scans: StrPath, path: Path) -> list[str]:
    """Those of the listed scans that are volumes of an annotation file."""
    wanted = {volume.id for volume in AnnotationSet.load(scans).volumes}
    unknown = sorted(wanted - set(series))
    if unknown or not wanted:
        what = f"volume {unknown[0]!r} is no scan of {path}" if unknown else "no volumes"
        raise InputError(f"{scans}: {what}; give an annotation file that `mmpluld convert luna16` wrote")
    return [name for name in series if name in wanted]


def _read_table(path: Path, value: str) -> dict[str, list[list[float]]]:
    """Place and ``value`` of the rows of each scan."""
    rows = _csv_rows(path)
    header = [name.strip() for name in next(rows, (0, []))[1]]
    wanted = ("seriesuid", *_PLACE, value)
    for name in wanted:
        if name not in header:
            close = nearest(name, header)
            hint = f"; is it the one called {close!r}?" if close else ""
            raise InputError(f"{path}: line 1: no column {name!r} in the header{hint}; needed: {', '.join(wanted)}")
    check_columns(path, header)
    positions = [header.index(name) for name in wanted]
    table: dict[str, list[list[float]]] = {}
    for line, row in rows:
        if len(row) != len(header):
            raise InputError(
                f"{path}: line {line}: {len(row)} fields; the header has {len(header)} columns, mend the line"
            )
        name = row[positions[0]].strip()
        if not name:
            raise InputError(f"{path}: line {line}, column 'seriesuid': empty; needed is a scan id, mend the line")
        numbers = [_number(row[place]) for place in positions[1:]]
        if None in numbers:
            column = wanted[1 + numbers.index(None)]
            raise InputError(
                f"{path}: line {line}, column {column!r}: {row[header.index(column)]!r}; needed is a finite number, "
                "mend the line"
            )
        table.setdefault(name, []).append([number for number in numbers if number is not None])
    return table


def _number(text: str) -> float | None:
    """The finite number that a field holds, None if it holds something else."""
    try:
        return parse_number("a field", text)
    except ValueError:
        return None


def _csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield line numbers and fields; lines without any field are passed over."""
    yield from read_rows(
        path, "a submission and a folder with annotations.csv, annotations_excluded.csv, seriesuids.csv"
    )
