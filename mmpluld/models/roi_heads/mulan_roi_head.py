"""MULAN's heads put together: box, mask, tags and refinement on one set of regions."""

from __future__ import annotations

from typing import Any

import torch
from mmdet.models.layers import multiclass_nms
from mmdet.models.task_modules.samplers import SamplingResult
from mmdet.models.utils import unpack_gt_instances
from mmdet.structures import SampleList
from mmdet.structures.bbox import bbox2roi
from mmdet.utils import ConfigType, InstanceList
from mmengine.structures import InstanceData
from torch import Tensor

from mmpluld.errors import InputError
from mmpluld.models.roi_heads.lesion_roi_head import LesionRoIHead
from mmpluld.models.roi_heads.rescaling import rescale_boxes
from mmpluld.registry import MODELS

__all__ = ["MulanRoIHead"]


@MODELS.register_module()
class MulanRoIHead(LesionRoIHead):
    """``LesionRoIHead`` with a tag head and a layer that refines scores by tags.

    In training both see all sampled proposals; tags are learnt on the positive ones whose lesion has tags, from
    ``gt_instances.tags`` (N, T): 1, 0, or NaN throughout a row without tags. In testing they see the detections that
    are left after threshold, NMS and the limit of their number; the refined score replaces the detection's, without
    another NMS. Predicted instances get ``tag_scores`` (N, T) in [0, 1] and come by descending score.

    Args:
        tag_roi_extractor: Region features of the tag head.
        tag_head: The tag head.
        refine_head: The refining layer; None leaves scores and tags as they are.
        **kwargs: As for ``StandardRoIHead``.

    Source: "MULAN: Multitask Universal Lesion Analysis Network for Joint Lesion Detection, Tagging, and Segmentation",
    2019, Sec. 2; details from its code.
    """

    def __init__(
        self, tag_roi_extractor: ConfigType, tag_head: ConfigType, refine_head: ConfigType | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.tag_roi_extractor = MODELS.build(tag_roi_extractor)
        self.tag_head = MODELS.build(tag_head)
        self.refine_head = None if refine_head is None else MODELS.build(refine_head)

    def set_tag_statistics(self, counts: Tensor, num_lesions: int, exclusive: Tensor) -> None:
        """Hand the losses what they need to know of the training set, as ``TagStatisticsHook`` does.

        Args:
            counts: (T,) lesions with each tag.
            num_lesions: Lesions with known tags.
            exclusive: (T, T), bool: tags that exclude each other.

        Raises:
            InputError: If the data set has another number of tags than the head.
        """
        if len(counts) != self.tag_head.num_tags:
            raise InputError(
                f"tag_head.num_tags is {self.tag_head.num_tags}, but the training set has {len(counts)} tags; set "
                "num_tags of TagHead, RefineHead and LoadLesionTags to its number"
            )
        self.tag_head.loss_tag.set_counts(counts, num_lesions)
        self.tag_head.loss_hard.set_exclusive(exclusive)
        if self.refine_head is not None:
            self.refine_head.loss_tag.set_counts(counts, num_lesions)

    def loss(self, x: tuple[Tensor, ...], rpn_results_list: InstanceList, batch_data_samples: SampleList) -> dict:
        """Losses of all heads on sampled proposals.

        Raises:
            InputError: If the samples were loaded without tags.
        """
        truth, ignored, _ = unpack_gt_instances(batch_data_samples)
        if any("tags" not in instances for instances in truth):
            raise InputError(
                "MulanRoIHead: training samples have no tags; use LoadLesionTags and PackLesionInputs in the pipeline"
            )
        samples = []
        for proposals, own, uncertain in zip(rpn_results_list, truth, ignored, strict=True):
            proposals.priors = proposals.pop("bboxes")
            assigned = self.bbox_assigner.assign(proposals, own, uncertain)
            samples.append(self.bbox_sampler.sample(assigned, proposals, own))
        found = self.bbox_loss(x, samples)
        losses = dict(found["loss_bbox"])
        if self.with_mask:
            losses.update(self.mask_loss(x, samples, found["bbox_feats"], truth)["loss_mask"])
        boxes = [sample.priors for sample in samples]
        targets = self._tag_targets(samples, truth)
        logits = self._tag_forward(x, boxes)
        losses.update(self.tag_head.loss(logits, targets))
        if self.refine_head is not None:
            metas = [sample.metainfo for sample in batch_data_samples]
            refined = self.refine_head(found["cls_score"], logits, boxes, metas)
            labels = self.bbox_head.get_targets(samples, self.train_cfg)[0]
            losses.update(self.refine_head.loss(*refined, labels, targets))
        return losses

    def predict(
        self,
        x: tuple[Tensor, ...],
        rpn_results_list: InstanceList,
        batch_data_samples: SampleList,
        rescale: bool = False,
    ) -> InstanceList:
        """Detections of each image with tags and, where there is a mask head, masks; as for ``StandardRoIHead``."""
        metas = [sample.metainfo for sample in batch_data_samples]
        results = self.predict_bbox(x, metas, rpn_results_list, self.test_cfg)
        results = self.predict_tags(x, metas, results)
        if self.with_mask:
            return self.predict_mask(x, metas, results, rescale=rescale)
        if rescale:
            rescale_boxes(results, metas)
        return results

    def predict_bbox(
        self,
        x: tuple[Tensor, ...],
        batch_img_metas: list[dict[str, Any]],
        rpn_results_list: InstanceList,
        rcnn_test_cfg: ConfigType,
        rescale: bool = False,
    ) -> InstanceList:
        """As for ``StandardRoIHead``; detections also get the ``cls_logits`` (N, C + 1) of their proposal."""
        counts = [len(proposals) for proposals in rpn_results_list]
        if not sum(counts):
            results = super().predict_bbox(x, batch_img_metas, rpn_results_list, rcnn_test_cfg, rescale)
            for found in results:
                found.cls_logits = found.scores.new_zeros(0, self.bbox_head.num_classes + 1)
            return results
        rois = bbox2roi([proposals.bboxes for proposals in rpn_results_list])
        outputs = self._bbox_forward(x, rois)
        parts = [part.split(counts) for part in (rois, outputs["cls_score"], outputs["bbox_pred"])]
        results = []
        for roi, logits, deltas, meta in zip(*parts, batch_img_metas, strict=True):
            # Without test settings all boxes come back, before NMS.
            every = self.bbox_head._predict_by_feat_single(roi, logits, deltas, meta, rescale)
            boxes, labels, kept = multiclass_nms(
                every.bboxes,
                every.scores,
                rcnn_test_cfg.score_thr,
                rcnn_test_cfg.nms,
                rcnn_test_cfg.max_per_img,
                return_inds=True,
            )
            own = logits[kept // self.bbox_head.num_classes]
            results.append(InstanceData(bboxes=boxes[:, :4], scores=boxes[:, 4], labels=labels, cls_logits=own))
        return results

    def predict_tags(
        self, x: tuple[Tensor, ...], batch_img_metas: list[dict[str, Any]], results: InstanceList
    ) -> InstanceList:
        """Add ``tag_scores`` to detections in input pixels, refine their scores, and sort them."""
        boxes = [found.bboxes for found in results]
        cls_logits = torch.cat([found.pop("cls_logits") for found in results])
        counts = [len(found) for found in results]
        logits = self._tag_forward(x, boxes)
        refined = None
        if self.refine_head is not None:
            refined, logits = self.refine_head(cls_logits, logits, boxes, batch_img_metas)
            refined = refined.float().softmax(dim=1).split(counts)
        tags = logits.float().sigmoid().split(counts)
        for index, found in enumerate(results):
            found.tag_scores = tags[index]
            if refined is not None:
                found.scores = refined[index].gather(1, found.labels[:, None])[:, 0]
        return [found[found.scores.argsort(descending=True, stable=True)] for found in results]

    def _tag_forward(self, x: tuple[Tensor, ...], boxes: list[Tensor]) -> Tensor:
        """Tag logits (R, T) of the boxes of all images."""
        rois = bbox2roi(boxes)
        if not len(rois):
            return rois.new_zeros(0, self.tag_head.num_tags)
        logits: Tensor = self.tag_head(self.tag_roi_extractor(x[: self.tag_roi_extractor.num_inputs], rois))
        return logits

    def _tag_targets(self, samples: list[SamplingResult], truth: InstanceList) -> Tensor:
        """(R, T) tags of the lesion that each sampled proposal is on; NaN for the others."""
        rows = []
        for sample, instances in zip(samples, truth, strict=True):
            tags = instances.tags.float()
            unknown = tags.new_full((len(sample.neg_priors), self.tag_head.num_tags), float("nan"))
            rows += [tags[sample.pos_assigned_gt_inds], unknown]
        return torch.cat(rows)
