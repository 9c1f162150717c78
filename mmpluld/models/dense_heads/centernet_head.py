"""CenterNet for proposals, with uncertain lesions left out of its loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmdet.models.dense_heads import CenterNetHead
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor

from mmpluld.models.dense_heads.cells import ignored_cells
from mmpluld.models.normalizers import count_per_process
from mmpluld.registry import MODELS

__all__ = ["CenterNetProposalHead"]


@MODELS.register_module()
class CenterNetProposalHead(CenterNetHead):
    """mmdet's ``CenterNetHead`` as proposal head of a two-stage detector; it respects ignored boxes.

    The stock class returns no proposals in training, needs the padding of its own data pipeline, and makes cells on
    ignored boxes negatives. Here the peaks of the heat map become proposals by the settings of any proposal head:
    ``nms_pre`` peaks at most, then ``min_bbox_size``, ``nms`` and ``max_per_img``; ``local_maximum_kernel`` (3) is
    optional. Cells in an ignored box other than lesions' centres take no part in the heat map's loss. Losses are
    divided by the lesions' centres per process instead of by the own ones.

    Args:
        ignore_scale: Part of an ignored box's sides that counts, around its centre; 1 is the whole box.
        **kwargs: As for ``CenterNetHead``.
    """

    def __init__(self, *args: Any, ignore_scale: float = 1.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.ignore_scale = ignore_scale

    def forward_single(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As in ``CenterNetHead``, with the probabilities in float32.

        The gradient of a logarithm is the inverse of its probability, which float16 cannot hold where the head is sure.
        """
        return self.heatmap_head(x).float().sigmoid(), self.wh_head(x), self.offset_head(x)

    def loss_by_feat(
        self,
        center_heatmap_preds: list[Tensor],
        wh_preds: list[Tensor],
        offset_preds: list[Tensor],
        batch_gt_instances: Sequence[InstanceData],
        batch_img_metas: Sequence[dict],
        batch_gt_instances_ignore: Sequence[InstanceData | None] | None = None,
    ) -> dict[str, Tensor]:
        """As in ``CenterNetHead``; ignored cells are set to probability 0, which stops their gradient."""
        (heatmap,) = center_heatmap_preds
        shape = batch_img_metas[0]["batch_input_shape"]
        boxes, labels = ([gt[key] for gt in batch_gt_instances] for key in ("bboxes", "labels"))
        targets, own_count = self.get_targets(boxes, labels, heatmap.shape, shape)
        size = heatmap.shape[2:]
        left_out = ignored_cells(batch_gt_instances_ignore, self.ignore_scale, size, shape[0] / size[0], heatmap)
        left_out = left_out.unsqueeze(1) & (targets["center_heatmap_target"] < 1)
        kept = [heatmap.masked_fill(left_out, 0.0)]
        losses = super().loss_by_feat(kept, wh_preds, offset_preds, batch_gt_instances, batch_img_metas)
        # Which divides by the own count, 1 without any.
        share = own_count / count_per_process((targets["center_heatmap_target"] == 1).sum(), heatmap)
        return {name: loss * share for name, loss in losses.items()}

    def predict_by_feat(
        self,
        center_heatmap_preds: list[Tensor],
        wh_preds: list[Tensor],
        offset_preds: list[Tensor],
        batch_img_metas: Sequence[dict],
        cfg: ConfigDict | None = None,
        rescale: bool = False,
        with_nms: bool = True,
    ) -> list[InstanceData]:
        """Proposals of each image: ``bboxes`` (N, 4) in pixels, ``scores`` (N,), ``labels`` (N,), best first."""
        cfg = self.test_cfg if cfg is None else cfg
        heatmap = center_heatmap_preds[0].detach()
        dets, labels = self._decode_heatmap(
            heatmap,
            wh_preds[0].detach(),
            offset_preds[0].detach(),
            batch_img_metas[0]["batch_input_shape"],
            k=min(cfg.nms_pre, heatmap[0].numel()),
            kernel=cfg.get("local_maximum_kernel", 3),
        )
        results = []
        for det, label, meta in zip(dets, labels, batch_img_metas, strict=True):
            peak = det[:, 4] > 0  # fewer peaks than asked for leave places to cells that are none
            height, width = meta["img_shape"][:2]
            boxes = det[peak, :4].clamp(min=0)
            boxes[:, 0::2].clamp_(max=width)
            boxes[:, 1::2].clamp_(max=height)
            proposals = InstanceData(bboxes=boxes, scores=det[peak, 4], labels=label[peak])
            results.append(self._bbox_post_process(proposals, cfg, rescale, with_nms, meta))
        return results
