"""Sensitivity on lesions of real CT scans, for detectors that saw synthetic scans alone.

DATA are folders that hold what the tables below name: the volumes with ``boxes.json``, DeepLesion's key slices with
``DL_info_images.csv``, and the CT cases of three packages of the Python index, unpacked. Nothing of it comes with this
project, and what is missing is skipped with a line.

- The *validation set* is for every choice: two lung tumours of ``pycerr``, ``lung2`` of ``pyradiomics``, and the crop
  of LiTS volume 117, whose voxel size is not recorded and taken for 0.8 mm on each side.
- The *test set* is for reporting: eight sarcomas and four chest scans, 12 volumes, each with one marked lesion. Other
  lesions of theirs are not marked, so that a right finding on one counts as a false positive.
- The *slices* are DeepLesion's key slices. Their neighbours are not there: the stack is the slice repeated.

A finding hits a lesion by the rule of ``mmpluld evaluate --protocol lens-3d``: at least 0.3 of the finding's volume
lies in the lesion's box. ``centre`` counts those whose centre lies in it instead. On slices the rule is IoU of at least
0.5. Intervals are those of a bootstrap over volumes (slices: over patients), 95 %. The crop of LiTS has most of the
lesions of the validation set, so that its row says little of the others: ``mean of volumes`` counts each volume alike.
A second table has what ``mmpluld detect`` shows of the volumes unless told otherwise: the findings from the model's
default threshold on.

Run: python -m benchmarks real_ct DATA [DATA ...] --config CONFIG --checkpoint WEIGHTS
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmpluld.errors import InputError
from mmpluld.evaluation.functional import (
    DEEPLESION_2D,
    LENS_3D,
    FROCProtocol,
    Matches,
    bootstrap_sensitivity,
    match_detections,
    threshold_at,
)
from mmpluld.io import read_volume
from mmpluld.structures import CTVolume, Detections, DetectionSet, as_boxes, inclusive_to_edges
from mmpluld.typing import FloatArray

if TYPE_CHECKING:
    from mmpluld.inference import VolumeDetector

LEVELS = (0.5, 1.0, 2.0, 4.0, 8.0)
LEAST_SCORE = 0.05
LITS_SPACING_MM = 0.8
_LITS_HEADER = 1024
_SARCOMAS = ("sts_002", "sts_008", "sts_012", "sts_019", "sts_024", "sts_025", "sts_032", "sts_042")
SETS = {
    "validation": ("pycerr_pat_3", "pycerr_pat_4", "pyradiomics_lung2", "lits_117_crop"),
    "test": (*_SARCOMAS, "nsclc_lung1_001", "pycerr_pat_1", "pycerr_pat_2", "pyradiomics_lung1"),
}


@dataclass(frozen=True)
class Case:
    """A scan and the boxes (n, 6) of its marked lesions, in canonical voxels."""

    name: str
    volume: CTVolume
    lesions: FloatArray


@dataclass(frozen=True)
class Found:
    """Boxes (n, 4 or 6) with their scores, and the lesions of the same scan or slice."""

    name: str
    group: str
    boxes: FloatArray
    scores: FloatArray
    lesions: FloatArray


def find_case(name: str, folders: Sequence[Path]) -> Case | None:
    """Read a case by its name in ``SETS``; None if none of the folders has it."""
    kind, _, rest = name.partition("_")
    if kind == "pycerr":
        folder = _first(folders, f"cerr/datasets/radiomics_phantom_dicom/{rest}")
        return None if folder is None else _pycerr(name, folder)
    if kind == "pyradiomics":
        image = _first(folders, f"pyradiomics-3.0.1/data/{rest}_image.nrrd")
        return None if image is None else _labelled(name, image, image.with_name(f"{rest}_label.nrrd"))
    if kind == "lits":
        image = _first(folders, "liver_ct_segmentation_package/data/img_117.mrc")
        return None if image is None else _lits(name, image, folders)
    image = _first(folders, f"volumes/{name}_image.nii.gz")
    if image is None:
        return None
    volume = read_volume(image)
    rows = json.loads(image.with_name("boxes.json").read_text(encoding="utf-8"))[name]["lesions"]
    return Case(name, volume, volume.boxes_from_source(_exclusive(rows)))


def _first(folders: Sequence[Path], path: str) -> Path | None:
    return next((folder / path for folder in folders if (folder / path).exists()), None)


def _exclusive(rows: Iterable[dict[str, Any]]) -> FloatArray:
    """Boxes that count their last voxel, as those that end behind it."""
    return inclusive_to_edges(as_boxes([row["box"] for row in rows], 3))


def _from_one(boxes: list[list[float]]) -> FloatArray:
    """Boxes of DeepLesion, which count pixels from 1 and include the last one."""
    return inclusive_to_edges(as_boxes(boxes, 2) - 1)


def _labelled(name: str, image: Path, labels: Path) -> Case:
    """A scan with a mask of one lesion in a file of its own."""
    import SimpleITK as sitk

    volume = read_volume(image)
    inside = sitk.GetArrayFromImage(sitk.ReadImage(str(labels))) > 0
    spans = [np.flatnonzero(inside.any(axis=tuple({0, 1, 2} - {axis}))) for axis in (2, 1, 0)]
    box = as_boxes([[int(span[0]) for span in spans] + [int(span[-1]) + 1 for span in spans]], 3)
    return Case(name, volume, volume.boxes_from_source(box))


def _pycerr(name: str, folder: Path) -> Case:
    """A DICOM series with the outline of its tumour as an RTSTRUCT."""
    import pydicom

    volume = read_volume(folder)
    outline = next(iter(sorted(folder.glob("DCM_RS_*.dcm"))))
    (contours,) = pydicom.dcmread(outline).ROIContourSequence
    points = np.concatenate([np.reshape(item.ContourData, (-1, 3)) for item in contours.ContourSequence])
    places = volume.points_from_world_lps(points)
    # Of voxels whose centre lies within.
    low, high = np.ceil(places.min(axis=0) - 1e-3), np.floor(places.max(axis=0) + 1e-3) + 1
    return Case(name, volume, as_boxes([[*low, *high]], 3))


def _lits(name: str, image: Path, folders: Sequence[Path]) -> Case:
    """A cube of 128 voxels, stored as x, y, z behind an MRC header."""
    table = _first(folders, "volumes/package_boxes.json")
    if table is None:
        raise InputError(f"{image}: its boxes are in volumes/package_boxes.json; give the folder of that too")
    values = np.fromfile(image, dtype="<f4", offset=_LITS_HEADER).reshape(128, 128, 128).transpose(2, 1, 0)
    volume = CTVolume.from_canonical(
        np.ascontiguousarray(values).astype(np.float32), (LITS_SPACING_MM,) * 3, source=str(image)
    )
    rows = json.loads(table.read_text(encoding="utf-8"))[name]["lesions"]
    return Case(name, volume, _exclusive(rows))


def key_slices(folders: Sequence[Path]) -> list[tuple[str, str, CTVolume, FloatArray]]:
    """DeepLesion's key slices that are there: name, patient, one slice as a volume, boxes (n, 4) of its lesions."""
    table = _first(folders, "deeplesion/DL_info_images.csv")
    if table is None:
        return []
    boxes: dict[str, list[list[float]]] = {}
    rows: dict[str, dict[str, str]] = {}
    with table.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            rows[row["File_name"]] = row
            boxes.setdefault(row["File_name"], []).append([float(v) for v in row["Bounding_boxes"].split(",")])
    slices = []
    for name, row in rows.items():
        series, _, number = name.removesuffix(".png").rpartition("_")
        picture = table.parent / "Images_png" / series / f"{number}.png"
        if picture.is_file():
            hu = _png16(picture)[None]
            x_mm, y_mm, z_mm = (float(value) for value in row["Spacing_mm_px_"].split(","))
            volume = CTVolume.from_canonical(hu, (z_mm, y_mm, x_mm), source=name)
            slices.append((name, row["Patient_index"], volume, _from_one(boxes[name])))
    return slices


