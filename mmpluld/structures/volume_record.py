"""A CT series of an annotation file, and what the boxes in it count."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mmpluld.errors import InputError
from mmpluld.structures.volume import checked_affine
from mmpluld.typing import StrPath

__all__ = ["CANONICAL_VOXELS", "FILE_VOXELS", "SERIES_SLICES", "SPACING_RTOL", "VolumeRecord", "check_geometry"]

FILE_VOXELS = "file-voxels"
"""Frame of boxes (i1, j1, k1, i2, j2, k2) in a scan's file, in the order and direction of its own axes."""
CANONICAL_VOXELS = "canonical-voxels"
"""Frame of boxes (x1, y1, z1, x2, y2, z2) in a scan turned to canonical orientation; its first slice has z = 0."""
SERIES_SLICES = "series-slices"
"""Frame of boxes with canonical x and y, whose z is the number that the raw dataset gives a slice."""

SPACING_RTOL = 0.01
"""How far apart two records of one voxel size may be: tables round to a few digits."""


@dataclass
class VolumeRecord:
    """One CT series of a dataset.

    Attributes:
        id: Unique in its file.
        patient, study, series: As the raw dataset names them; see :attr:`person`.
        source: At least ``kind`` and ``path`` (relative to the dataset's root).
        first_slice: z of the first slice, as the raw dataset numbers it.
        num_slices: Slices from the first to the last, both included.
        shape_yx: Slice size in pixels.
        spacing_mm: (z, y, x); NaN where the dataset does not tell (null in the file).
        frame: What the boxes count, ``CANONICAL_VOXELS`` or ``SERIES_SLICES``. Empty takes what files that do not say
            it mean: series slices for a folder of PNGs and wherever ``first_slice`` is not 0.
        affine_lps: (4, 4), canonical voxel-centre index (x, y, z, 1) to LPS mm, z = 0 at the first slice; None where
            the dataset has no world.
    """

    id: str
    patient: str
    study: str
    series: str
    source: dict[str, Any]
    first_slice: int
    num_slices: int
    shape_yx: tuple[int, int]
    spacing_mm: tuple[float, float, float]
    frame: str = ""
    affine_lps: tuple[tuple[float, ...], ...] | None = None

    def __post_init__(self) -> None:
        if not self.frame:
            series = self.source.get("kind") == "png16" or self.first_slice != 0
            self.frame = SERIES_SLICES if series else CANONICAL_VOXELS

    @property
    def person(self) -> str:
        """Whose volume it is: the patient; where none is named, a text that stands for this volume alone."""
        return self.patient or f"volume {self.id}"


def check_geometry(path: StrPath, volume: VolumeRecord) -> None:
    """Refuse a volume whose frame and geometry contradict each other.

    Raises:
        InputError: The frame is not one of an annotation file, or ``first_slice`` or ``spacing_mm`` do not fit.
    """
    where = f"{path}: volume '{volume.id}'"
    if volume.frame not in (CANONICAL_VOXELS, SERIES_SLICES):
        raise InputError(
            f"{where}: frame is {volume.frame!r}; an annotation file counts {CANONICAL_VOXELS} or {SERIES_SLICES}, "
            f"give boxes in {FILE_VOXELS} as a detection record"
        )
    if volume.frame == CANONICAL_VOXELS and volume.first_slice != 0:
        raise InputError(
            f"{where}: {CANONICAL_VOXELS} with first_slice {volume.first_slice}; these count from 0, otherwise the "
            f"frame is {SERIES_SLICES}"
        )
    if volume.affine_lps is not None:
        spacing = np.linalg.norm(checked_affine(volume.affine_lps, where)[:3, :3], axis=0)[::-1]
        wanted = np.array(volume.spacing_mm)
        if (np.abs(spacing - wanted) > SPACING_RTOL * wanted).any():  # not where one is unknown
            raise InputError(
                f"{where}: spacing_mm is {list(volume.spacing_mm)}, but affine_lps says {spacing.round(6).tolist()}; "
                "mend one of them"
            )
