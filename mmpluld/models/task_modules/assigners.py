"""Assignment of anchors and proposals to ground truth."""

from __future__ import annotations

from typing import Any

from mmdet.models.task_modules.assigners import AssignResult, MaxIoUAssigner
from mmengine.structures import InstanceData

from mmpluld.registry import TASK_UTILS

__all__ = ["IgnoreAwareMaxIoUAssigner"]


@TASK_UTILS.register_module()
class IgnoreAwareMaxIoUAssigner(MaxIoUAssigner):
    """mmdet's ``MaxIoUAssigner`` that respects ignored boxes also in images without ground truth.

    The stock class makes every prior a negative when an image has no ground truth, also on uncertain lesions, and takes
    priors on ignored boxes from certain lesions that lie there too. Here such priors stay positive.

    Args:
        ignore_iof_thr: Priors are neither positive nor negative where more than this share of their area
            (with ``ignore_wrt_candidates=False``: of the ignored box's area) is covered; must be positive to
            take effect.
        **kwargs: As for ``MaxIoUAssigner``.
    """

    def __init__(self, *, ignore_iof_thr: float = 0.5, **kwargs: Any) -> None:
        super().__init__(ignore_iof_thr=ignore_iof_thr, **kwargs)

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
        if self.ignore_iof_thr <= 0 or gt_instances_ignore is None or not len(gt_instances_ignore) or not len(priors):
            return result
        ignored = gt_instances_ignore.bboxes
        if self.ignore_wrt_candidates:
            cover = self.iou_calculator(priors, ignored, mode="iof").amax(dim=1)
        else:
            cover = self.iou_calculator(ignored, priors, mode="iof").amax(dim=0)
        result.gt_inds[(cover > self.ignore_iof_thr) & (result.gt_inds == 0)] = -1
        return result
