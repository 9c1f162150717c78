"""DICOM folders: find the CT series, order its slices by position, and refuse what cannot be one regular volume."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmpluld.errors import InputError, counted
from mmpluld.io import dicom_geometry, dicom_series
from mmpluld.io.dicom_files import DicomFolder, files_below, header_text, scan_files
from mmpluld.io.dicom_geometry import Slice, parse_slice, sorted_slices, stack_affine, stack_notes
from mmpluld.io.dicom_pixels import Rescale, read_pixels
from mmpluld.io.dicom_series import Choice, check_one_volume, check_passes, choose_images, tell_apart
from mmpluld.io.dicomdir import add_missing
from mmpluld.io.faults import quiet
from mmpluld.io.hounsfield import Units, to_hu
from mmpluld.io.promised import Promise, check_memory
from mmpluld.progress import track
from mmpluld.structures.volume import CTVolume

__all__ = ["TAGS", "read_dicom_folder"]

TAGS = tuple(sorted({*dicom_geometry.TAGS, *dicom_series.TAGS}))
"""Keywords of what decides whether images are one volume, and where they lie."""


def read_dicom_folder(
    folder: Path, series: str | None = None, units: Units | None = None, files: Sequence[Path] | None = None
) -> CTVolume:
    """Read one CT series of a folder.

    File axes of the result: i = column, j = row, k = slice, ordered along the normal (row direction x column
    direction). Slices shifted evenly within their plane (gantry tilt) give a sheared affine.

    Args:
        folder: Searched with its subfolders; files are recognised by content, with or without preamble.
        series: SeriesInstanceUID, needed if there are several CT series; with ``:Attribute=value`` a part of it, see
            :mod:`mmpluld.io.dicom_series`.
        units: See :func:`~mmpluld.io.hounsfield.to_hu`.
        files: Those of its files that are looked at; None looks at all.

    Raises:
        InputError: If there is no CT series, or several and none is chosen; if a series holds several volumes; if its
            slices are missing, doubled, or unevenly spaced; if a file is damaged, in colour, or multi-frame; or if the
            volume does not fit into memory.
    """
    with quiet("pydicom"):
        choice = Choice(folder, series)
        found = scan_files(sorted(files_below(folder)) if files is None else files, TAGS)
        if not (found.skipped or found.unreadable or found.series):
            raise InputError(f"{folder}: the folder is empty; give a folder of DICOM files, or a volume file")
        unused = add_missing(found)
        images = choose_images(folder, found, choice)
        parsed = [parse_slice(image) for image in images]
        notes = check_one_volume(folder, images, choice)
        slices = sorted_slices(parsed)
        notes += check_passes(folder, slices, choice)
        affine = stack_affine(folder, slices, lambda: tell_apart(slices, choice))
        _check_memory(folder, slices)
        raw, rescales = _pixels(slices)
    slopes, intercepts, rescale_notes = _scaling(slices, rescales)
    hu_notes: list[str] = []
    names = [item.file.name for item in slices]
    hu = to_hu(raw.transpose(), slopes, intercepts, source=str(folder), units=units, notes=hu_notes, slice_names=names)
    history = [
        f"DICOM series of {counted(len(slices), 'slice')}{choice.note()}",
        *_skipped(found),
        *unused,
        *notes,
        *stack_notes(slices),
        *rescale_notes,
        *hu_notes,
    ]
    volume = CTVolume.from_file_array(hu, affine, str(folder), history)
    uid = header_text(images[0].header, "SeriesInstanceUID")
    paths = tuple(str(item.file) for item in slices)
    return replace(volume, identifiers=(f"SeriesInstanceUID {uid or 'missing'}",), source_files=paths)


def _skipped(found: DicomFolder) -> list[str]:
    counts = Counter(found.skipped)
    for item in found.unreadable:
        counts["damaged or not to be opened" if item.dicom or item.silent else "not DICOM"] += 1
    listed = ", ".join(f"{count} {what}" for what, count in sorted(counts.items()) if count)
    return [f"skipped files that are not CT images: {listed}"] if listed else []


def _check_memory(folder: Path, slices: list[Slice]) -> None:
    rows, columns = slices[0].shape_yx
    words = 4 if any(header_text(item.image.header, "BitsAllocated") == "32" for item in slices) else 2
    check_memory(folder, Promise((columns, rows, len(slices)), f"{8 * words} bits", words))


def _pixels(slices: list[Slice]) -> tuple[npt.NDArray[Any], list[Rescale]]:
    """Return stored values (k, j, i) and each slice's rescale."""
    stack: npt.NDArray[Any] | None = None
    rescales = []
    for k, item in enumerate(track(slices, "reading slices")):
        values, rescale = read_pixels(item.file, item.shape_yx)
        if stack is None:
            stack = np.empty((len(slices), *item.shape_yx), dtype=values.dtype)
        elif values.dtype != stack.dtype:
            stack = stack.astype(np.result_type(stack, values))
        stack[k] = values
        rescales.append(rescale)
    assert stack is not None  # a series has at least one slice
    return stack, rescales


def _scaling(slices: list[Slice], rescales: list[Rescale]) -> tuple[list[float], list[float], list[str]]:
    """Return slopes, intercepts and notes; refuse a series of which only some slices say their rescale."""
    without = [item.file for item, rescale in zip(slices, rescales, strict=True) if rescale.slope is None]
    kinds = {rescale.kind for rescale in rescales}
    if without and len(without) < len(slices):
        raise InputError(
            f"{without[0]}: has no RescaleSlope and RescaleIntercept, as {len(without)} of {len(slices)} slices; "
            "needed are those of all slices or of none, export the series again"
        )
    if len(kinds) > 1:
        raise InputError(
            f"{slices[0].file.parent}: RescaleType is {' and '.join(sorted(kinds))} in one series; needed is one unit, "
            "export the series again"
        )
    notes = []
    if without:
        notes.append("no RescaleSlope and RescaleIntercept: stored values assumed to be HU")
    if kinds != {"HU"}:
        notes.append(f"RescaleType is {kinds.pop()}: values assumed to be HU")
    slopes = [1.0 if rescale.slope is None else rescale.slope for rescale in rescales]
    intercepts = [0.0 if rescale.intercept is None else rescale.intercept for rescale in rescales]
    return slopes, intercepts, notes
