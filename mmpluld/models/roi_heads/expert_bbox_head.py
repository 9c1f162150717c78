"""A box head whose last layers exist once per dataset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmcv.ops import batched_nms
from mmdet.models.roi_heads.bbox_heads import Shared2FCBBoxHead
from mmengine.structures import InstanceData
from torch import Tensor, nn
from torch.nn import functional as F

from mmpluld.compat.half_precision import widened
from mmpluld.errors import InputError
from mmpluld.models.experts import check_datasets, join_experts
from mmpluld.models.normalizers import count_per_process
from mmpluld.registry import MODELS

__all__ = ["ExpertBBoxHead"]


@MODELS.register_module()
class ExpertBBoxHead(Shared2FCBBoxHead):
    """Two shared fully connected layers, then one class layer and one box layer for each dataset: its expert.

    In training the layers of the batch's dataset are used alone. In the test every expert scores and refines every
    region; all their layers run as one matrix product. Each expert's boxes are suppressed among themselves (``nms``
    of the test settings), then their union is (``fusion``).

    With ``calibrated`` of the test settings, the logit margin m of a class over background becomes ``scale * m + bias``
    of its expert before the softmax, which keeps the order within an expert. ``scale`` and ``bias`` are buffers (E,),
    1 and 0 until ``mmpluld calibrate`` fits them. Losses are means over the regions of all processes.

    Args:
        datasets: Names of the datasets, one expert each.
        **kwargs: As for mmdet's ``Shared2FCBBoxHead``; ``reg_class_agnostic=False`` and a softmax classification.

    Raises:
        InputError: If the names are unfit.

    Source: "Learning from Multiple Datasets with Heterogeneous and Partial Labels for Universal Lesion Detection in
    CT", 2020, Sec. IV-C. The calibration is not in the paper.
    """

    def __init__(self, datasets: Sequence[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.datasets = check_datasets(datasets, "ExpertBBoxHead")
        for layer in ("fc_cls", "fc_reg"):
            first = getattr(self, layer)
            others = [nn.Linear(first.in_features, first.out_features) for _ in self.datasets[1:]]
            setattr(self, layer, nn.ModuleDict(zip(self.datasets, [first, *others], strict=True)))
        self.register_buffer("scale", torch.ones(len(self.datasets)))
        self.register_buffer("bias", torch.zeros(len(self.datasets)))

    def shared_features(self, x: Tensor) -> Tensor:
        """Region features (R, C, size, size) to (R, fc_out_channels), what all experts read."""
        x = (self.avg_pool(x) if self.with_avg_pool else x).flatten(1)
        for layer in self.shared_fcs:
            x = self.relu(layer(x))
        return x

    def outputs(self, shared: Tensor, dataset: str | None = None) -> tuple[Tensor, Tensor]:
        """Class logits (R, classes + 1) and box deltas (R, 4 * classes) of an expert, or of all side by side."""
        if dataset is not None:
            return self.fc_cls[dataset](shared), self.fc_reg[dataset](shared)
        layers = [*self.fc_cls.values(), *self.fc_reg.values()]
        joined = F.linear(shared, torch.cat([x.weight for x in layers]), torch.cat([x.bias for x in layers]))
        logits = len(self.datasets) * (self.num_classes + 1)
        return joined[:, :logits], joined[:, logits:]

    def forward(self, x: Tensor, dataset: str | None = None) -> tuple[Tensor, Tensor]:
        """``outputs`` of the ``shared_features`` of ``x``."""
        return self.outputs(self.shared_features(x), dataset)

    def loss(
        self,
        cls_score: Tensor,
        bbox_pred: Tensor | None,
        rois: Tensor,
        *targets: Tensor,
        reduction_override: str | None = None,
        **kwargs: Any,
    ) -> dict[str, Tensor]:
        """mmdet's losses of one expert's outputs, divided by the regions per process instead of by the own ones."""
        losses = super().loss(cls_score, bbox_pred, rois, *targets, reduction_override=reduction_override, **kwargs)
        if reduction_override is None:
            share = len(cls_score) / count_per_process(len(cls_score), cls_score)
            losses = {key: value * share if "loss" in key else value for key, value in losses.items()}
        return losses

    def predict_by_feat(
        self,
        rois: Sequence[Tensor],
        cls_scores: Sequence[Tensor],
        bbox_preds: Sequence[Tensor],
        batch_img_metas: list[dict],
        rcnn_test_cfg: Any = None,
        rescale: bool = False,
        trusts: Sequence[Tensor | None] | None = None,
    ) -> list[InstanceData]:
        """Detections of each image from the outputs of all experts side by side.

        Args:
            rois, cls_scores, bbox_preds: Of each image: regions (R, 5) and what ``outputs`` gives for them.
            batch_img_metas: Of each image ``img_shape``, and ``scale_factor`` if ``rescale``.
            rcnn_test_cfg: ``score_thr``, ``nms``, ``max_per_img``; ``fusion``, settings of the suppression over all
                experts; ``experts``, names of those to ask (all by default); ``calibrated``, whether to apply
                ``scale`` and ``bias`` (not by default); ``unfused``, see ``join_experts`` (not by default).
            rescale: Return pixels of the original image.
            trusts: Of each image (R, E), factors on the experts' scores in [0, 1]; see ``ExpertGate``.

        Returns:
            ``bboxes``, ``scores``, ``labels`` and ``expert`` (number in ``datasets``) of each image, best first; with
            ``unfused`` all boxes that go into the fusion.

        Raises:
            InputError: If ``experts`` is no list or names one that is not there, or ``calibrated`` is set and nothing
                was fitted.
        """
        chosen = self.chosen(rcnn_test_cfg)
        calibrated = rcnn_test_cfg.get("calibrated", False)
        if calibrated:
            self._check_fitted()
        results = []
        for i, meta in enumerate(batch_img_metas):
            scores = cls_scores[i].unflatten(1, (len(self.datasets), -1))
            deltas = bbox_preds[i].unflatten(1, (len(self.datasets), -1))
            groups = []
            for e in chosen:
                logits = self._calibrated(scores[:, e], e) if calibrated else scores[:, e]
                own = deltas[:, e].contiguous()  # with several classes mmdet's decoding takes a view of it
                # Without test settings mmdet's method decodes and applies the softmax only.
                raw = self._predict_by_feat_single(rois[i], logits, own, meta, rescale, rcnn_test_cfg=None)
                trust = None if trusts is None else trusts[i]
                factor = None if trust is None else trust[:, e, None]
                groups.append(self._group(raw, factor, rcnn_test_cfg))
            fusion = rcnn_test_cfg.get("fusion", rcnn_test_cfg.nms)
            unfused = rcnn_test_cfg.get("unfused", False)
            results.append(join_experts(groups, fusion, rcnn_test_cfg.max_per_img, chosen, unfused))
        return results

    def chosen(self, rcnn_test_cfg: Any) -> list[int]:
        """Numbers of the experts that the test settings ask.

        Raises:
            InputError: If ``experts`` is no list, or names one that is not there.
        """
        names = rcnn_test_cfg.get("experts") or self.datasets
        if not isinstance(names, (list, tuple)):
            known = ", ".join(self.datasets)
            raise InputError(f"test_cfg.rcnn.experts is {names!r}; allowed is a list of names out of {known}")
        for name in names:
            if name not in self.datasets:
                raise InputError(f"experts: {name!r} is not one of {', '.join(self.datasets)}")
        return [self.datasets.index(name) for name in names]

    def _check_fitted(self) -> None:
        # `mmpluld calibrate` writes no checkpoint in which all of them still have their start values.
        if ((self.scale == 1) & (self.bias == 0)).all():
            raise InputError(
                "test_cfg.rcnn.calibrated: True, but scale and bias of the experts are not fitted in these weights; "
                "run `mmpluld calibrate CONFIG CHECKPOINT OUT` and take OUT"
            )

    def _calibrated(self, logits: Tensor, expert: int) -> Tensor:
        """Logits (R, classes + 1) of an expert with calibrated margins over background, the last column."""
        background = logits[:, -1:]
        margins = self.scale[expert] * (logits[:, :-1] - background) + self.bias[expert]
        return torch.cat([background + margins, background], 1)

    def _group(self, raw: InstanceData, factor: Tensor | None, cfg: Any) -> InstanceData:
        """One expert's boxes after its own threshold and suppression; classes apart."""
        scores = raw.scores[:, : self.num_classes]
        scores = (scores if factor is None else scores * factor).flatten()
        boxes = raw.bboxes.reshape(-1, 4)
        labels = torch.arange(self.num_classes, device=scores.device).repeat(len(raw.scores))
        kept = scores > cfg.score_thr
        boxes, scores, labels = boxes[kept], scores[kept], labels[kept]
        if len(boxes):
            dets, order = batched_nms(widened(boxes), widened(scores), labels, cfg.nms)
            boxes, scores, labels = boxes[order], dets[:, -1], labels[order]
        return InstanceData(bboxes=boxes, scores=scores, labels=labels)
