"""Assignment of anchors and proposals to ground truth."""

from __future__ import annotations

from typing import Any

import torch
from mmdet.models.task_modules.assigners import AssignResult, MaxIoUAssigner
from mmengine.structures import InstanceData
from torch import Tensor

from mmpluld.registry import TASK_UTILS

__all__ = ["IgnoreAwareMaxIoUAssigner"]


@TASK_UTILS.register_module()
class IgnoreAwareMaxIoUAssigner(MaxIoUAssigner):
    """mmdet's ``MaxIoUAssigner`` that respects ignored boxes also in images without ground truth.

    The stock class makes every prior a negative when an image has no ground truth, also on uncertain lesions, and takes
    priors on ignored boxes from certain lesions that lie there too. Here such priors stay positive. With
    ``min_pos_iou=0`` the stock class gives a ground truth that no prior touches, such as a sliver at the border, every
    prior of the image; here it gets none.

    Args:
        ignore_iof_thr: Priors are neither positive nor negative where more than this share of their area
            (with ``ignore_wrt_candidates=False``: of the ignored box's area) is covered; must be positive to
            take effect.
        ignore_iou_thr: Priors are left out also where their IoU with an ignored box is at least this, which those round
            a box are that are more than twice its size; must be positive to take effect.
        **kwargs: As for ``MaxIoUAssigner``.
    """

    def __init__(self, *, ignore_iof_thr: float = 0.5, ignore_iou_thr: float = -1, **kwargs: Any) -> None:
        super().__init__(ignore_iof_thr=ignore_iof_thr, **kwargs)
        self.ignore_iou_thr = ignore_iou_thr

    def assign(
        self,
        pred_instances: InstanceData,
        gt_instances: InstanceData,
        gt_instances_ignore: InstanceData | None = None,
        **kwargs: Any,
    ) -> AssignResult:
        """Return for each prior: 0 negative, k > 0 positive for ground truth k - 1, -1 neither."""
        result = super().assign(pred_instances, gt_instances, None, **kwargs)
        priors = pred_instances.priors
        if gt_instances_ignore is None or not len(gt_instances_ignore) or not len(priors):
            return result
        left_out = self._on_ignored(priors, gt_instances_ignore.bboxes)
        result.gt_inds[left_out & (result.gt_inds == 0)] = -1
        return result

    def assign_wrt_overlaps(self, overlaps: Tensor, gt_labels: Tensor) -> AssignResult:
        """The same from overlaps (K, P), in which ground truth without any takes no part."""
        if self.min_pos_iou > 0 or not self.match_low_quality:
            return super().assign_wrt_overlaps(overlaps, gt_labels)
        touched = (overlaps > 0).any(dim=1).nonzero().flatten()
        if len(touched) == len(overlaps):
            return super().assign_wrt_overlaps(overlaps, gt_labels)
        result = super().assign_wrt_overlaps(overlaps[touched], gt_labels[touched])
        positive = result.gt_inds > 0
        result.gt_inds[positive] = touched[result.gt_inds[positive] - 1] + 1
        result.num_gts = len(overlaps)
        return result

    def _on_ignored(self, priors: Tensor, ignored: Tensor) -> Tensor:
        """Which priors (P, 4) count as lying on one of the ignored boxes (K, 4): (P,) bool."""
        left_out = priors.new_zeros(len(priors), dtype=torch.bool)
        if self.ignore_iof_thr > 0 and self.ignore_wrt_candidates:
            left_out |= self.iou_calculator(priors, ignored, mode="iof").amax(dim=1) > self.ignore_iof_thr
        elif self.ignore_iof_thr > 0:
            left_out |= self.iou_calculator(ignored, priors, mode="iof").amax(dim=0) > self.ignore_iof_thr
        if self.ignore_iou_thr > 0:
            left_out |= self.iou_calculator(priors, ignored).amax(dim=1) >= self.ignore_iou_thr
        return left_out
