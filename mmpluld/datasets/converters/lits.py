"""LiTS (``volume-N.nii``, ``segmentation-N.nii``) to annotation files.

Labels are 0 background, 1 liver, 2 tumour. Every 26-connected component of tumour becomes a lesion. Image and mask are
matched by their headers, and the liver must have its density there, see
:mod:`mmpluld.datasets.converters.label_masks`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

from mmpluld.datasets.converters.assemble import (
    Case,
    annotation_files,
    assign_splits,
    component_lesion,
    components,
    convert_cases,
    write_cases,
)
from mmpluld.datasets.converters.label_masks import check_organ, mask_on_scan, read_labels
from mmpluld.datasets.converters.overrides import Override, read_overrides
from mmpluld.datasets.converters.report import ConversionReport
from mmpluld.datasets.converters.volume_store import store_volume
from mmpluld.errors import InputError
from mmpluld.io import read_volume
from mmpluld.io.dicom_files import files_below
from mmpluld.io.hounsfield import Units
from mmpluld.typing import StrPath

__all__ = ["convert_lits"]

_LIVER, _TUMOUR = 1, 2
_LIVER_HU = (_LIVER, "liver", -100.0, 300.0)


def convert_lits(
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
    """Write ``ROOT/annotations/*.json`` and the volume store for a LiTS folder.

    Volumes 28 to 47 come from another dataset and are known for headers of 1 x 1 x 1 mm instead of the true size. A
    header of exactly that is reported, and kept unless ``overrides`` says better.

    Args:
        root: Folder searched with its subfolders for ``volume-N.nii`` and ``segmentation-N.nii`` (also .nii.gz).
        fractions: Shares of training, validation and test by volume; LENS takes 80 % and 20 % at random.
        seed: Of the random split.
        min_voxels: Smaller components become lesions to be ignored, and are reported.
        pad_mm: Margin added to each side of a box in the plane; DeepLesion's 5 pixels are about 4 mm.
        overrides: Table of corrections, see :mod:`mmpluld.datasets.converters.overrides`.
        overwrite: Replace annotation files, and volumes whose raw files have changed.
        units: ``hu`` to take values for HU that do not look like it.

    Returns:
        What was written, and what was left out and why.

    Raises:
        InputError: No volume is there, two volumes or two masks have one number, files exist, or no volume can be read.
    """
    root = Path(root)
    report = ConversionReport(files=annotation_files(root, fractions, overwrite))
    files = sorted(files_below(root))
    images, segmentations = (_numbered(files, kind) for kind in ("volume", "segmentation"))
    if not images:
        raise InputError(f"{root}: no volume-N.nii in it; unpack LiTS there")
    masks = {}
    for name, image in images.items():
        # The dataset comes in several parts, which need not hold an image and its mask in one folder.
        if name in segmentations:
            masks[name] = segmentations[name]
        else:
            report.remark("no segmentation, left out", str(image))
    for name, path in segmentations.items():
        if name not in images:
            report.remark("segmentation without its volume, left out", str(path))
    if not masks:
        raise InputError(f"{root}: no volume of {len(images)} has its segmentation-N.nii; add the masks")
    table = read_overrides(overrides, masks)
    convert = partial(
        _convert, root=root, images=images, masks=masks, overrides=table, min_voxels=min_voxels, pad_mm=pad_mm,
        overwrite=overwrite, units=units,
    )  # fmt: skip
    cases = convert_cases(list(masks), convert, table, report)
    splits = assign_splits([_number(name) for name in masks], fractions, seed)
    return write_cases({"name": "lits", "label_scope": "liver-lesions"}, cases, splits, report)


def _numbered(files: Iterable[Path], kind: str) -> dict[str, Path]:
    """Id of a volume ("volume-7") -> the file ``KIND-7.nii`` or ``.nii.gz``, by number."""
    pattern = re.compile(rf"{kind}-(\d+)\.nii(\.gz)?", re.ASCII)
    numbered: dict[int, Path] = {}
    for path in files:
        match = pattern.fullmatch(path.name)
        if match is None:
            continue
        number = int(match[1])
        if number in numbered:
            raise InputError(f"{path}: {kind} {number} is also at {numbered[number]}; keep one of them")
        numbered[number] = path
    return {f"volume-{number}": numbered[number] for number in sorted(numbered)}


def _number(name: str) -> str:
    """``volume-7`` -> ``7``, which is all that this dataset tells of the patient."""
    return name.rpartition("-")[2]


def _convert(
    name: str,
    *,
    root: Path,
    images: dict[str, Path],
    masks: dict[str, Path],
    overrides: dict[str, Override],
    min_voxels: int,
    pad_mm: float,
    overwrite: bool,
    units: Units | None,
) -> Case:
    image, override = images[name], overrides.get(name, Override())
    stored = store_volume(root, name, [image], partial(read_volume, image, units=units), override, overwrite, units)
    case = Case(stored.record(name, _number(name), "1", "1"))
    case.remarks += [(what, str(image)) for what in stored.remarks]
    if stored.volume.spacing_mm == (1.0, 1.0, 1.0):
        case.remarks.append(("header says 1 x 1 x 1 mm, which is doubtful in this dataset", str(image)))
    mask_volume = read_labels(masks[name], _TUMOUR, "0 (background), 1 (liver) and 2 (tumour)")

    def remark(what: str) -> None:
        case.remarks.append((what, str(masks[name])))

    labels = mask_on_scan(mask_volume, stored.volume, override, remark, by_file=True)
    check_organ(labels, _LIVER_HU, mask_volume, stored.volume, override, remark)
    if not labels.any():
        case.remarks.append(("mask is empty", str(masks[name])))
    elif not (labels == _LIVER).any():
        case.remarks.append(("no liver in the mask", str(masks[name])))
    for window, mask in components(labels == _TUMOUR):
        lesion = component_lesion(case.volume, window, mask, "liver", pad_mm)
        lesion.ignore = int(mask.sum()) < min_voxels
        if lesion.ignore:
            z, y, x = (part.start for part in window)
            what = f"tumour component under {min_voxels} voxels, ignored"
            case.remarks.append((what, f"{masks[name]} at x {x}, y {y}, z {z}"))
        case.lesions.append(lesion)
    return case
