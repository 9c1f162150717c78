"""A finding: one detected lesion, in every coordinate system a user may ask for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, overload

import numpy as np

from mmpluld.structures.boxes import as_boxes
from mmpluld.structures.lesion_record import Box
from mmpluld.structures.recist import RECIST
from mmpluld.structures.records import FILE_VOXELS, Detections, DetectionSet
from mmpluld.structures.slice_masks import SliceMask
from mmpluld.structures.volume import CTVolume
from mmpluld.typing import FloatArray

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Finding", "ScanFindings", "findings_to_detections"]


@dataclass(frozen=True, repr=False)
class Finding:
    """One detected lesion of one scan.

    Attributes:
        box_canonical: Voxel edges (x1, y1, z1, x2, y2, z2) of the canonical volume.
        box_source: Voxel edges (i1, j1, k1, i2, j2, k2) of the file.
        box_world_lps: Axis-aligned hull in LPS millimetres.
        score: Confidence in [0, 1].
        key_slice: Canonical slice with the best 2D score.
        key_slice_source: The same slice as an index of the file, along ``source_axis``.
        source_axis: File axis (0 = i, 1 = j, 2 = k) that the canonical slices are stacked along.
        key_box: 2D box (x1, y1, x2, y2) on the canonical key slice.
        recist: Diameters on the canonical key slice; None where the model predicts no mask.
        tags: Name and score of each tag, best first; empty where the model predicts none.
        mask: Pixels of the lesion on the canonical key slice; None where the model predicts none.
    """

    box_canonical: Box
    box_source: Box
    box_world_lps: Box
    score: float
    key_slice: int
    key_slice_source: int
    source_axis: int
    key_box: tuple[float, float, float, float]
    recist: RECIST | None = None
    tags: tuple[tuple[str, float], ...] = ()
    mask: SliceMask | None = None

    def __repr__(self) -> str:
        world = np.array(self.box_world_lps).reshape(2, 3)
        size = " x ".join(f"{value:.0f}" for value in world[1] - world[0])
        centre = ", ".join(f"{value:.0f}" for value in world.mean(axis=0) + 0.0)
        return f"<Finding: score {self.score:.2f}, {size} mm at ({centre}) LPS mm, slice {self.key_slice_source}>"

    @classmethod
    def from_canonical(
        cls,
        volume: CTVolume,
        box: Sequence[float],
        score: float,
        key_slice: int,
        key_box: Sequence[float],
        recist: RECIST | None = None,
        tags: tuple[tuple[str, float], ...] = (),
        mask: SliceMask | None = None,
    ) -> Finding:
        """Fill in file and world coordinates of a canonical box.

        Raises:
            InputError: If ``box`` is not 6, or ``key_box`` not 4, ordered finite numbers.
        """
        boxes = as_boxes([list(box)], 3)
        x1, y1, x2, y2 = as_boxes([list(key_box)], 2)[0].tolist()
        axis, index = volume.slice_to_source(key_slice)
        return cls(
            box_canonical=_box(boxes),
            box_source=_box(volume.boxes_to_source(boxes)),
            box_world_lps=_box(volume.boxes_to_world_lps(boxes)),
            score=float(score),
            key_slice=int(key_slice),
            key_slice_source=int(index),
            source_axis=axis,
            key_box=(x1, y1, x2, y2),
            recist=recist,
            tags=tags,
            mask=mask,
        )


@dataclass(frozen=True, eq=False)
class ScanFindings(Sequence[Finding]):
    """The findings of one scan, best score first, with the scan itself.

    Attributes:
        name: Of the scan in records: its file name without suffix.
        volume: The scan; its history says how it was read and examined, and by which model.
        findings: What was found.
        details: What was done, name to text, such as the model and its score threshold.
    """

    name: str
    volume: CTVolume
    findings: tuple[Finding, ...]
    details: Mapping[str, str]

    def __len__(self) -> int:
        return len(self.findings)

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    @overload
    def __getitem__(self, index: int) -> Finding: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    def __getitem__(self, index: int | slice) -> Finding | Self:
        return replace(self, findings=self.findings[index]) if isinstance(index, slice) else self.findings[index]

    @property
    def detections(self) -> DetectionSet:
        """The detection record, in voxels of the scan's file; ``mmpluld evaluate`` reads it."""
        return DetectionSet({self.name: findings_to_detections(self.findings, self.volume)})


def findings_to_detections(findings: Sequence[Finding], volume: CTVolume) -> Detections:
    """Gather findings of ``volume`` into a detection record in the voxels of its file, with the geometry of these."""
    return Detections(
        boxes=as_boxes([finding.box_source for finding in findings], 3),
        scores=np.array([finding.score for finding in findings], dtype=np.float64),
        world_lps=as_boxes([finding.box_world_lps for finding in findings], 3),
        key_slices=np.array([finding.key_slice_source for finding in findings], dtype=np.int64),
        slice_axis=volume.slice_to_source(0)[0],
        diameters_mm=_diameters(findings),
        tags=tuple(dict(finding.tags) for finding in findings) if any(finding.tags for finding in findings) else None,
        spacing_mm=volume.spacing_mm,
        source=volume.source,
        history=volume.history,
        frame=FILE_VOXELS,
        shape=volume.source_shape,
        affine_lps=volume.source_affine_lps,
    )


def _diameters(findings: Sequence[Finding]) -> FloatArray | None:
    """(N, 2) long and short diameters, NaN where unknown; None if all are."""
    known = [finding.recist for finding in findings]
    if not any(known):
        return None
    return np.array([(item.long_mm, item.short_mm) if item else (np.nan, np.nan) for item in known], dtype=np.float64)


def _box(boxes: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Box:
    x1, y1, z1, x2, y2, z2 = boxes[0].tolist()
    return (x1, y1, z1, x2, y2, z2)
