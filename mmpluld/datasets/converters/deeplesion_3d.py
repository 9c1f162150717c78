"""The 1,000 fully annotated sub-volumes of DeepLesion (test set of the LENS paper) to annotation files.

Conventions of the raw file: a sub-volume is a run of slices PATIENT_STUDY_SERIES_FIRST-LAST; boxes are
(x1, y1, z1, x2, y2, z2), x and y counted from 0, z the number of the PNG, far ends included, so a box becomes
edges by adding 1 to each far end. The file tells neither voxel size nor lesion type; both come from the key-slice
annotations of the same series, where these have been converted.
"""

from __future__ import annotations

import io
import math
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mmpluld.atomic import atomic_group
from mmpluld.compat.unpickling import ARRAY_MODULES
from mmpluld.datasets.converters.assemble import check_annotation_files
from mmpluld.datasets.converters.report import LEFT_OUT, ConversionReport, SplitCounts
from mmpluld.datasets.converters.slice_units import slices_in_hu
from mmpluld.errors import InputError
from mmpluld.inputs import read_bytes
from mmpluld.io.hounsfield import Units
from mmpluld.io.slice_sources import PNGSliceSource
from mmpluld.progress import track
from mmpluld.structures import AnnotationSet, LesionRecord, VolumeRecord, pairwise_overlap
from mmpluld.structures.text_files import read_json
from mmpluld.typing import StrPath

__all__ = ["convert_deeplesion_3d"]

_NAME = re.compile(r"(\d+)_(\d+)_(\d+)_(\d+)-(\d+)", re.ASCII)
_SHAPE_YX = (512, 512)
_SAME_LESION_IOU = 0.5
_ARRAY = object()  # stands for the class, which a pickle could otherwise call for an array of any size


def convert_deeplesion_3d(
    root: StrPath, boxes: StrPath, overwrite: bool = False, units: Units | None = None
) -> ConversionReport:
    """Write ``ROOT/annotations/manual_{val,test}.json`` for the fully annotated sub-volumes.

    If ``ROOT/annotations/test.json`` exists (``convert_deeplesion`` writes it; all sub-volumes are of that split),
    it gives the voxel size and slice size of each series, and the type of every lesion whose box on the key slice
    has IoU >= 0.5 with a box there. Otherwise voxel sizes and types are unknown and slices 512 x 512.

    Args:
        root: DeepLesion's folder; the images need not be there.
        boxes: The published pickle, or the same as JSON: ``{"val": {sub-volume: [[x1, y1, z1, x2, y2, z2], ...]},
            "test": ...}``. Of a pickle only plain containers and number arrays are read, no code is run.
        overwrite: Replace annotation files that exist.
        units: ``hu`` to take the slices' values for HU where they do not look like it; sub-volumes that do not are
            left out otherwise. Three slices of each are looked at, where there are images.

    Returns:
        What was written, and what was left out and why.

    Raises:
        InputError: The file is missing or faulty, or annotation files exist. Nothing is written then.
    """
    annotations = Path(root) / "annotations"
    source = Path(boxes)
    splits = _read(source)
    files = {f"manual_{name}": annotations / f"manual_{name}.json" for name in splits}
    if Path(root).is_dir():
        check_annotation_files(Path(root), list(files.values()), overwrite)
    key_slices = _KeySlices(annotations / "test.json")
    report = ConversionReport(files=files)
    with atomic_group(list(files.values())) as temporaries:
        for name, content, temporary in zip(files, splits.values(), temporaries, strict=True):
            converted = _convert(source, content, key_slices)
            _leave_out_what_does_not_fit(converted, Path(root), units, report)
            converted.save(temporary)
            report.splits[name] = SplitCounts(len(converted.volumes), None, len(converted.lesions))
            report.unknown_spacing += [v.id for v in converted.volumes if np.isnan(v.spacing_mm).any()]
        if LEFT_OUT in report.remarks and not any(count.volumes for count in report.splits.values()):
            left = report.remarks[LEFT_OUT]
            raise InputError(f"none of {len(left)} sub-volumes could be converted; the first: {left[0]}")
    return report


