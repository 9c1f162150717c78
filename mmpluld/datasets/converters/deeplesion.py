"""DeepLesion (``DL_info.csv`` and ``Images_png``) to annotation files.

Conventions of the raw file: pixel coordinates count from 1 and boxes include their far pixels, so a box
becomes edges (x1 - 1, y1 - 1, x2, y2); RECIST points are pixel centres, so a point becomes (x - 0.5, y - 0.5)
on edge coordinates. Slices keep the number of their PNG, and a lesion covers its key slice alone. The key
slice is the last part of the file name; the other parts name the folder.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmpluld.datasets.converters.assemble import check_annotation_files, write_sets
from mmpluld.datasets.converters.lesion_pairs import PairedMark, number_lesions, read_lesion_pairs
from mmpluld.datasets.converters.pseudo_masks import MaskMode, add_pseudo_masks, check_mask_mode
from mmpluld.datasets.converters.report import LEFT_OUT, ConversionReport, DroppedRow
from mmpluld.datasets.converters.slice_units import slices_in_hu
from mmpluld.datasets.converters.tags import TagTable, add_tags, read_tags
from mmpluld.errors import InputError
from mmpluld.io.hounsfield import Units
from mmpluld.io.slice_sources import PNGSliceSource
from mmpluld.progress import track
from mmpluld.structures import LESION_TYPES, AnnotationSet, LesionRecord, VolumeRecord
from mmpluld.structures.splits import SPLITS, annotation_paths
from mmpluld.structures.text_files import parse_number, parse_rows, read_table
from mmpluld.structures.volume import VOXEL_MM
from mmpluld.typing import StrPath

__all__ = ["convert_deeplesion"]

_SPLITS = dict(enumerate(SPLITS, start=1))
_COLUMNS = (
    "File_name",
    "Measurement_coordinates",
    "Bounding_boxes",
    "Lesion_diameters_Pixel_",
    "Normalized_lesion_location",
    "Coarse_lesion_type",
    "Possibly_noisy",
    "Slice_range",
    "Spacing_mm_px_",
    "Image_size",
    "DICOM_windows",
    "Patient_gender",
    "Patient_age",
    "Train_Val_Test",
)
_FILE_NAME = re.compile(r"(\d+)_(\d+)_(\d+)_(\d+)\.png", re.ASCII)
_IMAGES = "Images_png"
_LAST_SLICE, _LARGEST_PX = 10_000, 8192
_SQUARE = 1e-3
"""By how much of itself a pixel's width may differ from its height; DeepLesion's differ by nothing."""


@dataclass(frozen=True)
class _Row:
    """One checked row; the numbers still as the file has them."""

    row: int
    line: int
    patient: str
    study: str
    series: str
    key_slice: int
    recist: list[float]
    box: list[float]
    diameters: list[float]
    location: list[float]
    type: int
    noisy: bool
    slice_range: tuple[int, int]
    spacing_xyz: list[float]
    size_xy: tuple[int, int]
    window: list[float]
    gender: str
    age: float
    split: str
    contradiction: str | None

    @property
    def volume(self) -> str:
        return f"{self.patient}_{self.study}_{self.series}"

    @property
    def item(self) -> str:
        return f"{self.volume}_{self.key_slice:03d}.png"


def convert_deeplesion(
    root: StrPath,
    csv_name: str = "DL_info.csv",
    drop_noisy: bool = True,
    overwrite: bool = False,
    require_images: bool = True,
    masks: MaskMode | None = "exact",
    tags: StrPath | None = None,
    tag_ontology: StrPath | None = None,
    lesion_pairs: Sequence[StrPath] = (),
    units: Units | None = None,
) -> ConversionReport:
    """Write ``ROOT/annotations/{train,val,test}.json`` for a DeepLesion folder.

    Args:
        root: Folder that holds the CSV file and ``Images_png``.
        csv_name: Name of the CSV file; one with some of the rows will do. A lesion's id is its row index from
            0, which is DeepLesion's lesion index if the file is the complete one.
        drop_noisy: Leave out rows marked ``Possibly_noisy``, as the published methods do in every split.
        overwrite: Replace annotation files that exist.
        require_images: Take slice numbers from ``Images_png``, and leave out lesions whose key slice has no PNG or
            whose ``Image_size`` is not that of the PNGs. Otherwise all is taken from the CSV and no image is looked at.
        masks: Give every lesion a mask for the detectors with a mask head, see
            :func:`~mmpluld.datasets.converters.pseudo_masks.pseudo_mask`; None leaves them out. Without images
            there are none either way.
        tags: LesaNet's file of tags, see :mod:`~mmpluld.datasets.converters.tags`; the CSV must then be the complete
            one, since the file counts its rows.
        tag_ontology: LesaNet's ontology as CSV, which tells what tags exclude each other.
        lesion_pairs: Files of pairs of marks that are one lesion, see
            :mod:`~mmpluld.datasets.converters.lesion_pairs`.
        units: ``hu`` to take the slices' values for HU where they do not look like it; series that do not are left out
            otherwise. Up to three key slices of each series are looked at, unless ``require_images`` is off.

    Returns:
        What was written, and what was left out and why: besides the above, rows that contradict themselves
        (``Key_slice_index`` is not that of ``File_name``, ``Slice_range`` does not hold the key slice, pixels are not
        square).

    Raises:
        InputError: The CSV is missing, lacks columns or holds faulty rows (the first five are named),
            annotation files exist, no row is left to convert, or the mask mode is unknown. Nothing is written then.
    """
    if masks is not None:
        check_mask_mode(masks)
    table = _tag_table(tags, tag_ontology)
    pairs = [pair for path in lesion_pairs for pair in read_lesion_pairs(path)]
    root = Path(root)
    files = annotation_paths(root)
    if root.is_dir():  # else the table is what is missing
        check_annotation_files(root, list(files.values()), overwrite)
    rows = _read_rows(root / csv_name)
    if table is not None:
        _check_tagged_rows(tags, table, root / csv_name, len(rows))
    report = ConversionReport(files=files)
    rows = _sound_rows(rows, root / csv_name, drop_noisy, report)
    rows, volumes = _volumes(rows, root, require_images, report)
    if require_images:
        rows = _in_hu(rows, root, units, report)
    sets = {name: _annotations([row for row in rows if row.split == name], volumes) for name in files}
    for split in sets.values():
        if masks is not None and require_images:
            report.masks += add_pseudo_masks(split, root, masks)
        if table is not None:
            report.tagged = (report.tagged or 0) + add_tags(split, table)
        if pairs:
            _number_marks(split, pairs, report)
    write_sets(sets, report)
    return report


def _number_marks(
    annotations: AnnotationSet, pairs: Sequence[tuple[PairedMark, PairedMark]], report: ConversionReport
) -> None:
    """Give the marks of pairs the numbers of their lesions."""
    numbered, missing = number_lesions(annotations, pairs)
    report.numbered = (report.numbered or 0) + numbered
    for mark in missing:
        report.remark("mark of a pair that is no lesion of the files", f"{mark.volume}_{mark.slice:03d}.png")


def _tag_table(tags: StrPath | None, ontology: StrPath | None) -> TagTable | None:
    """The tags, if a file is given."""
    if ontology is not None and tags is None:
        raise InputError(f"{ontology}: an ontology without tags; name the file of tags too (--tags)")
    return None if tags is None else read_tags(tags, ontology)


def _check_tagged_rows(tags: StrPath | None, table: TagTable, csv_path: Path, num_rows: int) -> None:
    """Refuse tags that count the rows of another table."""
    last = max(table.rows, default=-1)
    if last >= num_rows:
        raise InputError(
            f"{tags}: has tags of row {last}, but {csv_path} has {num_rows} rows; tags count the rows of the complete "
            "DL_info.csv, convert that"
        )


def _read_rows(path: Path) -> list[_Row]:
    """Read and check the whole CSV."""
    table = read_table(path, f"the folder that holds DL_info.csv and {_IMAGES}", _COLUMNS)
    rows = parse_rows(path, table, _parse_row)
    if not rows:
        raise InputError(f"{path}: no rows below the header; fetch the file again")
    return rows


def _parse_row(index: int, line: int, text: dict[str, str]) -> _Row:
    """Check one row; ValueError says what is wrong with it."""
    match = _FILE_NAME.fullmatch(text["File_name"])
    if match is None:
        raise ValueError(f"File_name {text['File_name']!r}, needed is PATIENT_STUDY_SERIES_SLICE.png, all numbers")
    patient, study, series, key_slice = match.groups()
    box = _numbers(text, "Bounding_boxes", 4)
    if box[2] < box[0] or box[3] < box[1]:
        raise ValueError(f"Bounding_boxes {text['Bounding_boxes']!r} ends before it begins")
    first, last = _whole(text, "Slice_range", 2)
    if last < first:
        raise ValueError(f"Slice_range {text['Slice_range']!r} ends before it begins")
    if not -1 <= first <= last <= _LAST_SLICE or int(key_slice) > _LAST_SLICE:
        raise ValueError(f"Slice_range {text['Slice_range']!r} or key slice {key_slice}, allowed is to {_LAST_SLICE}")
    width, height = _whole(text, "Image_size", 2)
    if not (1 <= width <= _LARGEST_PX and 1 <= height <= _LARGEST_PX):
        raise ValueError(f"Image_size {text['Image_size']!r}, needed are positive numbers to {_LARGEST_PX}")
    if box[2] < 1 or box[3] < 1 or box[0] > width or box[1] > height:
        raise ValueError(f"Bounding_boxes {text['Bounding_boxes']!r} lies outside the image of {width} x {height}")
    least, most = VOXEL_MM
    for value in _numbers(text, "Spacing_mm_px_", 3, finite=False):
        if math.isinf(value) or (value > 0 and not least <= value <= most):  # 0 and below, and NaN, are unknown
            raise ValueError(f"Spacing_mm_px_ {text['Spacing_mm_px_']!r}, allowed is {least:g} to {most:g} mm")
    (split,) = _whole(text, "Train_Val_Test", 1)
    if split not in _SPLITS:
        raise ValueError(f"Train_Val_Test {split}, allowed are 1, 2, 3")
    (type_,) = _whole(text, "Coarse_lesion_type", 1)
    if type_ not in LESION_TYPES and type_ != -1:
        raise ValueError(f"Coarse_lesion_type {type_}, allowed are -1 and 1 to 8")
    return _Row(
        row=index,
        line=line,
        patient=patient,
        study=study,
        series=series,
        key_slice=int(key_slice),
        recist=_numbers(text, "Measurement_coordinates", 8),
        box=box,
        diameters=_numbers(text, "Lesion_diameters_Pixel_", 2),
        location=_numbers(text, "Normalized_lesion_location", 3, finite=False),
        type=type_,
        noisy=_numbers(text, "Possibly_noisy", 1)[0] > 0,
        slice_range=(first, last),
        spacing_xyz=_numbers(text, "Spacing_mm_px_", 3, finite=False),
        size_xy=(width, height),
        window=_numbers(text, "DICOM_windows", 2, finite=False),
        gender=text["Patient_gender"],
        age=_numbers(text, "Patient_age", 1, finite=False)[0] if text["Patient_age"] else math.nan,
        split=_SPLITS[split],
        contradiction=_contradiction(text, int(key_slice), (first, last)),
    )


def _contradiction(text: dict[str, str], key_slice: int, slice_range: tuple[int, int]) -> str | None:
    """How a row contradicts itself, so that its lesion has no sure place or size; the same words for the same fault."""
    if text.get("Key_slice_index") and _whole(text, "Key_slice_index", 1) != [key_slice]:
        return "Key_slice_index is not the slice of File_name"
    if not slice_range[0] <= key_slice <= slice_range[1]:
        return "Slice_range does not hold the key slice"
    width, height, _ = _numbers(text, "Spacing_mm_px_", 3, finite=False)
    if width > 0 and height > 0 and abs(width - height) > _SQUARE * width:
        return "pixels of Spacing_mm_px_ are not square"
    return None


def _numbers(text: dict[str, str], column: str, count: int, finite: bool = True) -> list[float]:
    """The ``count`` comma-separated numbers of a field."""
    try:
        values = [_number(part, finite) for part in text[column].split(",")]
    except ValueError:
        values = []
    if len(values) != count or (finite and not all(map(math.isfinite, values))):
        raise ValueError(f"{column} {text[column]!r}, needed: {count} numbers")
    return values


def _number(part: str, finite: bool) -> float:
    """A number; without ``finite`` also NaN and infinity, which stand for unknown."""
    return parse_number("", part) if finite or "n" not in part.lower() else float(part)


def _whole(text: dict[str, str], column: str, count: int) -> list[int]:
    values = _numbers(text, column, count)
    if any(value != int(value) for value in values):
        raise ValueError(f"{column} {text[column]!r}, needed: {count} whole numbers")
    return [int(value) for value in values]


def _sound_rows(rows: list[_Row], csv_path: Path, drop_noisy: bool, report: ConversionReport) -> list[_Row]:
    """The rows that are sure enough to be converted."""
    rows = _drop(rows, ["possibly noisy" if drop_noisy and row.noisy else None for row in rows], report)
    rows = _drop(rows, [row.contradiction for row in rows], report)
    if not rows:
        first = report.dropped[0]
        raise InputError(f"{csv_path}: no row can be used (line {first.line}: {first.reason}); mend the file")
    return rows


def _drop(rows: list[_Row], reasons: Sequence[str | None], report: ConversionReport) -> list[_Row]:
    """Take out the rows that have a reason, and note it."""
    for row, reason in zip(rows, reasons, strict=True):
        if reason is not None:
            report.dropped.append(DroppedRow(row.row, row.line, reason, row.item))
    return [row for row, reason in zip(rows, reasons, strict=True) if reason is None]


def _volumes(
    rows: list[_Row], root: Path, require_images: bool, report: ConversionReport
) -> tuple[list[_Row], dict[str, VolumeRecord]]:
    """The series of the rows, in order of first mention, and the rows whose key slice exists."""
    if require_images and not (root / _IMAGES).is_dir():
        raise InputError(
            f"{root / _IMAGES}: no such folder; unpack DeepLesion's images there, or convert without them (--no-images)"
        )
    by_volume: dict[str, list[_Row]] = {}
    for row in rows:
        by_volume.setdefault(row.volume, []).append(row)
    volumes: dict[str, VolumeRecord] = {}
    existing: dict[str, set[int]] = {}
    sizes: dict[str, tuple[int, int]] = {}
    for name, members in track(by_volume.items(), "reading series", total=len(by_volume)):
        wanted = {index for row in members for index in _wanted(row)}
        size_yx = members[0].size_xy[::-1]
        existing[name] = wanted
        if require_images:
            existing[name], size_yx = _look(root / _IMAGES / name, size_yx)
        sizes[name] = size_yx[::-1]
        if len({str(row.spacing_xyz) for row in members}) > 1:  # as text, because NaN equals nothing
            report.remark("rows of a series differ in Spacing_mm_px_, the first row's is taken", name)
        if lacking := len(wanted - existing[name]):
            report.missing_slices[name] = lacking
        if any(row.key_slice in existing[name] for row in members):
            volumes[name] = _volume(members[0], existing[name], size_yx)
            if np.isnan(volumes[name].spacing_mm).any():
                report.unknown_spacing.append(name)
    rows = _drop(rows, ["no image" if row.key_slice not in existing[row.volume] else None for row in rows], report)
    if not rows:
        raise InputError(f"{root / _IMAGES}: holds none of the key slices of the CSV; check the root folder")
    other = "the PNG" if require_images else "in the first row of its series"
    rows = _drop(rows, [_size_fault(row, sizes[row.volume], other) for row in rows], report)
    if not rows:
        raise InputError(
            f"{root / _IMAGES}: no PNG is as large as its row in the CSV says ({report.dropped[-1].item}: "
            f"{report.dropped[-1].reason}); boxes would lie elsewhere than the lesions, unpack the original images"
        )
    return rows, volumes


def _size_fault(row: _Row, size_xy: tuple[int, int], other: str) -> str | None:
    """That a row counts the pixels of another frame than ``size_xy``, in which its box would lie wrong."""
    if row.size_xy == size_xy:
        return None
    return f"Image_size is {row.size_xy[0]} x {row.size_xy[1]}, {other} {size_xy[0]} x {size_xy[1]}"


def _in_hu(rows: list[_Row], root: Path, units: Units | None, report: ConversionReport) -> list[_Row]:
    """The rows of series whose key slices look like HU."""
    keys: dict[str, list[int]] = {}
    for row in rows:
        keys.setdefault(row.volume, []).append(row.key_slice)
    kept = {
        name: slices_in_hu(root / _IMAGES / name, numbers, units, report)
        for name, numbers in track(keys.items(), "looking at values", total=len(keys))
    }
    if not any(kept.values()):
        raise InputError(f"none of {len(kept)} series could be converted; the first: {report.remarks[LEFT_OUT][0]}")
    return _drop(rows, [None if kept[row.volume] else "values are not HU" for row in rows], report)


def _wanted(row: _Row) -> set[int]:
    first, last = row.slice_range
    return {*range(first, last + 1), row.key_slice}


def _look(folder: Path, size_yx: tuple[int, int]) -> tuple[set[int], tuple[int, int]]:
    """Slice numbers and size of the images of a series; none where the folder holds none."""
    try:
        source = PNGSliceSource(folder, (math.nan,) * 3)
    except InputError:
        return set(), size_yx
    return set(source.indices.tolist()), source.shape_yx


def _volume(row: _Row, slices: set[int], size_yx: tuple[int, int]) -> VolumeRecord:
    x, y, z = (value if math.isfinite(value) and value > 0 else math.nan for value in row.spacing_xyz)
    first = min(slices)
    return VolumeRecord(
        id=row.volume,
        patient=row.patient,
        study=row.study,
        series=row.series,
        source={"kind": "png16", "path": f"{_IMAGES}/{row.volume}"},
        first_slice=first,
        num_slices=max(slices) - first + 1,
        shape_yx=size_yx,
        spacing_mm=(z, y, x),
    )


def _annotations(rows: list[_Row], volumes: dict[str, VolumeRecord]) -> AnnotationSet:
    """The annotation file of one split."""
    names = dict.fromkeys(row.volume for row in rows)
    return AnnotationSet(
        dataset={"name": "deeplesion", "label_scope": "universal-partial"},
        volumes=[volumes[name] for name in names],
        lesions=[_lesion(row, volumes[row.volume].spacing_mm[2]) for row in rows],
    )


def _lesion(row: _Row, pixel_mm: float) -> LesionRecord:
    x1, y1, x2, y2 = row.box
    return LesionRecord(
        id=row.row,
        volume=row.volume,
        box=(x1 - 1, y1 - 1, float(row.key_slice), x2, y2, float(row.key_slice + 1)),
        key_slice=row.key_slice,
        recist=tuple(value - 0.5 for value in row.recist),
        type=LESION_TYPES.get(row.type),
        attributes={
            "row": row.row,
            "diameters_mm": [_or_none(value * pixel_mm) for value in row.diameters],
            "normalized_location": [_or_none(value) for value in row.location],
            "slice_range": list(row.slice_range),
            "window_hu": [_or_none(value) for value in row.window],
            "gender": row.gender or None,
            "age": _or_none(row.age),
            "noisy": row.noisy,
        },
    )


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None
