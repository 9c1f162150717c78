"""Writing phantoms in the native layout of DeepLesion, and as NIfTI."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmpluld.atomic import atomic_group, atomic_write_text
from mmpluld.errors import InputError
from mmpluld.phantom.case import PhantomCase, PhantomLesion, PhantomSeries, make_case
from mmpluld.phantom.folder import phantom_folder
from mmpluld.phantom.pool import in_order
from mmpluld.phantom.spec import PhantomSpec
from mmpluld.phantom.streams import patient_stream
from mmpluld.phantom.truth import (
    TRUTH,
    attributes_of,
    save_truth,
    spacing_xyz,
    truth_3d,
    truth_on_key_slices,
    volume_record,
    window_of,
)
from mmpluld.progress import track
from mmpluld.structures import LESION_TYPES, AnnotationSet, LesionRecord, VolumeRecord
from mmpluld.structures.splits import SPLITS
from mmpluld.typing import StrPath

__all__ = ["DL_INFO_COLUMNS", "truth_beside", "write_deeplesion_layout", "write_nifti"]

DL_INFO_COLUMNS = (
    "File_name", "Patient_index", "Study_index", "Series_ID", "Key_slice_index", "Measurement_coordinates",
    "Bounding_boxes", "Lesion_diameters_Pixel_", "Normalized_lesion_location", "Coarse_lesion_type", "Possibly_noisy",
    "Slice_range", "Spacing_mm_px_", "Image_size", "DICOM_windows", "Patient_gender", "Patient_age", "Train_Val_Test",
)  # fmt: skip
_NAMES = ("Images_png", "DL_info.csv", "tags.json", "tag_ontology.csv")
_CONTEXT_MM = 30.0


class _Member(NamedTuple):
    """A patient: number in the whole phantom, split, and number within the split; from 1."""

    patient: int
    split: str
    number: int


@dataclass
class _Written:
    """What one patient adds to the tables."""

    rows: list[list[str]] = field(default_factory=list)
    types: list[int] = field(default_factory=list)
    volumes: list[VolumeRecord] = field(default_factory=list)
    lesions: list[LesionRecord] = field(default_factory=list)
    key_lesions: list[LesionRecord] = field(default_factory=list)


def write_deeplesion_layout(
    out: StrPath,
    num_patients: tuple[int, int, int] = (40, 10, 10),
    seed: int = 0,
    *,
    all_slices: bool = True,
    workers: int | None = None,
    overwrite: bool = False,
    **settings: Any,
) -> Path:
    """Write phantoms as DeepLesion stores its CTs, with the complete truth beside them.

    Files, in the order of writing, so that a folder with ``truth`` is complete:
    ``phantom.json`` (the settings); ``Images_png/PPPPPP_SS_RR/NNN.png`` (16 bit, HU + 32768, slices from 001);
    ``DL_info.csv`` (the marked lesions only); ``tags.json`` and ``tag_ontology.csv`` (their types as tags that exclude
    each other, in the layout of LesaNet's labels; every fourth lesion has none);
    the complete truth, see :mod:`mmpluld.phantom.truth`.
    Cross-sections under 4 mm count as absent.

    Args:
        out: Folder to make.
        num_patients: Patients in training, validation and test. More of one split leave those of it and of the others
            as they are, but for their ids, which count through.
        seed: Same seed and settings give the same files, whatever the number of workers.
        all_slices: False writes of each series the slices from 30 mm before the first marked key slice to 30 mm behind
            the last, about what DeepLesion's PNGs hold; the truth is then restricted to them, and series without a mark
            are left out.
        workers: Processes; None takes one per core.
        overwrite: Replace what an earlier call wrote there; other folders are never touched.
        settings: Fields of `PhantomSpec`, such as ``size=128, mark_prob=0.5``.

    Returns:
        `out`.

    Raises:
        InputError: If `out` is a non-empty folder and `overwrite` is False, or a setting is invalid.
    """
    spec = PhantomSpec.from_settings(settings)
    root = Path(out)
    if len(num_patients) != 3 or min(num_patients) < 0 or sum(num_patients) < 1:
        raise InputError(f"phantom num_patients={num_patients!r}: must be three counts (train, val, test), one above 0")
    record = {
        "layout": "deeplesion",
        "seed": seed,
        "num_patients": list(num_patients),
        "all_slices": all_slices,
        **asdict(spec),
    }
    members = [(split, number) for split, count in zip(SPLITS, num_patients, strict=True) for number in range(count)]
    patients = [_Member(patient, split, number + 1) for patient, (split, number) in enumerate(members, start=1)]
    job = partial(_write_patient, seed=seed, spec=spec, root=root, all_slices=all_slices)
    with phantom_folder(root, record, _NAMES, overwrite):
        written = list(track(in_order(job, patients, workers), "writing phantoms", total=len(patients)))
        _write_tables(root, written, [patient.split for patient in patients])
    return root


def _write_tables(root: Path, written: list[_Written], splits: list[str]) -> None:
    """Write the CSV of the marked lesions and the truth of each split."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(DL_INFO_COLUMNS)
    for item in written:
        writer.writerows(item.rows)
    atomic_write_text(root / "DL_info.csv", table.getvalue())
    _write_tags(root, [(number, name) for item, name in zip(written, splits, strict=True) for number in item.types])
    for split in SPLITS:
        members = [item for item, name in zip(written, splits, strict=True) if name == split]
        volumes = [volume for item in members for volume in item.volumes]
        lesions = [lesion for item in members for lesion in item.lesions]
        key_lesions = [lesion for item in members for lesion in item.key_lesions]
        save_truth(root / "truth", split, volumes, lesions, key_lesions)


def _write_tags(root: Path, marked: list[tuple[int, str]]) -> None:
    """Write the tags of the marked lesions, given their types and splits in the order of the CSV."""
    terms = list(LESION_TYPES.values())
    place = {number: index for index, number in enumerate(LESION_TYPES)}
    tags: dict[str, list[Any]] = {"term_list": terms}
    for split in SPLITS:
        own = [(row, place[number]) for row, (number, name) in enumerate(marked) if name == split and row % 4 != 3]
        tags[f"{split}_lesion_idxs"] = [row for row, _ in own]
        tags[f"{split}_relevant_labels"] = [[tag] for _, tag in own]
        tags[f"{split}_uncertain_labels"] = [[] for _ in own]
    atomic_write_text(root / "tags.json", json.dumps(tags) + "\n")
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["id", "class", "term", "synonyms", "count", "exclusive", "parents", "children"])
    for index, term in enumerate(terms):
        others = " | ".join(other for other in terms if other != term)
        writer.writerow([index, "type", term, term, 0, others, "", ""])
    atomic_write_text(root / "tag_ontology.csv", table.getvalue())


