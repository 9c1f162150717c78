"""A detector that mines unmarked lesions while it is trained."""

from __future__ import annotations

from copy import deepcopy
from typing import Any, Literal, get_args

import torch
from mmdet.models.detectors import BaseDetector, SemiBaseDetector
from mmdet.structures import DetDataSample, SampleList
from mmdet.structures.bbox import bbox_overlaps
from mmengine.structures import InstanceData
from torch import Tensor

from mmpluld.errors import InputError
from mmpluld.models.data_preprocessors import SliceStacks
from mmpluld.models.progress import has_begun
from mmpluld.registry import MODELS

__all__ = ["MeanTeacherDetector", "sure_and_doubtful"]

Role = Literal["teacher", "student"]
OverlapMode = Literal["iou", "iof"]
_LEAST_SIDE = 1.0  # pixels; a box regressed to nothing has no size to learn from


@MODELS.register_module()
class MeanTeacherDetector(SemiBaseDetector):
    """A student that learns from partial labels and from what its teacher finds beside them.

    The teacher, of the same kind, is the moving average of the student that mmdet's ``MeanTeacherHook`` makes, with
    ``skip_buffer=False`` where the statistics of batch normalisation are trained. It examines each training image as
    the student sees it. What it finds with a score of at least ``sure_thr`` joins the truth of the image, what scores
    from ``doubtful_thr`` on joins its ignored boxes. Found boxes that overlap a given one, annotated or ignored, are
    left out, and doubtful ones that overlap a sure one; given boxes stay as they are.

    Args:
        detector: Config of a detector that is trained by boxes and labels, any of mmdet's; its data preprocessor
            serves all. Both start from its ``init_cfg``.
        begin: Share of the training, from its first step, with the given labels alone, before the teacher is asked, in
            [0, 1). mmengine's runner counts the steps.
        sure_thr: Least score of a found lesion, in [0, 1].
        doubtful_thr: Least score of a found box that is ignored, in [0, ``sure_thr``].
        overlap: What the overlap of a found box and another is divided by: ``iou`` the union, ``iof`` the found box.
        overlap_thr: A found box overlaps another if by more than this, in [0, 1).
        predict_on: Who is validated and tested, ``teacher`` or ``student``.
        init_cfg: MMEngine initialisation of the whole.

    Raises:
        InputError: If a setting is not allowed; in training, if the truth has more than boxes and labels.

    Source: after "An End-to-End Framework for Universal Lesion Detection with Missing Annotations", Bai and Xia, 2023.
    The thresholds, the time before, and that doubtful boxes are ignored at their place are ours.
    """

    def __init__(
        self,
        detector: dict,
        begin: float = 0.0,
        sure_thr: float = 0.7,
        doubtful_thr: float = 0.3,
        overlap: OverlapMode = "iou",
        overlap_thr: float = 0.0,
        predict_on: Role = "teacher",
        init_cfg: dict | None = None,
    ) -> None:
        _check(begin, sure_thr, doubtful_thr, overlap, overlap_thr, predict_on)
        super().__init__(
            deepcopy(detector),  # mmdet's detectors write into their config while they are built
            semi_train_cfg={"freeze_teacher": True},
            semi_test_cfg={"predict_on": predict_on, "forward_on": predict_on, "extract_feat_on": predict_on},
            data_preprocessor=deepcopy(detector.get("data_preprocessor")),
            init_cfg=init_cfg,
        )
        self.begin = begin
        self.sure_thr = sure_thr
        self.doubtful_thr = doubtful_thr
        self.overlap = overlap
        self.overlap_thr = overlap_thr
        self.predict_on = predict_on

    @property
    def tested(self) -> BaseDetector:
        """The detector that answers in a test, which is complete without the other."""
        return self.teacher if self.predict_on == "teacher" else self.student

    # The base class takes one loss on labelled and one on unlabelled images, from loaders of their own. Here the labels
    # of each image are partial: both kinds of truth meet in one image and one loss, and there is one view, so nothing
    # is projected between views. Building, freezing, the test and loading are the base's.
    def loss(self, batch_inputs: Tensor | SliceStacks, batch_data_samples: SampleList) -> dict[str, Any]:
        """Losses of the student; ``mined_sure`` and ``mined_doubtful`` are boxes that were found per image."""
        found = {"mined_sure": 0.0, "mined_doubtful": 0.0}
        if has_begun(self.begin, "MeanTeacherDetector: begin"):
            batch_data_samples, found = self.get_pseudo_instances(batch_inputs, batch_data_samples)
        losses: dict[str, Any] = self.student.loss(batch_inputs, batch_data_samples)
        boxes = batch_data_samples[0].gt_instances.bboxes
        return losses | {name: boxes.new_tensor(count) for name, count in found.items()}

    @torch.no_grad()
    def get_pseudo_instances(
        self, batch_inputs: Tensor | SliceStacks, batch_data_samples: SampleList
    ) -> tuple[SampleList, dict[str, float]]:
        """The samples with what the teacher finds, and how many boxes per image were found, sure and doubtful."""
        self.teacher.eval()
        samples = self.teacher.predict(batch_inputs, batch_data_samples, rescale=False)
        counts = [self._join(sample) for sample in samples]
        sure, doubtful = (sum(numbers) / len(counts) for numbers in zip(*counts, strict=True))
        return samples, {"mined_sure": sure, "mined_doubtful": doubtful}

    def _join(self, sample: DetDataSample) -> tuple[int, int]:
        """Let a sample's found boxes join its given ones; returns how many are sure and how many doubtful."""
        given = sample.gt_instances
        ignored = sample.ignored_instances if "ignored_instances" in sample else given[:0]
        more = sorted({*given.keys(), *ignored.keys()} - {"bboxes", "labels"})
        if more:
            raise InputError(
                f"MeanTeacherDetector: the truth of an image has {', '.join(more)}, which found boxes lack; take a "
                "detector and a pipeline with boxes and labels alone"
            )
        sure, doubtful = sure_and_doubtful(
            sample.pred_instances,
            torch.cat([given.bboxes, ignored.bboxes]),
            self.sure_thr,
            self.doubtful_thr,
            self.overlap,
            self.overlap_thr,
        )
        sample.gt_instances = InstanceData.cat([given, sure])
        sample.ignored_instances = InstanceData.cat([ignored, doubtful])
        del sample.pred_instances
        return len(sure), len(doubtful)


