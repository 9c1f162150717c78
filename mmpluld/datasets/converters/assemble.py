"""What the converters of volume datasets share: cases in, lesions per volume, splits and annotation files out."""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy import ndimage

from mmpluld.atomic import atomic_group, is_unfinished
from mmpluld.datasets.converters.overrides import Override
from mmpluld.datasets.converters.pseudo_masks import encode_mask
from mmpluld.datasets.converters.report import LEFT_OUT, ConversionReport, SplitCounts
from mmpluld.datasets.converters.volume_store import FOLDER
from mmpluld.errors import InputError, NoRoomError
from mmpluld.outputs import check_output_folder
from mmpluld.progress import track
from mmpluld.structures import AnnotationSet, CTVolume, LesionRecord, VolumeRecord
from mmpluld.structures.splits import SPLITS, annotation_paths
from mmpluld.typing import BoolArray

__all__ = [
    "LARGEST_MM",
    "Case",
    "Unusable",
    "annotation_files",
    "assign_splits",
    "check_annotation_files",
    "component_lesion",
    "components",
    "convert_cases",
    "padded",
    "place_in_scan",
    "slices_around",
    "sphere_lesion",
    "write_cases",
    "write_sets",
]

LARGEST_MM = 500.0
"""No body is wider by much; a diameter that is was meant in another unit."""
_TOUCHED = 1e-6  # slices by which a sphere must reach beyond a centre, for rounding may say that it touches one


class Unusable(InputError):
    """What a scan shows about the table of its lesions: it ends the conversion instead of leaving the scan out."""


@dataclass
class Case:
    """One converted volume.

    Attributes:
        volume: Its record.
        lesions: What is marked in it; their final ids they get when the files are written.
        remarks: (what, item) for the report.
    """

    volume: VolumeRecord
    lesions: list[LesionRecord] = field(default_factory=list)
    remarks: list[tuple[str, str]] = field(default_factory=list)


def annotation_files(root: Path, fractions: Sequence[float], overwrite: bool) -> dict[str, Path]:
    """The files that are to be written: those of the splits with a share.

    Raises:
        InputError: The shares are no three numbers from 0 with a positive sum, the folder is missing or may not be
            written to, or a file exists and may not be replaced.
    """
    if len(fractions) != 3 or not all(part >= 0 for part in fractions) or not 0 < sum(fractions) < math.inf:
        raise InputError(f"split {list(fractions)}: needed are three shares (train val test) from 0, such as 80 0 20")
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; give the folder of the raw dataset")
    files = annotation_paths(root)
    check_annotation_files(root, list(files.values()), overwrite)
    check_output_folder(root / FOLDER)
    return {name: path for (name, path), part in zip(files.items(), fractions, strict=True) if part > 0}


def check_annotation_files(root: Path, files: Sequence[Path], overwrite: bool) -> None:
    """Refuse annotation files that exist or cannot be written; those of an interrupted conversion are replaced.

    Raises:
        InputError: As said, or the root holds a phantom that is not complete.
    """
    if is_unfinished(root / "phantom.json"):
        raise InputError(f"{root}: holds a phantom that was interrupted; run `mmpluld phantom` again before converting")
    if not os.access(root, os.W_OK):
        raise InputError(
            f"{root}: may not be written to, but annotations and volumes go there; make a folder with links to all "
            f"that is in it (mkdir data; ln -s {shlex.quote(str(root.absolute()))}/* data), and give that"
        )
    existing = [str(path) for path in files if path.exists()]
    if existing and not overwrite and not any(is_unfinished(path) for path in files):
        raise InputError(f"{existing[0]}: exists already; move it away, or allow overwriting (--overwrite)")
    check_output_folder(root / "annotations")


def assign_splits(patients: Iterable[str], fractions: Sequence[float], seed: int) -> dict[str, str]:
    """Patient -> split, at random but for the seed; the order of ``patients`` does not matter.

    The counts are the shares rounded so that they add up.
    """
    names = sorted(set(patients))
    order = np.random.default_rng(seed).permutation(len(names))
    ends = np.rint(np.cumsum(fractions) / sum(fractions) * len(names)).astype(int)
    split_of_rank = np.searchsorted(ends, np.arange(len(names)), side="right")
    return {names[index]: SPLITS[split_of_rank[rank]] for rank, index in enumerate(order)}