def _write_patient(member: _Member, *, seed: int, spec: PhantomSpec, root: Path, all_slices: bool) -> _Written:
    """Make and write one patient."""
    stream = f"deeplesion/{member.split}"
    case = replace(make_case(seed, stream, member.number, spec), patient=member.patient)
    written = _Written()
    ages = patient_stream(seed, f"{stream}/age", member.number)
    age = "NaN" if ages.random() < 0.02 else str(case.age)
    for series in case.series:
        marked = [lesion for lesion in series.lesions if lesion.marked]
        first, last = _slice_range(series, marked, all_slices)
        if first > last:
            continue
        _write_slices(series, root / "Images_png" / case.series_id(series), first, last)
        written.volumes.append(volume_record(case, series, first, last))
        for lesion in marked:
            written.rows.append(_row(case, series, lesion, (first, last), age, member.split))
            written.types.append(lesion.type)
        written.lesions += truth_3d(case, series, first, last)
        written.key_lesions += truth_on_key_slices(case, series, age)
    return written


def _slice_range(series: PhantomSeries, marked: list[PhantomLesion], all_slices: bool) -> tuple[int, int]:
    """First and last slice to write, counted from 1; (1, 0) for none."""
    count = series.volume.shape[0]
    if all_slices:
        return 1, count
    if not marked:
        return 1, 0
    context = round(_CONTEXT_MM / series.volume.spacing_mm[0])
    keys = [lesion.key_slice + 1 for lesion in marked]
    return max(1, min(keys) - context), min(count, max(keys) + context)


