"""FCOS for proposals, with uncertain lesions left out of its loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmdet.models.dense_heads import FCOSHead
from mmengine.structures import InstanceData
from torch import Tensor

from mmpluld.errors import InputError
from mmpluld.models.dense_heads.cells import ignored_cells
from mmpluld.models.normalizers import count_per_process
from mmpluld.registry import MODELS

__all__ = ["IgnoreAwareFCOSHead"]


@MODELS.register_module()
class IgnoreAwareFCOSHead(FCOSHead):
    """mmdet's ``FCOSHead`` that respects ignored boxes; the stock class makes every cell on them a negative.

    Cells in an ignored box that are no positives of a certain lesion take no part in the classification loss.

    Args:
        ignore_scale: Part of an ignored box's sides that counts, around its centre; 1 is the whole box.
        **kwargs: As for ``FCOSHead``. As proposal head leave ``norm_on_bbox`` off.

    Attributes:
        left_out_logit: What the cells that take no part have: there a sigmoid is exactly 0 in every data type, and with
            it the loss of a negative.
    """

    left_out_logit = -1e4

    def __init__(self, *args: Any, ignore_scale: float = 1.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.ignore_scale = ignore_scale

    def loss_by_feat(
        self,
        cls_scores: list[Tensor],
        bbox_preds: list[Tensor],
        centernesses: list[Tensor],
        batch_gt_instances: Sequence[InstanceData],
        batch_img_metas: Sequence[dict],
        batch_gt_instances_ignore: Sequence[InstanceData | None] | None = None,
    ) -> dict[str, Tensor]:
        """As in ``FCOSHead``, with the logits of ignored cells set to sure background, which stops their gradient."""
        sizes = [score.shape[2:] for score in cls_scores]
        points = self.prior_generator.grid_priors(sizes, dtype=bbox_preds[0].dtype, device=bbox_preds[0].device)
        labels, _ = self.get_targets(points, batch_gt_instances)
        kept = []
        for score, label, size, stride in zip(cls_scores, labels, sizes, self.strides, strict=True):
            left_out = ignored_cells(batch_gt_instances_ignore, self.ignore_scale, size, stride, score)
            left_out &= label.view(left_out.shape) == self.num_classes
            kept.append(score.masked_fill(left_out.unsqueeze(1), self.left_out_logit))
        losses = super().loss_by_feat(kept, bbox_preds, centernesses, batch_gt_instances, batch_img_metas)
        # Which divides by the positives per process or by 1, where all processes together have at least 1.
        count = count_per_process(sum((label < self.num_classes).sum() for label in labels), cls_scores[0])
        for name in ("loss_cls", "loss_centerness"):
            losses[name] = losses[name] / count.clamp(max=1)
        return losses

    def loss_and_predict(self, *args: Any, **kwargs: Any) -> tuple[dict[str, Tensor], list[InstanceData]]:
        """Losses and proposals in one pass, for two-stage detectors.

        Raises:
            InputError: With ``norm_on_bbox``, where ``FCOSHead`` predicts in pixels only outside training.
        """
        if self.norm_on_bbox:
            raise InputError("norm_on_bbox: True gives a second stage wrong proposals in training; set it to False")
        return super().loss_and_predict(*args, **kwargs)