def _leave_out_what_does_not_fit(
    annotations: AnnotationSet, root: Path, units: Units | None, report: ConversionReport
) -> None:
    """Leave out sub-volumes whose PNGs are there and are not in HU, or of another size than the boxes are taken for."""
    kept = set()
    for volume in track(annotations.volumes, "looking at values", total=len(annotations.volumes)):
        numbers = range(volume.first_slice, volume.first_slice + volume.num_slices)
        if (shape := _shape_of_pngs(root / volume.source["path"])) not in (None, tuple(volume.shape_yx)):
            reason = f"slices are {list(shape or ())} (y, x), its boxes are taken for {list(volume.shape_yx)}"
            report.remark(LEFT_OUT, f"{volume.id} ({reason}; convert deeplesion first, with the original images)")
        elif slices_in_hu(root / volume.source["path"], numbers, units, report):
            kept.add(volume.id)
    annotations.volumes = [volume for volume in annotations.volumes if volume.id in kept]
    annotations.lesions = [lesion for lesion in annotations.lesions if lesion.volume in kept]


def _shape_of_pngs(folder: Path) -> tuple[int, int] | None:
    """Height and width of the slices of a series; None where there are none, or none that can be read."""
    try:
        return PNGSliceSource(folder, (math.nan,) * 3).shape_yx
    except InputError:
        return None


class _KeySlices:
    """Key-slice annotations by series; empty if the file does not exist."""

    def __init__(self, path: Path) -> None:
        known = AnnotationSet.load(path) if path.exists() else AnnotationSet({})
        self.volumes = {volume.id: volume for volume in known.volumes}
        self.lesions = known.lesions_by_volume()

    def match(self, series: str, boxes: np.ndarray) -> dict[int, LesionRecord]:
        """The key-slice lesion that each of (N, 6) boxes shows, for those that show one."""
        best: dict[int, tuple[float, LesionRecord]] = {}
        for lesion in self.lesions.get(series, []):
            if lesion.key_slice is None or not len(boxes):
                continue
            overlap = pairwise_overlap(boxes[:, [0, 1, 3, 4]], np.array([lesion.box])[:, [0, 1, 3, 4]], "iou")[:, 0]
            overlap[(boxes[:, 2] > lesion.key_slice) | (boxes[:, 5] <= lesion.key_slice)] = 0
            row = int(overlap.argmax())
            if overlap[row] >= max(_SAME_LESION_IOU, best.get(row, (0.0,))[0]):
                best[row] = (float(overlap[row]), lesion)
        return {row: lesion for row, (_, lesion) in best.items()}


def _convert(source: Path, content: Mapping[str, Any], key_slices: _KeySlices) -> AnnotationSet:
    result = AnnotationSet({"name": "deeplesion-3d", "label_scope": "universal-complete"})
    for name in sorted(content):
        match = _NAME.fullmatch(name)
        if match is None or int(match[4]) > int(match[5]):
            raise InputError(f"{source}: sub-volume {name!r}; needed is PATIENT_STUDY_SERIES_FIRST-LAST, all numbers")
        volume = _volume(name, match, key_slices)
        boxes = _edges(source, name, content[name], volume)
        result.volumes.append(volume)
        shown = key_slices.match(f"{match[1]}_{match[2]}_{match[3]}", boxes)
        for row, box in enumerate(boxes.tolist()):
            marked = shown.get(row)
            result.lesions.append(
                LesionRecord(
                    id=len(result.lesions),
                    volume=name,
                    box=tuple(box),
                    type=marked.type if marked else None,
                    attributes={"key_slice_lesion": marked.id} if marked else {},
                )
            )
    return result


