"""From the 2D boxes of a grid's slices to lesions in slices of the series."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from mmpluld.inference.grid_source import GridSliceSource
from mmpluld.inference.settings import DetectionSettings
from mmpluld.postprocess import Box3D, link_slices, paste_mask, tracklet_to_box3d
from mmpluld.structures import RECIST, SliceMask, measure_recist
from mmpluld.typing import BoolArray, FloatArray, IntArray

__all__ = ["Lesion3D", "SliceBoxes", "link_lesions"]


class SliceBoxes(NamedTuple):
    """What a model finds on a slice.

    Attributes:
        boxes: (n, 4) in pixels of the volume.
        scores: (n,).
        masks: (n, h, w) over the boxes.
        tag_scores: (n, T).
        expert: (n,) numbers of the experts that found them.
        fused_scores: (n,) scores after the fusion of experts, -1 where it suppresses a box; of a model that is asked
            for all boxes.
    """

    boxes: FloatArray
    scores: FloatArray
    masks: FloatArray | None = None
    tag_scores: FloatArray | None = None
    expert: IntArray | None = None
    fused_scores: FloatArray | None = None

    def above(self, score_thr: float) -> SliceBoxes:
        """What has an area and scores enough."""
        return self.chosen((self.boxes[:, 2:] > self.boxes[:, :2]).all(axis=1) & (self.scores >= score_thr))

    def chosen(self, rows: IntArray | BoolArray) -> SliceBoxes:
        """Some of the boxes."""
        parts = {name: part[rows] for name, part in self._asdict().items() if part is not None}
        return SliceBoxes(**parts)


@dataclass(frozen=True)
class Lesion3D:
    """One detection in a series.

    Attributes:
        found: Its box and key slice in slice numbers of the series, its score, its 2D box on the key slice.
        recist: Diameters on the key slice; None where the model predicts no mask.
        tags: Name and score of each tag on the key slice, best first; empty where the model predicts none.
        mask: Its pixels on the key slice; None where the model predicts none, or none with a half or more.
    """

    found: Box3D
    recist: RECIST | None = None
    tags: tuple[tuple[str, float], ...] = ()
    mask: SliceMask | None = None

    def rank(self) -> tuple[float, ...]:
        """Sorts lesions: best score first."""
        return (-self.found.score, *self.found.box.tolist())


def link_lesions(
    slices: Iterable[SliceBoxes],
    grid: GridSliceSource,
    settings: DetectionSettings,
    tag_names: Sequence[str] | None = None,
) -> list[Lesion3D]:
    """Link the 2D boxes of all slices of a grid, and keep what is a finding.

    Args:
        slices: What was found on each grid slice, in order.
        grid: The grid.
        settings: The rules.
        tag_names: A name for each tag; None leaves tags out.

    Returns:
        The findings in slice numbers of the series, best score first, at most ``max_boxes``.
    """
    kept = [item.above(settings.link_score_thr) for item in slices]
    boxes, scores = [item.boxes for item in kept], [item.scores for item in kept]
    chains = link_slices(boxes, scores, settings.iou_thr, settings.max_gap, settings.link_order)
    long_enough = (chain for chain in chains if len(chain.slices) >= settings.min_slices)
    merged = [tracklet_to_box3d(chain, settings.score_rule) for chain in long_enough]
    merged = [item for item in merged if item.score >= settings.score_thr]
    merged = sorted(merged, key=lambda item: (-item.score, *item.box))[: settings.max_boxes]
    if not merged:
        return []
    scan_boxes = grid.grid.boxes_to_scan([item.box for item in merged], settings.grid_rule)
    key_slices = grid.grid.slices_to_scan([item.key_slice for item in merged])
    # The slice nearest to a grid slice can lie just outside a box that was rounded to whole slices.
    key_slices = np.clip(key_slices, scan_boxes[:, 2], scan_boxes[:, 5] - 1).astype(np.int64)
    first = int(grid.slices[0])
    scan_boxes[:, [2, 5]] += first
    found = []
    for item, box, key in zip(merged, scan_boxes, key_slices, strict=True):
        on_key = kept[item.key_slice]
        recist, mask = _outline(item, on_key, grid)
        tags = _tags(item, on_key, tag_names, settings.tag_thr)
        found.append(Lesion3D(replace(item, box=box, key_slice=int(key) + first), recist, tags, mask))
    return found


def _row(found: Box3D, key: SliceBoxes) -> int:
    """Which box of its key slice a finding has there."""
    return int((key.boxes == found.key_box).all(axis=1).argmax())


def _outline(found: Box3D, key: SliceBoxes, grid: GridSliceSource) -> tuple[RECIST | None, SliceMask | None]:
    """Diameters and pixels of a finding, from the mask of its box on the key slice."""
    if key.masks is None:
        return None, None
    probs, origin = paste_mask(key.masks[_row(found, key)], found.key_box)
    spacing_yx = grid.spacing_mm[1:]
    known = all(np.isfinite(size) and size > 0 for size in spacing_yx)
    recist = measure_recist(probs, spacing_yx, origin) if known else None
    return recist, SliceMask.from_array(probs >= 0.5, origin, grid.shape_yx)


def _tags(found: Box3D, key: SliceBoxes, names: Sequence[str] | None, tag_thr: float) -> tuple[tuple[str, float], ...]:
    """The tags of a finding's box on its key slice, best first."""
    if key.tag_scores is None or names is None:
        return ()
    scores = key.tag_scores[_row(found, key)]
    order = [index for index in np.argsort(-scores, kind="stable").tolist() if scores[index] >= tag_thr]
    return tuple((names[index], float(scores[index])) for index in order)
