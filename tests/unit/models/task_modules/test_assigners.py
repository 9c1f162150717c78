"""Assignment with ignored regions."""

from __future__ import annotations

import pytest
import torch
from mmengine.structures import InstanceData

from mmpluld.registry import TASK_UTILS

PRIORS = [[0.0, 0, 10, 10], [0, 0, 10, 20], [50, 50, 60, 60]]


def boxes(*rows: list[float]) -> InstanceData:
    return InstanceData(bboxes=torch.tensor(rows).view(-1, 4), labels=torch.zeros(len(rows), dtype=torch.long))


def assign(gt: InstanceData, ignored: InstanceData | None, **changes: object) -> list[int]:
    config = {"type": "IgnoreAwareMaxIoUAssigner", "pos_iou_thr": 0.5, "neg_iou_thr": 0.5, **changes}
    priors = InstanceData(priors=torch.tensor(PRIORS))
    return TASK_UTILS.build(config).assign(priors, gt, ignored).gt_inds.tolist()


def test_ignored_region_without_ground_truth() -> None:
    assert assign(boxes(), boxes([0.0, 0, 10, 9])) == [-1, 0, 0]  # 90 % and 45 % of the first two priors
    assert assign(boxes(), boxes([0.0, 0, 10, 5])) == [0, 0, 0]  # 50 % is not more than 50 %
    assert assign(boxes(), boxes([0.0, 0, 10, 20]), ignore_wrt_candidates=False) == [0, -1, 0]


def test_ignored_region_with_ground_truth() -> None:
    assert assign(boxes([50.0, 50, 60, 60]), boxes([0.0, 0, 10, 9])) == [-1, 0, 1]


def test_priors_on_certain_lesions_stay_positive() -> None:
    # All three lie in the ignored box: the first is the lesion's, the others are left out.
    everywhere = boxes([-100.0, -100, 200, 200])
    assert assign(boxes([0.0, 0, 10, 10]), everywhere, neg_iou_thr=0.4) == [1, 1, -1]
    assert assign(boxes([0.0, 0, 10, 10]), everywhere, pos_iou_thr=0.7) == [1, -1, -1]


def test_share_of_the_ignored_box() -> None:
    assert assign(boxes(), boxes([0.0, 0, 10, 9]), ignore_wrt_candidates=False) == [-1, -1, 0]


def test_overlap_with_the_ignored_box() -> None:
    # Of the priors 10 x 10 and 10 x 20, the ignored box 10 x 6 covers 60 and 30 %, with IoU 0.6 and 0.3.
    ignored = boxes([0.0, 0, 10, 6])
    assert assign(boxes(), ignored) == [-1, 0, 0]
    assert assign(boxes(), ignored, ignore_iou_thr=0.3) == [-1, -1, 0]
    assert assign(boxes(), ignored, ignore_iou_thr=0.31) == [-1, 0, 0]
    assert assign(boxes(), ignored, ignore_iof_thr=-1, ignore_iou_thr=0.31) == [-1, 0, 0]
    assert assign(boxes(), ignored, ignore_iof_thr=-1, ignore_iou_thr=0.7) == [0, 0, 0]
    # A prior that is wholly inside a large ignored box has a small IoU with it: either rule is enough.
    assert assign(boxes(), boxes([-50.0, -50, 30, 30]), ignore_iou_thr=0.3) == [-1, -1, 0]
    # A positive stays one.
    assert assign(boxes([0.0, 0, 10, 20]), ignored, pos_iou_thr=0.6, ignore_iou_thr=0.3) == [-1, 1, 0]


@pytest.mark.parametrize("ignored", [None, boxes()])
def test_nothing_ignored(ignored: InstanceData | None) -> None:
    assert assign(boxes(), ignored) == [0, 0, 0]


def test_switched_off() -> None:
    assert assign(boxes(), boxes([0.0, 0, 10, 9]), ignore_iof_thr=-1) == [0, 0, 0]


def test_ground_truth_that_no_prior_touches_gets_none() -> None:
    # The stock class would give the sliver in front all three.
    sliver, lesion = [80.0, 0, 80.5, 30], [50.0, 50, 60, 60]
    for settings in ({}, {"min_pos_iou": 0.0}):
        assert assign(boxes(sliver, lesion), None, **settings) == [0, 0, 2]
        assert assign(boxes(lesion, sliver), None, **settings) == [0, 0, 1]
        assert assign(boxes(sliver), None, **settings) == [0, 0, 0]
        assert assign(boxes(sliver), boxes([0.0, 0, 10, 9]), **settings) == [-1, 0, 0]


def test_no_priors() -> None:
    config = {"type": "IgnoreAwareMaxIoUAssigner", "pos_iou_thr": 0.5, "neg_iou_thr": 0.5}
    result = TASK_UTILS.build(config).assign(InstanceData(priors=torch.zeros(0, 4)), boxes(), boxes([0.0, 0, 1, 1]))
    assert result.gt_inds.shape == (0,)