def _volume(name: str, match: re.Match[str], key_slices: _KeySlices) -> VolumeRecord:
    patient, study, series, first, last = match.groups()
    whole = f"{patient}_{study}_{series}"
    known = key_slices.volumes.get(whole)
    return VolumeRecord(
        id=name,
        patient=patient,
        study=study,
        series=series,
        source={"kind": "png16", "path": f"Images_png/{whole}"},
        first_slice=int(first),
        num_slices=int(last) - int(first) + 1,
        shape_yx=known.shape_yx if known else _SHAPE_YX,
        spacing_mm=known.spacing_mm if known else (math.nan,) * 3,
    )


def _edges(source: Path, name: str, rows: Any, volume: VolumeRecord) -> np.ndarray:
    """(N, 6) voxel edges of a sub-volume's inclusive boxes."""
    try:
        boxes = np.array(rows, dtype=np.float64)
    except (TypeError, ValueError):
        boxes = np.zeros(1)
    boxes = boxes.reshape(0, 6) if boxes.size == 0 else boxes
    if boxes.ndim != 2 or boxes.shape[1] != 6 or not np.isfinite(boxes).all():
        raise InputError(f"{source}: sub-volume {name}: boxes are not rows of 6 finite numbers; fetch the file again")
    height, width = volume.shape_yx
    low = np.array([0, 0, volume.first_slice])
    high = np.array([width, height, volume.first_slice + volume.num_slices]) - 1
    bad = ((boxes[:, :3] < low) | (boxes[:, 3:] > high) | (boxes[:, 3:] < boxes[:, :3])).any(axis=1)
    if bad.any():
        raise InputError(
            f"{source}: sub-volume {name}: box {boxes[bad][0].tolist()}; allowed are x1, y1, z1, x2, y2, z2 in rising "
            f"order within {low.tolist()} to {high.tolist()}, mend the box"
        )
    return np.hstack([boxes[:, :3], boxes[:, 3:] + 1])


def _read(path: Path) -> dict[str, dict[str, Any]]:
    """The splits of the raw file."""
    wanted = "the file of the sub-volumes' boxes"
    content = read_bytes(path, wanted)
    try:
        # A pickle of these times begins with its protocol, byte 0x80; older ones and JSON are text.
        pickled = content[:1] == b"\x80" or content.lstrip()[:1] not in (b"{", b"\xef", b"\xff", b"\xfe")
        data = _ArrayUnpickler(io.BytesIO(content)).load() if pickled else read_json(path, wanted)
    except InputError:
        raise
    except Exception as error:  # a damaged pickle can raise anything, and builds nothing but arrays
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{path}: neither JSON nor the published pickle ({reason}); fetch it again") from None
    if not isinstance(data, dict) or not data or not set(data) <= {"val", "test"}:
        found = ", ".join(map(str, data))[:80] if isinstance(data, dict) else type(data).__name__
        raise InputError(f"{path}: holds {found or 'nothing'}; needed are the splits 'val' and 'test', fetch it again")
    for name, content in data.items():
        if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
            raise InputError(f"{path}: split {name!r} does not map sub-volumes to boxes; fetch the file again")
    return data


def _empty_array(kind: object, shape: object, _: object) -> np.ndarray:
    """What a pickled array begins as, before it gets its state."""
    if kind is not _ARRAY or shape != (0,):
        raise pickle.UnpicklingError(f"an array that begins with the shape {shape}")
    return np.empty(0)


class _ArrayUnpickler(pickle._Unpickler):
    """Reads containers, numbers, text and NumPy arrays; whatever else a pickle asks for is refused."""

    # No byte arrays: they take the memory that they ask for, and damaged ones make the unpickler in C print errors.
    dispatch = {code: load for code, load in pickle._Unpickler.dispatch.items() if code != pickle.BYTEARRAY8[0]}

    def find_class(self, module: str, name: str) -> Any:
        parts: dict[str, Any] = {"_reconstruct": _empty_array, "ndarray": _ARRAY, "dtype": np.dtype}
        if module in ("numpy", *ARRAY_MODULES) and name in parts:
            return parts[name]
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, and only NumPy arrays are read")
