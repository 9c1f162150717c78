"""NIH-LN, "CT Lymph Nodes" (DICOM series, instance masks, text annotations) to annotation files.

A case is a folder ``ABD_LYMPH_NNN`` or ``MED_LYMPH_NNN`` of DICOM files. Its nodes are the integers of
``MED_ABD_LYMPH_MASKS/<case>/<case>_mask.nii.gz``; where a case has no mask, the positions and sizes of
``MED_ABD_LYMPH_ANNOTATIONS/<case>`` give approximate boxes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from mmpluld.datasets.converters.assemble import (
    Case,
    annotation_files,
    assign_splits,
    component_lesion,
    components,
    convert_cases,
    padded,
    place_in_scan,
    slices_around,
    write_cases,
)
from mmpluld.datasets.converters.label_masks import MIRRORS, mask_on_scan, read_labels
from mmpluld.datasets.converters.overrides import Override, read_overrides
from mmpluld.datasets.converters.report import ConversionReport
from mmpluld.datasets.converters.volume_store import raw_files, store_volume
from mmpluld.errors import InputError
from mmpluld.io import read_volume
from mmpluld.io.dicom_files import folders_below
from mmpluld.io.hounsfield import Units
from mmpluld.structures import CTVolume, LesionRecord, VolumeRecord
from mmpluld.structures.text_files import parse_number, read_text
from mmpluld.typing import FloatArray, StrPath

__all__ = ["LymphNode", "convert_nih_ln", "read_nih_ln_nodes"]

_CASE = re.compile(r"(ABD|MED)_LYMPH_\d{3}", re.ASCII)
_MASKS, _TEXTS = "MED_ABD_LYMPH_MASKS", "MED_ABD_LYMPH_ANNOTATIONS"
_MOST_NODES = 1000  # the dataset has 595 in all
_OTHERS = (_MASKS, _TEXTS, "MED_ABD_LYMPH_CANDIDATES", "volumes", "annotations")


@dataclass(frozen=True)
class LymphNode:
    """One node of the text files.

    Attributes:
        index: Voxel (i, j, k) of the file.
        point_lps: World mm.
        sizes_mm: Short and long axis in abdominal cases, the short one alone in mediastinal ones.
    """

    index: tuple[float, float, float]
    point_lps: tuple[float, float, float]
    sizes_mm: tuple[float, ...]


def convert_nih_ln(
    root: StrPath,
    *,
    fractions: Sequence[float] = (80, 0, 20),
    seed: int = 0,
    min_voxels: int = 5,
    pad_mm: float = 0.0,
    overrides: StrPath | None = None,
    overwrite: bool = False,
    units: Units | None = None,
) -> ConversionReport:
    """Write ``ROOT/annotations/*.json`` and the volume store for an NIH-LN folder.

    Image and mask are matched by their orientation in the world, for one is DICOM and the other NIfTI; both must have
    one shape then. A node in several pieces takes its largest piece, and is reported.

    Args:
        root: Folder searched with its subfolders for the cases' DICOM folders.
        fractions: Shares of training, validation and test by patient; LENS takes 80 % and 20 % at random.
        seed: Of the random split.
        min_voxels: Smaller nodes become lesions to be ignored, and are reported.
        pad_mm: Margin added to each side of a box in the plane; DeepLesion's 5 pixels are about 4 mm.
        overrides: Table of corrections, see :mod:`mmpluld.datasets.converters.overrides`.
        overwrite: Replace annotation files, and volumes whose raw files have changed.
        units: ``hu`` to take values for HU that do not look like it.

    Returns:
        What was written, and what was left out and why.

    Raises:
        InputError: No case is there, files exist, or no case can be read.
    """
    root = Path(root)
    report = ConversionReport(files=annotation_files(root, fractions, overwrite))
    folders = _cases(root)
    table = read_overrides(overrides, folders)
    convert = partial(
        _convert,
        root=root,
        folders=folders,
        overrides=table,
        min_voxels=min_voxels,
        pad_mm=pad_mm,
        overwrite=overwrite,
        units=units,
    )
    cases = convert_cases(sorted(folders), convert, table, report)
    splits = assign_splits(folders, fractions, seed)
    return write_cases({"name": "nih-ln", "label_scope": "lymph-nodes"}, cases, splits, report)


def read_nih_ln_nodes(folder: StrPath) -> list[LymphNode]:
    """Read the three text files of one case folder of ``MED_ABD_LYMPH_ANNOTATIONS``.

    Raises:
        InputError: A file is missing, holds anything but numbers, or their lines do not match.
    """
    folder = Path(folder)
    tables = {kind: _numbers(folder / f"{folder.name}_lymphnodes_{kind}.txt") for kind in ("indices", "physicalPoints")}
    sizes = _numbers(folder / f"{folder.name}_lymphnodes_sizes.txt")
    for kind, rows in tables.items():
        file = folder / f"{folder.name}_lymphnodes_{kind}.txt"
        if len(rows) != len(sizes):
            raise InputError(f"{file}: {len(rows)} nodes, but {len(sizes)} sizes beside it; fetch the case again")
        if any(len(row) != 3 for row in rows):
            raise InputError(f"{file}: a line without three numbers; fetch the case again")
    return [
        LymphNode((*index,), (*point,), tuple(size))  # type: ignore[arg-type]
        for index, point, size in zip(tables["indices"], tables["physicalPoints"], sizes, strict=True)
    ]


def _numbers(file: Path) -> list[list[float]]:
    rows = []
    for number, line in enumerate(read_text(file, "the text files of the case").splitlines(), 1):
        try:
            rows.append([parse_number("a word", word) for word in line.split()])
        except ValueError as error:
            raise InputError(f"{file}: line {number}: {error}; fetch the case again") from None
    return [row for row in rows if row]


def _cases(root: Path) -> dict[str, Path]:
    """Case -> folder of its DICOM files."""
    found: dict[str, Path] = {}
    for path in sorted(folder for folder, _ in folders_below(root)):
        if not _CASE.fullmatch(path.name) or set(path.relative_to(root).parts) & set(_OTHERS):
            continue
        if path.name in found:
            raise InputError(f"{path}: case {path.name} is also at {found[path.name]}; keep one of them")
        found[path.name] = path
    if not found:
        raise InputError(f"{root}: no folders ABD_LYMPH_NNN or MED_LYMPH_NNN of DICOM files; unpack the dataset there")
    return found


def _convert(
    name: str,
    *,
    root: Path,
    folders: dict[str, Path],
    overrides: dict[str, Override],
    min_voxels: int,
    pad_mm: float,
    overwrite: bool,
    units: Units | None,
) -> Case:
    override = overrides.get(name, Override())
    mask_file, texts = root / _MASKS / name / f"{name}_mask.nii.gz", root / _TEXTS / name
    if not mask_file.exists() and not texts.is_dir():
        raise InputError(f"{name}: neither {mask_file} nor {texts}; add one of them")
    folder = folders[name]
    read = partial(read_volume, folder, units=units)
    stored = store_volume(root, name, raw_files(folder), read, override, overwrite, units)
    case = Case(stored.record(name, name, "1", "1"))
    case.remarks += [(what, str(folder)) for what in stored.remarks]
    nodes = read_nih_ln_nodes(texts) if texts.is_dir() else []
    if mask_file.exists():
        labels = _labels(mask_file, stored.volume, override, case)
        case.lesions = _from_mask(labels, case, mask_file, min_voxels, pad_mm)
        if texts.is_dir() and len(nodes) != len(case.lesions):
            case.remarks.append(("mask and text differ in the number of nodes, mask taken", name))
        if remark := _match_nodes(mask_file, case.lesions, labels, nodes, stored.volume):
            case.remarks.append((remark, name))
    else:
        case.remarks.append(("no mask, approximate boxes from positions and sizes", name))
        nodes = _sized(nodes, case)
        for node in nodes:
            lesion = _from_text(node, case.volume, stored.volume, pad_mm)
            if lesion is None:
                case.remarks.append(("node outside its scan, dropped", f"{name} at {list(node.point_lps)}"))
            else:
                case.lesions.append(lesion)
    return case


def _sized(nodes: list[LymphNode], case: Case) -> list[LymphNode]:
    """Nodes that have a size; the others, of which the dataset has one, have no box."""
    for node in nodes:
        if max(node.sizes_mm) <= 0:
            case.remarks.append(("node of size 0, dropped", f"{case.volume.id} at {list(node.point_lps)}"))
    return [node for node in nodes if max(node.sizes_mm) > 0]


def _labels(file: Path, image: CTVolume, override: Override, case: Case) -> npt.NDArray[np.int16]:
    """The instance mask (z, y, x) on the image's voxels, matched by canonical orientation."""

    def remark(what: str) -> None:
        case.remarks.append((what, str(file)))

    mask = read_labels(file, _MOST_NODES, f"0 (background) and the numbers of the nodes, to {_MOST_NODES}")
    labels = mask_on_scan(mask, image, override, remark, by_file=False)
    if not labels.any():
        remark("mask is empty")
    return labels


def _from_mask(labels: npt.NDArray[Any], case: Case, file: Path, min_voxels: int, pad_mm: float) -> list[LesionRecord]:
    lesions = []
    for number, window in enumerate(ndimage.find_objects(labels), start=1):
        if window is None:
            continue
        pieces = components(labels[window] == number)
        part, mask = max(pieces, key=lambda piece: int(piece[1].sum()))
        if len(pieces) > 1:
            what = "node in several pieces, the largest taken"
            case.remarks.append((what, f"{file} label {number} ({len(pieces)} pieces)"))
        z, y, x = (
            slice(outer.start + inner.start, outer.start + inner.stop)
            for outer, inner in zip(window, part, strict=True)
        )
        lesion = component_lesion(case.volume, (z, y, x), mask, "lymph node", pad_mm)
        lesion.attributes["label"] = number
        lesion.ignore = int(mask.sum()) < min_voxels
        if lesion.ignore:
            case.remarks.append((f"node under {min_voxels} voxels, ignored", f"{file} label {number}"))
        lesions.append(lesion)
    return lesions


def _match_nodes(
    file: Path, lesions: list[LesionRecord], labels: npt.NDArray[Any], nodes: list[LymphNode], volume: CTVolume
) -> str | None:
    """Give each mask the sizes of the text node whose position lies in it.

    Returns:
        A remark if the positions fit a mirrored mask a little better.

    Raises:
        InputError: They fit a mirrored mask more than twice as well, so one of the headers is wrong.
    """
    points = np.array([node.point_lps for node in nodes]).reshape(-1, 3)
    found = {axes: _labels_at(labels, volume.points_from_world_lps(points), axes) for axes in MIRRORS}
    by_label = {lesion.attributes["label"]: lesion for lesion in lesions}
    for node, label in zip(nodes, found[""], strict=True):
        if label in by_label:
            by_label[label].attributes["sizes_mm"] = list(node.sizes_mm)
    hits = {axes: sum(label > 0 for label in at) for axes, at in found.items()}
    best = max(MIRRORS, key=lambda axes: hits[axes])
    if hits[best] == hits[""]:
        return None
    if hits[best] > 2 * hits[""]:
        raise InputError(
            f"{file}: {hits['']} of {len(nodes)} positions of the texts lie in a node of the mask, {hits[best]} if it "
            f"is mirrored along {best}; name the volume in a table with flip_mask = {best} (--overrides)"
        )
    return f"text positions fit the mask mirrored along {best} better (override flip_mask), mask taken as it is"


def _labels_at(labels: npt.NDArray[Any], points_xyz: FloatArray, mirror: str) -> list[int]:
    """Label of each canonical point, 0 outside, if the mask were mirrored along some axes."""
    values = []
    for point in np.rint(points_xyz).astype(int).tolist():
        size = labels.shape[::-1]
        x, y, z = (size[axis] - 1 - value if "xyz"[axis] in mirror else value for axis, value in enumerate(point))
        inside = 0 <= x < size[0] and 0 <= y < size[1] and 0 <= z < size[2]
        values.append(int(labels[z, y, x]) if inside else 0)
    return values


def _from_text(node: LymphNode, record: VolumeRecord, volume: CTVolume, pad_mm: float) -> LesionRecord | None:
    """A cube as wide as the largest size around the position, or None if that lies outside the scan."""
    place = place_in_scan(node.point_lps, volume)
    if place is None:
        return None
    x, y, z = place
    depth, height, width = volume.shape
    dz, dy, dx = volume.spacing_mm
    radius = max(node.sizes_mm) / 2
    slices = slices_around(z, radius / dz, depth)
    flat = (x - radius / dx, y - radius / dy, x + radius / dx, y + radius / dy)
    x1, y1, x2, y2 = padded(flat, pad_mm, volume.spacing_mm, (height, width))
    return LesionRecord(
        id=0,
        volume=record.id,
        box=(x1, y1, float(slices.start), x2, y2, float(slices.stop)),
        key_slice=math.floor(z),
        type="lymph node",
        attributes={"point_lps": list(node.point_lps), "sizes_mm": list(node.sizes_mm)},
    )
