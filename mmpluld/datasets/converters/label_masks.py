"""Label masks of scans: read as whole numbers, and only where they lie on their scan.

Masks are often stored as floats a little off their label, which would merge, renumber or lose lesions in silence, and
their headers often contradict their scan's, which would move lesions. Headers that agree may be wrong too, so an organ
whose density is known is looked for where its label lies.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from mmpluld.datasets.converters.overrides import Override, mirrored, mirrored_affine, resized_affine
from mmpluld.errors import InputError
from mmpluld.io import read_volume
from mmpluld.structures import CTVolume
from mmpluld.typing import StrPath

__all__ = ["MIRRORS", "check_organ", "label_array", "mask_on_scan", "read_labels"]

_OFF = 1e-3  # how far from a whole number a stored label may be
_APART_VOXELS = 0.5  # how far voxels of mask and scan may lie apart
_LISTED = 4
_FEWEST_VOXELS = 1000  # of an organ, to tell by their density where it lies
_LEAST_SHARE = 0.7  # of them that have it; above 0.95 in scans whose masks lie right
_PLAINLY = 0.1  # how much larger the share is elsewhere where that is the right place
_SAMPLES = 100_000
MIRRORS = tuple("".join(letters) for count in range(4) for letters in combinations("xyz", count))
"""Axes along which a mask may have been stored the other way round, in every combination; the first is none."""

Remark = Callable[[str], object]


def read_labels(path: StrPath, highest: int, meaning: str) -> CTVolume:
    """Read a label mask; values near a whole number become it.

    Args:
        path: Any volume file.
        highest: Largest label of the dataset; the smallest is 0.
        meaning: What the labels are, for messages.

    Raises:
        InputError: The file cannot be read, or voxels hold something else than a label; the values and how many voxels
            have them are named.
    """
    volume = read_volume(path, labels=True)
    array = label_array(volume.array, str(path), highest, meaning)
    return CTVolume(array, volume.affine_lps, volume.source_shape, volume.source_axes, volume.source, volume.history)


def label_array(values: npt.NDArray[Any], source: str, highest: int, meaning: str) -> npt.NDArray[np.int16]:
    """Labels from 0 to ``highest`` as int16; see :func:`read_labels`.

    Raises:
        InputError: As there.
    """
    wrong: dict[float, int] = {}
    labels = np.empty(values.shape, np.int16)
    for index, plane in enumerate(values):  # by slice: copies of a whole scan in float64 would be large
        near = np.rint(plane)
        bad = (np.abs(plane - near) > _OFF) | (near < 0) | (near > highest)
        if bad.any():
            for value, count in zip(*np.unique(plane[bad], return_counts=True), strict=True):
                wrong[float(value)] = wrong.get(float(value), 0) + int(count)
            near = np.where(bad, 0, near)
        labels[index] = near
    if wrong:
        raise InputError(f"{source}: {_counted(wrong)}; labels are {meaning}{_hint(wrong, highest)}")
    return labels


def _counted(wrong: dict[float, int]) -> str:
    """The values that are no labels, the most frequent first."""
    order = sorted(wrong, key=lambda value: -wrong[value])
    listed = ", ".join(f"{value:.9g} in {wrong[value]}" for value in order[:_LISTED])
    more = len(order) - _LISTED
    return f"holds {listed} voxels" + (f" and {more} more values" if more > 0 else "")


def _hint(wrong: dict[float, int], highest: int) -> str:
    """What these values look like, and what to do."""
    if any(value != round(value) for value in wrong):
        return "; was it resampled by interpolation? Resample it by nearest neighbour, or fetch it again"
    if min(wrong) < 0:
        return "; were large labels stored in a signed type? Write it in an unsigned one, or fetch it again"
    if max(wrong) == 255 or len(wrong) > 1 and max(wrong) > 2 * highest:
        return "; was it scaled to be looked at? Give it with the dataset's own numbers"
    return "; give the mask with the dataset's own numbers"


def mask_on_scan(
    mask: CTVolume, scan: CTVolume, override: Override, remark: Remark, *, by_file: bool
) -> npt.NDArray[np.int16]:
    """The labels (z, y, x) on the voxels of a stored scan.

    They are matched by their place in the world, so that a mask stored along other axes than its scan lies right. A
    mask whose header cannot be true of this scan is refused, unless ``override.match`` is ``voxels``. A header that is
    the identity tells nothing, and counts as ``voxels`` where both are files of one kind.

    Args:
        mask: As :func:`read_labels` gives it.
        scan: As the store has it, ``override`` applied.
        override: Corrections of this volume.
        remark: Called with what was noticed.
        by_file: Voxel for voxel means in the order of the files; False, of the canonical axes, where one is DICOM.

    Raises:
        InputError: The mask does not fit its scan.
    """
    fault = _fault(mask, scan, override, origin=by_file)
    blank = fault is not None and by_file and override.match != "voxels" and _is_identity(mask)
    if blank:
        remark("mask's header is the identity and tells nothing, taken voxel for voxel")
    elif override.match == "voxels":
        remark("mask matched voxel for voxel, whatever its header says")
    elif fault is not None:
        raise InputError(f"{mask.source}: {fault}")
    if by_file and (blank or override.match == "voxels"):
        found, needed = mask.source_shape, scan.source_shape
        labels, letters = mask.array, override.flip_mask
        if found == needed:
            labels = scan.array_from_source(mask.array_to_source())
    else:
        found, needed = mask.shape[::-1], scan.shape[::-1]
        labels, letters = mask.array, override.flip + override.flip_mask
    if found != needed:
        raise InputError(f"{mask.source}: {_unlike(found, needed)}")
    if override.flip_mask:
        remark(f"mask mirrored along {override.flip_mask}")
    return mirrored(labels, letters)


def check_organ(
    labels: npt.NDArray[np.int16],
    organ: tuple[int, str, float, float],
    mask: CTVolume,
    scan: CTVolume,
    override: Override,
    remark: Remark,
) -> None:
    """Refuse a mask whose organ has not got the organ's density in the scan.

    That is so if fewer than 70 % of its voxels have it, or if plainly more would where the mask is mirrored or taken
    voxel for voxel: a tenth more, and two thirds of the others. A mask that a table of corrections has placed
    (``match`` or ``flip_mask``) is only remarked on. An organ of less than 1000 voxels is not looked at.

    Args:
        labels: (z, y, x) on the voxels of the scan, as :func:`mask_on_scan` gives them.
        organ: Label, name, and lowest and highest HU.
        mask: As :func:`read_labels` gives it.
        scan: As the store has it.
        override: Corrections of this volume.
        remark: Called with what was noticed.

    Raises:
        InputError: The organ is not there; the share of its voxels is named, and what to try.
    """
    label, name, low, high = organ
    if np.count_nonzero(labels == label) < _FEWEST_VOXELS:
        return
    shares = {letters: _share(labels == label, scan, letters, low, high) for letters in MIRRORS}
    found = shares[""]
    better = max(MIRRORS, key=lambda letters: shares[letters])
    best, advice = shares[better], f"flip_mask = {better}, which mirrors it"
    if mask.source_shape == scan.source_shape:
        by_file = scan.array_from_source(mask.array_to_source()) == label
        share = _share(by_file, scan, "", low, high)
        if share >= best:
            best, advice = share, "match = voxels, which takes it voxel for voxel"
    elsewhere = best >= found + _PLAINLY and 1 - best <= (1 - found) / 3
    if found >= _LEAST_SHARE and not elsewhere:
        return
    what = f"{found:.0%} of its voxels of {name} have {low:g} to {high:g} HU in the scan"
    what += f", {best:.0%} with {advice}" if elsewhere else f"; at least {_LEAST_SHARE:.0%} do where a mask lies right"
    if override.match or override.flip_mask:
        remark(f"{what}; taken as the table of corrections says")
        return
    todo = "name the volume in a table with that" if elsewhere else (
        "look at both, and name the volume in a table with match = voxels, flip_mask or exclude"
    )  # fmt: skip
    raise InputError(f"{mask.source}: {what}; {todo} (--overrides)")


def _share(organ: npt.NDArray[np.bool_], scan: CTVolume, mirror: str, low: float, high: float) -> float:
    """Share of an organ's voxels, or of a sample of them, within some HU, were its mask mirrored along some axes."""
    places = np.flatnonzero(organ)
    places = places[:: 1 + len(places) // _SAMPLES]
    index = list(np.unravel_index(places, organ.shape))
    for letter in mirror:
        axis = 2 - "xyz".index(letter)
        index[axis] = organ.shape[axis] - 1 - index[axis]
    values = scan.array[tuple(index)]
    return float(np.mean((values >= low) & (values <= high)))


def _is_identity(mask: CTVolume) -> bool:
    """Whether the file's voxels are 1 mm along the axes of its world, the first at the origin."""
    aligned = np.abs(mask.affine_lps[:3, :3]).round(6).tolist() == np.eye(3).tolist()
    at_origin = not mask.points_to_world_lps(mask.first_voxel).round(6).any()
    return aligned and mask.source_axes[:2] in ((1, 2), (-1, -2)) and at_origin


def _fault(mask: CTVolume, scan: CTVolume, override: Override, origin: bool) -> str | None:
    """What says that the mask's voxels do not lie where the scan's do; None if they do."""
    if mask.shape != scan.shape:
        return _unlike(mask.shape[::-1], scan.shape[::-1])
    # The mask's header gets the corrections that the scan's has got.
    there, here = scan.affine_lps, mirrored_affine(mask.affine_lps, mask.shape, override.flip)
    sizes = [np.linalg.norm(affine[:3, :3], axis=0) for affine in (here, there)]
    if override.spacing_mm is not None:
        here = resized_affine(here, sizes[1] / sizes[0], scan.first_voxel)
    if not origin:
        here[:3, 3] = there[:3, 3]
    far = np.array(scan.shape[::-1]) - 1
    corners = np.array([[x, y, z] for x in (0, far[0]) for y in (0, far[1]) for z in (0, far[2])], np.float64)
    apart = (corners @ (here - there)[:3, :3].T + (here - there)[:3, 3]) @ np.linalg.inv(there[:3, :3]).T
    if np.abs(apart).max() <= _APART_VOXELS:
        return None
    if override.spacing_mm is None and not np.allclose(sizes[0], sizes[1], rtol=1e-3):
        what = "voxels of {} mm, but its scan {}".format(*("x".join(f"{value:g}" for value in size) for size in sizes))
    else:
        what = f"voxels up to {np.abs(apart).max():.3g} voxels away from its scan's"
    return (
        f"its header gives {what}; mend the header, or name the volume in a table with match = voxels, which takes it "
        "voxel for voxel (--overrides)"
    )


def _unlike(found: tuple[int, ...], needed: tuple[int, ...]) -> str:
    shown = ("x".join(map(str, shape)) for shape in (found, needed))
    return "mask of {} voxels on an image of {}; needed is one shape, fetch both again".format(*shown)