def _png16(path: Path) -> np.ndarray:
    """A slice of DeepLesion in HU, int16 (H, W)."""
    import cv2

    stored = np.asarray(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), np.int32)
    return np.clip(stored - 32768, -1024, 3071).astype(np.int16)


def examine_case(detector: VolumeDetector, case: Case) -> Found:
    """All findings of a scan."""
    findings = detector.detect(case.volume)
    boxes = as_boxes([finding.box_canonical for finding in findings], 3)
    scores = np.array([finding.score for finding in findings], dtype=np.float64)
    return Found(case.name, case.name, boxes, scores, case.lesions)


def examine_slice(detector: VolumeDetector, name: str, patient: str, volume: CTVolume, lesions: FloatArray) -> Found:
    """The 2D boxes of a slice, which stands for its neighbours too."""
    from mmpluld.io.slice_sources import VolumeSliceSource

    (grid,) = detector.grids(VolumeSliceSource(volume), 0, 1, name)
    (found,) = detector.examine(grid, name)
    return Found(name, patient, as_boxes(found.boxes, 2), np.asarray(found.scores, dtype=np.float64), lesions)


def sensitivity_rows(name: str, found: Sequence[Found], protocol: FROCProtocol) -> list[dict[str, Any]]:
    """Sensitivity at the levels, as rows of the table; in 3D by all rules."""
    protocol = replace(protocol, levels=LEVELS, headline_levels=LEVELS)
    matches = _matches(found, protocol)
    head = {"set": name, "scans": len(found), "lesions": sum(len(item.lesions) for item in found)}
    rows = [head | {"rule": protocol.name} | _intervals(matches, found, protocol)]
    if protocol.dim == 3:
        means = _mean_of_volumes(matches, found)
        rows.append(head | {"rule": f"{protocol.name}, mean of volumes"} | means)
        centres = [replace(item, boxes=_centres(item.boxes)) for item in found]
        rows.append(head | {"rule": "centre"} | _intervals(_matches(centres, protocol), found, protocol))
    return rows


