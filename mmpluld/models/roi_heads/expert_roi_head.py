"""The second stage of LENS: one expert per dataset on shared region features."""

from __future__ import annotations

from typing import Any

import torch
from mmdet.models.roi_heads import StandardRoIHead
from mmdet.models.task_modules.samplers import SamplingResult
from mmdet.structures import SampleList
from mmdet.structures.bbox import bbox2roi
from mmengine.structures import InstanceData
from torch import Tensor

from mmpluld.errors import InputError
from mmpluld.models.experts import dataset_of_batch
from mmpluld.registry import MODELS

__all__ = ["ExpertRoIHead"]


@MODELS.register_module()
class ExpertRoIHead(StandardRoIHead):
    """mmdet's ``StandardRoIHead`` with an ``ExpertBBoxHead``.

    A training batch comes from one dataset, and only that dataset's expert takes part: parameters of the others get no
    gradient at all, so no optimizer moves them. Regions on uncertain lesions take no part with the
    ``IgnoreAwareMaxIoUAssigner``.

    Test settings besides mmdet's: ``fusion``, ``experts``, ``calibrated`` (see ``ExpertBBoxHead.predict_by_feat``), and
    ``gated``, whether the gate weights the experts' scores (if there is one, it does by default).

    Args:
        gate: Config of an ``ExpertGate``; None trusts all experts alike, as in the paper.
        **kwargs: As for ``StandardRoIHead``.

    Raises:
        InputError: In training, if a batch mixes datasets or is of one without an expert; if ``gated`` asks for a gate
            that is not there.

    Source: "Learning from Multiple Datasets with Heterogeneous and Partial Labels for Universal Lesion Detection in
    CT", 2020, Sec. IV-C.
    """

    def __init__(self, gate: dict | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._dataset: str | None = None  # of the batch whose loss is being computed
        self.gate = None
        if gate is not None:
            sizes = {"in_channels": self.bbox_head.cls_last_dim, "num_experts": len(self.bbox_head.datasets)}
            self.gate = MODELS.build({**gate, **sizes})

    def loss(
        self, x: tuple[Tensor, ...], rpn_results_list: list[InstanceData], batch_data_samples: SampleList
    ) -> dict[str, Tensor]:
        """Losses of the expert of the batch's dataset."""
        self._dataset = dataset_of_batch(batch_data_samples, self.bbox_head.datasets, "ExpertRoIHead")
        try:
            return super().loss(x, rpn_results_list, batch_data_samples)
        finally:
            self._dataset = None

    def _bbox_forward(self, x: tuple[Tensor, ...], rois: Tensor) -> dict[str, Tensor]:
        """As in ``StandardRoIHead``, and the features that all experts read."""
        bbox_feats = self.bbox_roi_extractor(x[: self.bbox_roi_extractor.num_inputs], rois)
        if self.with_shared_head:
            bbox_feats = self.shared_head(bbox_feats)
        shared = self.bbox_head.shared_features(bbox_feats)
        cls_score, bbox_pred = self.bbox_head.outputs(shared, self._dataset)
        return {"cls_score": cls_score, "bbox_pred": bbox_pred, "bbox_feats": bbox_feats, "shared_feats": shared}

    def bbox_loss(self, x: tuple[Tensor, ...], sampling_results: list[SamplingResult]) -> dict[str, Any]:
        """As in ``StandardRoIHead``; the gate learns from the positive regions on the side."""
        results = super().bbox_loss(x, sampling_results)
        if self.gate is not None and self.training:
            counts = [(len(s.pos_priors), len(s.neg_priors)) for s in sampling_results]
            flags = [torch.arange(p + n, device=x[0].device) < p for p, n in counts]  # positives come first
            positive = torch.cat(flags)
            expert = self.bbox_head.datasets.index(self._dataset)
            results["loss_bbox"]["gate_ce"] = self.gate.learn(results["shared_feats"][positive], expert)
        return results

    def predict_bbox(
        self,
        x: tuple[Tensor, ...],
        batch_img_metas: list[dict],
        rpn_results_list: list[InstanceData],
        rcnn_test_cfg: Any,
        rescale: bool = False,
    ) -> list[InstanceData]:
        """Detections of each image; ``expert`` says whose each is."""
        proposals = [found.bboxes for found in rpn_results_list]
        counts = [len(boxes) for boxes in proposals]
        rois = bbox2roi(proposals)
        results = self._bbox_forward(x, rois)
        trusts = self._trusts(results["shared_feats"], rcnn_test_cfg)
        return self.bbox_head.predict_by_feat(
            rois.split(counts),
            results["cls_score"].split(counts),
            results["bbox_pred"].split(counts),
            batch_img_metas,
            rcnn_test_cfg,
            rescale,
            None if trusts is None else trusts.split(counts),
        )

    def _trusts(self, shared: Tensor, rcnn_test_cfg: Any) -> Tensor | None:
        """Factors (R, E) on the scores: the gate's weight over the largest among the experts that are asked."""
        gated = rcnn_test_cfg.get("gated", self.gate is not None)
        if not gated:
            return None
        if self.gate is None:
            raise InputError("test_cfg.rcnn.gated: True, but roi_head has no gate; set gate=dict(type='ExpertGate')")
        weights = self.gate(shared)
        return weights / weights[:, self.bbox_head.chosen(rcnn_test_cfg)].amax(1, keepdim=True)
