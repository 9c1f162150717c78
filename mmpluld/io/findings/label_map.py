"""Findings as label maps on the grid of the scan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from mmpluld.errors import InputError
from mmpluld.io.writers import write_nifti
from mmpluld.structures import CTVolume, Finding, ScanFindings, centres_between
from mmpluld.typing import BoolArray, StrPath

__all__ = ["BOXES", "MASKS", "Outline", "box_voxels", "label_map", "write_label_maps"]

BOXES, MASKS = "boxes.nii.gz", "masks.nii.gz"
"""Names of the label maps of a result."""
Outline = Literal["box", "mask", "either"]


def write_label_maps(path: StrPath, found: ScanFindings) -> None:
    """Write the label map of boxes and, where a finding has a mask, that of masks beside it.

    Voxel for voxel the scan's own file: its axes, their order and directions. A voxel's value is the rank of the
    finding, see :func:`label_map`.

    Args:
        path: File of the boxes; :data:`MASKS` is written beside it.
        found: The findings.
    """
    boxes = Path(path)
    _write(boxes, found, "box")
    if any(finding.mask is not None for finding in found):
        _write(boxes.with_name(MASKS), found, "mask")


def label_map(volume: CTVolume, findings: Sequence[Finding], outline: Outline) -> npt.NDArray[np.int16]:
    """Label the voxels of findings with their rank, 1 for the first; 0 elsewhere.

    Where findings overlap, the one with fewer voxels is seen, so that a small one is not lost in a large one; of two
    that are as large the better ranked.

    Args:
        volume: The scan.
        findings: In order of rank, at most 32767.
        outline: ``box``: the voxels of the box; ``mask``: those of the mask on the key slice, where there is one;
            ``either``: those of the mask, else of the box.

    Returns:
        (z, y, x), canonical.

    Raises:
        InputError: If there are more findings than labels.
    """
    if len(findings) > (most := np.iinfo(np.int16).max):
        raise InputError(f"{volume.source}: {len(findings)} findings; a label map has {most} labels, give --max-boxes")
    labels = np.zeros(volume.shape, dtype=np.int16)
    parts = []
    for rank, finding in enumerate(findings, start=1):
        place, inside = _part(volume, finding, outline)
        count = inside.sum() if isinstance(inside, np.ndarray) else labels[place].size
        parts.append((int(count), rank, place, inside))
    for _, rank, place, inside in sorted(parts, key=lambda part: (-part[0], -part[1])):
        labels[place][inside] = rank
    return labels


def box_voxels(low: float, high: float, size: int) -> slice:
    """The voxels of an axis whose centres lie between two edges; at least that in the middle."""
    found = centres_between(low, high, size)
    return slice(found.start, found.stop)


def _part(volume: CTVolume, finding: Finding, outline: Outline) -> tuple[tuple[slice, ...], BoolArray | slice]:
    """A block of the volume and which of its voxels are the finding's."""
    if finding.mask is not None and outline != "box":
        (x, y), (height, width), z = finding.mask.origin_xy, finding.mask.shape_yx, finding.key_slice
        return (slice(z, z + 1), slice(y, y + height), slice(x, x + width)), finding.mask.array()[None]
    if outline == "mask":
        return (slice(0, 0),), slice(None)
    x1, y1, z1, x2, y2, z2 = finding.box_canonical
    depth, rows, columns = volume.shape
    return (box_voxels(z1, z2, depth), box_voxels(y1, y2, rows), box_voxels(x1, x2, columns)), slice(None)


def _write(path: Path, found: ScanFindings, outline: Outline) -> None:
    labels = replace(found.volume, array=label_map(found.volume, found.findings, outline))
    write_nifti(path, labels.array_to_source(), labels.source_affine_lps)