def default_row(name: str, found: Sequence[Found], score_thr: float) -> dict[str, Any]:
    """What a threshold leaves of the lesions and of the false positives, by ``lens-3d``."""
    matches = _matches([_scored(item, score_thr) for item in found], LENS_3D)
    hits = int((matches.found_by < len(matches.score)).sum())
    return {
        "set": name,
        "score threshold": f"{score_thr:.4g}",
        "findings": len(matches.score),
        "lesions found": f"{hits} of {len(matches.found_by)}",
        "false positives per volume": f"{matches.false_positive.sum() / len(found):.2f}",
    }


def _scored(item: Found, score_thr: float) -> Found:
    """The boxes from a score on."""
    kept = item.scores >= score_thr
    return replace(item, boxes=item.boxes[kept], scores=item.scores[kept])


def _matches(found: Sequence[Found], protocol: FROCProtocol) -> Matches:
    return match_detections(
        [item.boxes for item in found], [item.scores for item in found], [item.lesions for item in found], protocol
    )


def _intervals(matches: Matches, found: Sequence[Found], protocol: FROCProtocol) -> dict[str, str]:
    spread = bootstrap_sensitivity(matches, [item.group for item in found], protocol)
    return {
        f"{level:g} FPs": f"{value:.2f} ({low:.2f} to {high:.2f})"
        for level, value, low, high in zip(LEVELS, spread.value, spread.low, spread.high, strict=True)
    }


def _mean_of_volumes(matches: Matches, found: Sequence[Found]) -> dict[str, str]:
    """At the score that gives a level on all volumes, the mean of their own sensitivities by ``lens-3d``."""
    cells = {}
    for level, score in zip(LEVELS, threshold_at(matches, LEVELS), strict=True):
        kept = [_scored(item, score) for item in found]
        shares = [np.mean([hit is not None for hit in first_hits(item)]) for item in kept if len(item.lesions)]
        cells[f"{level:g} FPs"] = f"{np.mean(shares):.2f}"
    return cells


def _centres(boxes: FloatArray) -> FloatArray:
    """Boxes (n, 6) shrunk to a hundredth of a voxel, which lie in a box or do not."""
    middle = (boxes[:, :3] + boxes[:, 3:]) / 2
    return np.concatenate([middle - 0.005, middle + 0.005], axis=1)


def first_hits(item: Found) -> list[tuple[int, float] | None]:
    """Rank (from 1) and score of the best finding that hits each lesion of a scan, by ``lens-3d``."""
    from mmpluld.structures import pairwise_overlap

    if not len(item.boxes):
        return [None] * len(item.lesions)
    order = np.argsort(-item.scores, kind="stable")
    hits = pairwise_overlap(item.boxes[order], item.lesions, LENS_3D.overlap) >= LENS_3D.threshold
    return [
        (int(column.argmax()) + 1, float(item.scores[order][column.argmax()])) if column.any() else None
        for column in hits.T
    ]