def _write_slices(series: PhantomSeries, folder: Path, first: int, last: int) -> None:
    import cv2

    folder.mkdir(parents=True, exist_ok=True)
    shifted = (series.volume.array.astype(np.int32) + 32768).astype(np.uint16)
    for number in range(first, last + 1):
        path = folder / f"{number:03d}.png"
        if not cv2.imwrite(str(path), shifted[number - 1], [cv2.IMWRITE_PNG_COMPRESSION, 1]):
            raise InputError(f"{path}: could not be written; make room")


def _listed(values: Iterable[float]) -> str:
    return ", ".join(f"{value:.6g}" for value in values)


def _row(
    case: PhantomCase, series: PhantomSeries, lesion: PhantomLesion, slices: tuple[int, int], age: str, split: str
) -> list[str]:
    """One line of DL_info.csv; pixels count from 1 there."""
    mark = lesion.slices[lesion.key_slice]
    slip = 6.0 if lesion.noisy else 0.0
    recist = [value + 0.5 + slip for value in mark.recist]
    box = [mark.box[0] + 1 + slip, mark.box[1] + 1 + slip, mark.box[2] + slip, mark.box[3] + slip]
    depth, height, width = series.volume.shape
    place = ((box[0] + box[2]) / 2 / width, (box[1] + box[3]) / 2 / height, (lesion.key_slice + 0.5) / depth)
    return [
        f"{case.series_id(series)}_{lesion.key_slice + 1:03d}.png",
        str(case.patient), str(series.study), str(series.series), str(lesion.key_slice + 1),
        _listed(recist), _listed(box), _listed((mark.long_px, mark.short_px)), _listed(place),
        str(-1 if split == "train" else lesion.type), str(int(lesion.noisy)), _listed(slices),
        _listed(spacing_xyz(series)), _listed((width, height)), _listed(window_of(lesion)),
        case.sex, age, str(SPLITS.index(split) + 1),
    ]  # fmt: skip


def write_nifti(case: PhantomCase, path: StrPath, series: int = 0) -> Path:
    """Write one series as NIfTI and its complete truth beside it (``NAME.json``).

    Args:
        case: The phantom.
        path: File ending in .nii or .nii.gz.
        series: Index into ``case.series``.

    Returns:
        Path of the truth, an annotation file; slices count from 0.

    Raises:
        InputError: If `path` has another suffix or `series` does not exist.
    """
    from mmpluld.io import write_volume

    target = Path(path)
    truth = truth_beside(target)
    if not 0 <= series < len(case.series):
        raise InputError(f"phantom series={series}: the case has {len(case.series)} series, counted from 0")
    item = case.series[series]
    stem = target.name[: target.name.rindex(".nii")]
    name = case.series_id(item)
    patient, study, number = name.split("_")
    shape, spacing = item.volume.shape, item.volume.spacing_mm
    affine = tuple(map(tuple, item.volume.affine_lps.tolist()))
    volume = VolumeRecord(
        stem, patient, study, number, {"kind": "nifti", "path": target.name}, 0, shape[0], (shape[1], shape[2]),
        spacing, affine_lps=affine,
    )  # fmt: skip
    lesions = [
        LesionRecord(
            index,
            stem,
            lesion.box,
            lesion.key_slice,
            lesion.slices[lesion.key_slice].recist,
            lesion.type_name,
            attributes=attributes_of(lesion, mask_box=list(lesion.mask_box)),
        )
        for index, lesion in enumerate(item.lesions)
    ]
    with atomic_group([target, truth]) as (scan_file, truth_file):
        write_volume(item.volume, scan_file)
        AnnotationSet(dict(TRUTH), [volume], lesions).save(truth_file)
    return truth


def truth_beside(path: StrPath) -> Path:
    """Where :func:`write_nifti` writes the truth of a scan: beside it, .json for .nii or .nii.gz.

    Raises:
        InputError: The scan has another suffix.
    """
    name = Path(path).name
    if not name.endswith((".nii", ".nii.gz")):
        raise InputError(f"{path}: a phantom volume is written as .nii or .nii.gz; change the suffix")
    return Path(path).with_name(f"{name[: name.rindex('.nii')]}.json")