def sure_and_doubtful(
    found: InstanceData,
    given: Tensor,
    sure_thr: float,
    doubtful_thr: float,
    overlap: OverlapMode = "iou",
    overlap_thr: float = 0.0,
) -> tuple[InstanceData, InstanceData]:
    """Those of a teacher's detections that become truth, and those that are ignored.

    Args:
        found: ``bboxes`` (N, 4), ``scores`` (N,) and ``labels`` (N,) of an image.
        given: (K, 4) boxes that it has already, in the same pixels.
        sure_thr, doubtful_thr, overlap, overlap_thr: See :class:`MeanTeacherDetector`.

    Returns:
        ``bboxes`` and ``labels`` of each; none has a side below a pixel.
    """

    def clear_of(boxes: Tensor, others: Tensor) -> Tensor:
        return (bbox_overlaps(boxes, others, mode=overlap) > overlap_thr).sum(dim=1) == 0

    boxes = found.bboxes.to(given)
    fits = clear_of(boxes, given) & (boxes[:, 2:] - boxes[:, :2] >= _LEAST_SIDE).all(dim=1)
    sure = fits & (found.scores >= sure_thr)
    doubtful = fits & (found.scores >= doubtful_thr) & ~sure & clear_of(boxes, boxes[sure])
    first, second = (InstanceData(bboxes=boxes[chosen], labels=found.labels[chosen]) for chosen in (sure, doubtful))
    return first, second


def _check(begin: float, sure: float, doubtful: float, overlap: str, overlap_thr: float, predict_on: str) -> None:
    """InputError unless the settings are allowed."""
    rules = (
        ("begin", begin, 0 <= begin < 1, "a share of the training, from 0 to below 1"),
        ("sure_thr", sure, 0 <= sure <= 1, "from 0 to 1"),
        ("doubtful_thr", doubtful, 0 <= doubtful <= sure, f"from 0 to sure_thr ({sure})"),
        ("overlap", overlap, overlap in get_args(OverlapMode), " or ".join(get_args(OverlapMode))),
        ("overlap_thr", overlap_thr, 0 <= overlap_thr < 1, "from 0 to below 1"),
        ("predict_on", predict_on, predict_on in get_args(Role), " or ".join(get_args(Role))),
    )
    for name, value, good, allowed in rules:
        if not good:
            raise InputError(f"MeanTeacherDetector: {name} is {value!r}; allowed is {allowed}")
