"""Rows of a table of boxes to the lesions of a scan."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mmpluld.datasets.converters.assemble import Case, padded, place_in_scan, sphere_lesion
from mmpluld.datasets.converters.box_rows import BoxRow
from mmpluld.datasets.converters.pseudo_masks import encode_mask, pseudo_mask
from mmpluld.structures import CTVolume, LesionRecord, centres_between

__all__ = ["lesion_of_rows", "split_at_gaps"]


def lesion_of_rows(rows: list[BoxRow], volume: CTVolume, case: Case, pad_mm: float) -> LesionRecord:
    """The lesion of one row, or of several that are its slices.

    Raises:
        ValueError: It does not fit the scan; the message says why.
    """
    row = rows[0]
    if row.centre_lps is not None:
        lesion = _from_world(row, volume, case, pad_mm)
    else:
        lesion = _from_voxels(rows, volume, case, pad_mm)
    lesion.type, lesion.ignore = row.type, row.ignore
    if row.key_slice is not None and not row.flat:
        lesion.key_slice = _key_slice(row.key_slice, lesion, volume)
    if lesion.key_slice is None:
        lesion.key_slice = math.floor((lesion.box[2] + lesion.box[5]) / 2)
    flat = next(
        (cut[1:] for cut in lesion.attributes.get("slice_boxes", ()) if cut[0] == lesion.key_slice),
        (*lesion.box[:2], *lesion.box[3:5]),
    )
    mask, _ = pseudo_mask(np.broadcast_to(np.int16(0), volume.shape[1:]), flat, None)
    lesion.mask = encode_mask(mask)
    return lesion


def split_at_gaps(
    lesions: list[tuple[str, list[BoxRow]]], slice_mm: float, max_gap_mm: float, case: Case
) -> list[tuple[str, list[BoxRow]]]:
    """Lesions whose slices lie further apart than anyone leaves out, taken as several that share a name."""
    parted = []
    for name, rows in lesions:
        slices = sorted(row.key_slice or 0 for row in rows) if rows[0].flat else [0]
        starts = [0, *(n for n, gap in enumerate(np.diff(slices), 1) if (gap - 1) * slice_mm > max_gap_mm)]
        for start, end in zip(starts, [*starts[1:], len(slices)], strict=True):
            part = [row for row in rows if not row.flat or slices[start] <= (row.key_slice or 0) <= slices[end - 1]]
            parted.append((name, part))
            if start:
                what = f"more than {max_gap_mm:g} mm unmarked within a lesion, a lesion of its own from there"
                case.remarks.append((what, f"{name!r} of {case.volume.id}, {part[0].where}"))
    return parted


def _from_world(row: BoxRow, volume: CTVolume, case: Case, pad_mm: float) -> LesionRecord:
    centre = row.centre_lps or ()
    place = place_in_scan(centre, volume)
    if place is None:
        low, high = volume.boxes_to_world_lps([0, 0, 0, *volume.shape[::-1]])[0].reshape(2, 3).tolist()
        raise ValueError(
            f"centre {_listed(centre)} (LPS) lies outside its scan, which covers {_listed(low)} to {_listed(high)}; "
            "is it in this world (--world, names of the columns)?"
        )
    if len(row.sizes_mm) == 1:
        lesion = sphere_lesion(centre, row.sizes_mm[0], volume, case.volume.id, pad_mm)
        assert lesion is not None  # it lies in the scan
        return lesion
    half = np.abs(np.linalg.inv(volume.affine_lps[:3, :3])) @ np.array(row.sizes_mm) / 2
    lesion = _record((*(np.array(place) - half), *(np.array(place) + half)), case, pad_mm)
    lesion.attributes |= {"centre_lps": list(centre), "sizes_mm": list(row.sizes_mm)}
    return lesion


def _from_voxels(rows: list[BoxRow], volume: CTVolume, case: Case, pad_mm: float) -> LesionRecord:
    sizes = volume.source_shape
    for row in rows:
        box = row.box or ()
        if row.plane_xy is not None and row.plane_xy != sizes[:2]:
            shown = "{} x {}".format(*row.plane_xy)
            raise ValueError(f"its image is {shown} (width x height), but the scan {_times(sizes)}; name the right one")
        for axis, size in zip("xyz", sizes, strict=True):
            near, far = box["xyz".index(axis)], box["xyz".index(axis) + 3]
            if near < 0 or far > size:
                raise ValueError(
                    f"box [{_listed(box)}] leaves its scan of {_times(sizes)} voxels along {axis}; allowed are edges "
                    f"from 0 to {size}, check the order of the axes, and --one-based and --inclusive"
                )
        if row.flat and abs(volume.source_axes[2]) != 3:
            raise ValueError(
                "a box of one slice, but the file is not stored in axial slices (its third axis does not run along the "
                "body); give boxes in 3D"
            )
    canonical = volume.boxes_from_source([row.box or () for row in rows])
    hull = (*canonical[:, :3].min(axis=0), *canonical[:, 3:].max(axis=0))
    lesion = _record(hull, case, pad_mm)
    if rows[0].flat:
        grid = case.volume.spacing_mm, case.volume.shape_yx
        cuts = sorted([int(z), *padded((x1, y1, x2, y2), pad_mm, *grid)] for x1, y1, z, x2, y2, _ in canonical.tolist())
        lesion.attributes["slice_boxes"] = cuts
        lesion.key_slice = int(max(cuts, key=lambda cut: (cut[3] - cut[1]) * (cut[4] - cut[2]))[0])
    return lesion


def _record(box: Sequence[float], case: Case, pad_mm: float) -> LesionRecord:
    """A lesion with a canonical box, within the image and along z on whole slices."""
    x1, y1, z1, x2, y2, z2 = (float(value) for value in box)
    slices = centres_between(z1, z2, case.volume.num_slices)
    flat = padded((x1, y1, x2, y2), pad_mm, case.volume.spacing_mm, case.volume.shape_yx)
    return LesionRecord(0, case.volume.id, (*flat[:2], float(slices.start), *flat[2:], float(slices.stop)))


def _key_slice(index: int, lesion: LesionRecord, volume: CTVolume) -> int:
    """Canonical number of a slice of the file, which must cross the lesion."""
    axis = volume.source_axes[2]
    size = volume.source_shape[abs(axis) - 1]
    number = index if axis > 0 else size - 1 - index
    if not lesion.box[2] <= number < lesion.box[5]:
        ends = sorted(z if axis > 0 else size - 1 - z for z in (int(lesion.box[2]), int(lesion.box[5]) - 1))
        raise ValueError(
            f"key slice {index} lies outside its box, which holds slices {ends[0]} to {ends[1]} (counted from 0 along "
            "the file's axis that runs along the body); mend it"
        )
    return number


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _times(sizes: Sequence[int]) -> str:
    return " x ".join(map(str, sizes))