def convert_cases(
    names: Sequence[str],
    convert: Callable[[str], Case],
    overrides: dict[str, Override],
    report: ConversionReport,
) -> list[Case]:
    """Convert every volume; those that fail or are excluded are noted in the report.

    Raises:
        InputError: None of them could be converted (the message holds the first reason), the lesions of one are
            unusable, or the disk is full.
    """
    cases, reasons = [], []
    for name in track(names, "converting volumes", total=len(names)):
        if reason := overrides.get(name, Override()).exclude:
            report.remark(f"volume excluded, {reason}", name)
            reasons.append(name)
            continue
        try:
            case = convert(name)
        except (Unusable, NoRoomError):  # a full disk is no fault of the scan, and no other would fit either
            raise
        except InputError as error:
            reasons.append(f"{name} ({error})")
            report.remark(LEFT_OUT, reasons[-1])
            continue
        for what, item in case.remarks:
            report.remark(what, item)
        cases.append(case)
    if not cases:
        first = reasons[0] if reasons else "there are none"
        raise InputError(f"no volume of {len(names)} could be converted; the first: {first}")
    return cases


def write_cases(
    dataset: dict[str, object], cases: list[Case], splits: dict[str, str], report: ConversionReport
) -> ConversionReport:
    """Write the annotation files of ``report.files``: all are complete before the first takes its final name.

    Splits without a lesion that counts are noted in the report.
    """
    sets = {}
    for split in report.files:
        members = [case for case in cases if splits[case.volume.patient] == split]
        lesions = [lesion for case in members for lesion in case.lesions]
        for index, lesion in enumerate(lesions):
            lesion.id = index
        if all(lesion.ignore for lesion in lesions):
            report.remark("split without a lesion that counts", split)
        sets[split] = AnnotationSet(dict(dataset), [case.volume for case in members], lesions)
    folder = next(iter(report.files.values())).parent
    # Left by an earlier conversion with other shares; its patients are in other files now.
    obsolete = [folder / f"{split}.json" for split in SPLITS if split not in report.files]
    write_sets(sets, report, obsolete)
    return report


def write_sets(sets: Mapping[str, AnnotationSet], report: ConversionReport, obsolete: Sequence[Path] = ()) -> None:
    """Write the annotations of each split to its file of the report, all or none, and count them.

    Args:
        sets: By split.
        report: Gets the counts.
        obsolete: Files that go when these are complete.
    """
    with atomic_group([report.files[name] for name in sets], obsolete) as temporaries:
        for annotations, temporary in zip(sets.values(), temporaries, strict=True):
            annotations.save(temporary)
    for name, annotations in sets.items():
        keys = {(lesion.volume, lesion.key_slice) for lesion in annotations.lesions}
        report.splits[name] = SplitCounts(len(annotations.volumes), len(keys), len(annotations.lesions))


def components(mask: BoolArray) -> list[tuple[tuple[slice, slice, slice], BoolArray]]:
    """The 26-connected components of a (z, y, x) mask, in scan order: bounding slices, and the mask within them."""
    spans = ndimage.find_objects(mask.astype(np.uint8))
    if not spans:
        return []
    (window,) = spans
    labelled, _ = ndimage.label(mask[window], structure=np.ones((3, 3, 3)))
    found = []
    for number, inner in enumerate(ndimage.find_objects(labelled), start=1):
        z, y, x = (
            slice(part.start + outer.start, part.stop + outer.start) for part, outer in zip(inner, window, strict=True)
        )
        found.append(((z, y, x), labelled[inner] == number))
    return found


def component_lesion(
    volume: VolumeRecord, window: tuple[slice, slice, slice], mask: BoolArray, kind: str, pad_mm: float
) -> LesionRecord:
    """A lesion from its mask.

    The key slice is the one with the largest area; ``attributes.slice_boxes`` holds [slice, x1, y1, x2, y2] of every
    slice the mask is on, and ``mask`` the pixels of the key slice.

    Args:
        volume: Where it lies.
        window: Bounding slices (z, y, x) of the mask in the volume.
        mask: (z, y, x) within the window, with at least one voxel.
        kind: Lesion type in words.
        pad_mm: Margin added on each side in the plane, within the slice.
    """
    zs, ys, xs = window
    areas = mask.sum(axis=(1, 2))
    key = int(areas.argmax())
    height, width = volume.shape_yx
    slice_boxes = []
    for offset in np.flatnonzero(areas):
        rows, columns = (np.flatnonzero(mask[offset].any(axis=axis)) for axis in (1, 0))
        flat = (xs.start + columns[0], ys.start + rows[0], xs.start + columns[-1] + 1, ys.start + rows[-1] + 1)
        slice_boxes.append([zs.start + int(offset), *padded(flat, pad_mm, volume.spacing_mm, volume.shape_yx)])
    x1, y1, x2, y2 = padded((xs.start, ys.start, xs.stop, ys.stop), pad_mm, volume.spacing_mm, volume.shape_yx)
    pixels = np.zeros((height, width), np.bool_)
    pixels[ys, xs] = mask[key]
    return LesionRecord(
        id=0,
        volume=volume.id,
        box=(x1, y1, float(zs.start), x2, y2, float(zs.stop)),
        key_slice=zs.start + key,
        type=kind,
        mask=encode_mask(pixels),
        attributes={"voxels": int(mask.sum()), "slice_boxes": slice_boxes},
    )