def _describe(item: Found) -> str:
    """What was found of a scan's lesions, in a line."""
    hits = first_hits(item)
    if len(hits) > 3:
        told = f"{sum(hit is not None for hit in hits)} of {len(hits)} lesions hit"
    else:
        told = ", ".join("missed" if hit is None else f"finding {hit[0]} (score {hit[1]:.2f})" for hit in hits)
    return f"  {item.name}: {told}; {len(item.boxes)} findings"


def write_found(found: Sequence[Found], name: str, folder: Path) -> None:
    """Write ``NAME_detections.json`` and ``NAME_truth.json``, as ``mmpluld evaluate`` reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = {
        "detections": {item.name: Detections(item.boxes, item.scores) for item in found},
        "truth": {item.name: Detections(item.lesions) for item in found},
    }
    for part, volumes in parts.items():
        DetectionSet(volumes).save(folder / f"{name}_{part}.json")


def rows_of_sets(
    detector: VolumeDetector, folders: Sequence[Path], sets: Sequence[str], out: Path | None = None
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Examine what is there of the sets, write what was found in volumes, and make the rows of both tables.

    Args:
        detector: With the settings that the model has by default. Its threshold is lowered, for a curve needs what
            scores less; boxes are linked as before, so that those from the former threshold on are the same.
        folders, sets: Where scans are looked for, and what is measured.
        out: Folder for what was found.
    """
    default = detector.settings.score_thr
    detector.settings = replace(detector.settings, score_thr=min(default, LEAST_SCORE))
    rows: list[dict[str, Any]] = []
    at_default: list[dict[str, Any]] = []
    for name in sets:
        if name == "slices":
            found = [examine_slice(detector, *item) for item in key_slices(folders)]
            if found:
                rows += sensitivity_rows("DeepLesion key slices", found, DEEPLESION_2D)
            else:
                print("slices: no deeplesion/DL_info_images.csv with pictures, skipped", flush=True)
            continue
        found = []
        for case_name in SETS[name]:
            case = find_case(case_name, folders)
            if case is None:
                print(f"  {case_name}: not there, skipped", flush=True)
                continue
            found.append(examine_case(detector, case))
            print(_describe(found[-1]), flush=True)
        if found:
            rows += sensitivity_rows(name, found, LENS_3D)
            at_default.append(default_row(name, found, default))
        if found and out is not None:
            write_found(found, name, out)
    return rows, at_default


def run(arguments: Sequence[str]) -> dict[str, Any]:
    """Load the detector and measure it.

    Raises:
        InputError: There is no such folder, no detector is named, or nothing of the sets is there.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks real_ct", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("data", nargs="+", type=Path, metavar="DATA", help="folders with the scans")
    parser.add_argument("--model", metavar="NAME", help="model of the zoo, or the file of a bundle")
    parser.add_argument("--config", help="config of --checkpoint")
    parser.add_argument("--checkpoint", help="weights: file, web address, or zoo:NAME")
    every = [*SETS, "slices"]
    parser.add_argument("--sets", nargs="+", choices=every, default=every, help="what to measure (default: all)")
    parser.add_argument("--cfg-options", nargs="+", metavar="KEY=VALUE", help="changes to the config")
    parser.add_argument("--out", type=Path, help="folder for detections and truth of the volumes, in canonical voxels")
    options = parser.parse_args(arguments)
    if (options.model is None) == (options.checkpoint is None):
        parser.error("give either --model, or --checkpoint with its --config")
    for folder in options.data:
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder; give the folders that hold the scans")
    from mmpluld.inference.detector import Detector

    detector = Detector(
        options.model,
        config=options.config,
        checkpoint=options.checkpoint,
        cfg_options=options.cfg_options,
    )
    rows, at_default = rows_of_sets(detector.volume_detector, options.data, options.sets, options.out)
    if not rows:
        raise InputError(f"{', '.join(map(str, options.data))}: none of the scans is there; see {__file__}")
    return {
        "name": f"Real CT, {detector.details['Model']}",
        "bar": "0.5 of the lesions of the test set at 4 false positives per volume",
        "rows": rows,
        "default": at_default,
    }
