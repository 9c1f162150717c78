"""The mask head of the published detectors, with results that stay small."""

from __future__ import annotations

from typing import Any

import torch
from mmdet.models.roi_heads.mask_heads import FCNMaskHead
from mmdet.models.task_modules.samplers import SamplingResult
from mmdet.utils import ConfigType, InstanceList
from torch import Tensor

from mmpluld.errors import InputError
from mmpluld.models.roi_heads.rescaling import rescale_boxes
from mmpluld.registry import MODELS

__all__ = ["LesionMaskHead"]


@MODELS.register_module()
class LesionMaskHead(FCNMaskHead):
    """mmdet's ``FCNMaskHead`` that hands out the masks as it predicts them: small, laid over their boxes.

    Predicted instances get ``mask_probs`` (N, h, w) in [0, 1], a grid over each box;
    :func:`mmpluld.postprocess.paste_mask` turns one into pixels. Full-size masks of all boxes of a slice would take 80
    times the memory, and most boxes are never looked at.
    """

    def get_targets(
        self, sampling_results: list[SamplingResult], batch_gt_instances: InstanceList, rcnn_train_cfg: ConfigType
    ) -> Tensor:
        """Crop the masks of the sampled proposals.

        Raises:
            InputError: If the samples were loaded without masks.
        """
        if any("masks" not in instances for instances in batch_gt_instances):
            raise InputError("LesionMaskHead: training samples have no masks; set with_mask=True in LoadAnnotations")
        targets: Tensor = super().get_targets(sampling_results, batch_gt_instances, rcnn_train_cfg)
        return targets

    def predict_by_feat(
        self,
        mask_preds: tuple[Tensor, ...],
        results_list: InstanceList,
        batch_img_metas: list[dict[str, Any]],
        rcnn_test_cfg: ConfigType,
        rescale: bool = False,
        activate_map: bool = False,
    ) -> InstanceList:
        """Add masks to the instances and, if asked to rescale, bring their boxes to the original slice."""
        probs = []
        for preds, results in zip(mask_preds, results_list, strict=True):
            channels = torch.zeros_like(results.labels) if self.class_agnostic else results.labels
            own = preds[torch.arange(len(preds), device=preds.device), channels].float()
            probs.append(own if activate_map else own.sigmoid())
        if rescale:
            rescale_boxes(results_list, batch_img_metas)
        for own, results in zip(probs, results_list, strict=True):
            results.mask_probs = own
        return results_list
