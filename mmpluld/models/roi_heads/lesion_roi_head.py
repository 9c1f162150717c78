"""mmdet's two-stage head with masks for the boxes that are looked at."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmdet.models.roi_heads import StandardRoIHead
from mmdet.utils import InstanceList
from torch import Tensor

from mmpluld.models.roi_heads.rescaling import rescale_boxes
from mmpluld.registry import MODELS

__all__ = ["LesionRoIHead"]


@MODELS.register_module()
class LesionRoIHead(StandardRoIHead):
    """mmdet's ``StandardRoIHead`` that can leave out the masks of boxes that score too little to be a finding.

    Of a slice's boxes most are never looked at, and their masks would take a good part of the time.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._mask_score_thr = 0.0

    @contextmanager
    def masks_from(self, score: float) -> Iterator[None]:
        """Predict masks for boxes of at least this score alone, as long as the context lasts.

        Others get masks of zeros; an image without a box of that score gets no ``mask_probs``.
        """
        before, self._mask_score_thr = self._mask_score_thr, score
        try:
            yield
        finally:
            self._mask_score_thr = before

    def predict_mask(
        self,
        x: tuple[Tensor, ...],
        batch_img_metas: list[dict[str, Any]],
        results_list: InstanceList,
        rescale: bool = False,
    ) -> InstanceList:
        """As for ``StandardRoIHead``."""
        thr = self._mask_score_thr
        if thr <= 0:
            return super().predict_mask(x, batch_img_metas, results_list, rescale)
        good = [results.scores >= thr for results in results_list]
        chosen = [results[rows] for results, rows in zip(results_list, good, strict=True)]
        if any(map(len, chosen)):
            chosen = super().predict_mask(x, batch_img_metas, chosen, rescale)
        if rescale:  # the mask head does it for those that it sees
            rescale_boxes(results_list, batch_img_metas)
        for results, rows, some in zip(results_list, good, chosen, strict=True):
            if len(some):
                masks = some.mask_probs.new_zeros((len(results), *some.mask_probs.shape[1:]))
                masks[rows] = some.mask_probs
                results.mask_probs = masks
        return results_list