def place_in_scan(point_lps: Sequence[float], volume: CTVolume) -> tuple[float, float, float] | None:
    """The point in canonical voxel edges (x, y, z), where the centre of voxel i is i + 0.5; None outside the scan."""
    x, y, z = (volume.points_from_world_lps(point_lps) + 0.5).tolist()
    depth, height, width = volume.shape
    return (x, y, z) if 0 <= x < width and 0 <= y < height and 0 <= z < depth else None


def slices_around(z: float, reach: float, depth: int) -> range:
    """The slices of a scan whose centres lie less than ``reach`` slices from ``z``; if none does, that which holds it.

    Args:
        z: Voxel edge coordinate within the scan.
        reach: Above 0.
        depth: Slices of the scan.
    """
    reach -= _TOUCHED
    first, end = math.floor(z - reach - 0.5) + 1, math.ceil(z + reach - 0.5)
    if first >= end:
        first, end = math.floor(z), math.floor(z) + 1
    return range(max(first, 0), min(end, depth))


def sphere_lesion(
    centre_lps: Sequence[float], diameter_mm: float, volume: CTVolume, name: str, pad_mm: float
) -> LesionRecord | None:
    """A lesion from the sphere around a world point, or None if the point lies outside the scan.

    x and y are exact, z takes the slices whose centre lies in the sphere, the one that holds the point if there is
    none. ``attributes.slice_boxes`` holds the sphere's cut with each slice.

    Args:
        centre_lps: LPS mm.
        diameter_mm: Above 0.
        volume: The scan.
        name: Id of the volume.
        pad_mm: Margin added on each side in the plane, within the slice.
    """
    place = place_in_scan(centre_lps, volume)
    if place is None:
        return None
    x, y, z = place
    depth, height, width = volume.shape
    radius = diameter_mm / 2
    dz, dy, dx = volume.spacing_mm
    slices = slices_around(z, radius / dz, depth)
    slice_boxes = []
    grid = volume.spacing_mm, (height, width)
    for index in slices:
        off = abs(index + 0.5 - z)
        between = off >= radius / dz - _TOUCHED  # a small sphere between two slice centres
        cut = radius if between else math.sqrt(radius**2 - (off * dz) ** 2)
        rx, ry = cut / dx, cut / dy
        slice_boxes.append([index, *padded((x - rx, y - ry, x + rx, y + ry), pad_mm, *grid)])
    rx, ry = radius / dx, radius / dy
    x1, y1, x2, y2 = padded((x - rx, y - ry, x + rx, y + ry), pad_mm, *grid)
    return LesionRecord(
        id=0,
        volume=name,
        box=(x1, y1, float(slices.start), x2, y2, float(slices.stop)),
        key_slice=math.floor(z),
        attributes={"centre_lps": list(centre_lps), "diameter_mm": diameter_mm, "slice_boxes": slice_boxes},
    )


def padded(
    box: Sequence[float], pad_mm: float, spacing_mm: Sequence[float], shape_yx: tuple[int, int]
) -> tuple[float, float, float, float]:
    """Grow (x1, y1, x2, y2) by ``pad_mm`` on each side and clip it to the slice; ``spacing_mm`` is (z, y, x)."""
    height, width = shape_yx
    _, pad_y, pad_x = (pad_mm / spacing for spacing in spacing_mm)
    x1, y1, x2, y2 = (float(value) for value in box)
    return (
        float(np.clip(x1 - pad_x, 0, width)),
        float(np.clip(y1 - pad_y, 0, height)),
        float(np.clip(x2 + pad_x, 0, width)),
        float(np.clip(y2 + pad_y, 0, height)),
    )
