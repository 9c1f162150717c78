"""The proposal head with the partial-label loss, end to end on its own loss function."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData

from mmpluld.models.dense_heads import RPNHead, expose_use_sigmoid
from mmpluld.registry import MODELS


@pytest.fixture(autouse=True)
def scope() -> Iterator[None]:
    """What ``default_scope = 'mmpluld'`` in a config does: mmdet's code finds this package's modules."""
    with DefaultScope.overwrite_default_scope("mmpluld"):
        yield


PARTIAL = {
    "type": "PartialLabelLoss",
    "loss": {"type": "CrossEntropyLoss", "use_sigmoid": True},
    "neg_weight": 0.6,
    "keep_prob": 1.0,
}


def build_head(kind: str, loss_cls: dict) -> torch.nn.Module:
    config = {
        "type": kind,
        "in_channels": 8,
        "feat_channels": 8,
        "anchor_generator": {"type": "AnchorGenerator", "scales": [4], "ratios": [1.0], "strides": [4]},
        "loss_cls": loss_cls,
        "train_cfg": {
            "assigner": {
                "type": "IgnoreAwareMaxIoUAssigner",
                "pos_iou_thr": 0.7,
                "neg_iou_thr": 0.3,
                "min_pos_iou": 0.3,
            },
            "sampler": {"type": "RandomSampler", "num": 256, "pos_fraction": 0.5, "add_gt_as_proposals": False},
            "allowed_border": -1,
            "pos_weight": -1,
            "debug": False,
        },
    }
    return MODELS.build(copy.deepcopy(config))


def instances(*boxes: list[float]) -> InstanceData:
    data = InstanceData()
    data.bboxes = torch.tensor(boxes).view(-1, 4)
    data.labels = torch.zeros(len(boxes), dtype=torch.long)
    return data


def classification_loss(
    head: torch.nn.Module, scores: torch.Tensor, gt: InstanceData, ignore: InstanceData
) -> torch.Tensor:
    deltas = torch.zeros(1, 4, *scores.shape[-2:])
    return head.loss_by_feat([scores], [deltas], [gt], [{"img_shape": (64, 64), "pad_shape": (64, 64)}], [ignore])[
        "loss_rpn_cls"
    ][0]


HEADS = [("RPNHead", PARTIAL), ("mmdet.RPNHead", {**PARTIAL, "use_sigmoid": True})]


@pytest.mark.parametrize(("kind", "loss_cls"), HEADS)
def test_polarity(kind: str, loss_cls: dict) -> None:
    torch.manual_seed(0)
    head = build_head(kind, loss_cls)
    assert head.cls_out_channels == 1
    scores = torch.zeros(1, 1, 16, 16, requires_grad=True)
    gt = instances([22.0, 22.0, 38.0, 38.0])  # anchors are 16 px wide and centred on multiples of 4: 28 and 32 match
    gradient = torch.autograd.grad(classification_loss(head, scores, gt, instances()), scores)[0][0, 0]
    lesion = gradient[7:9, 7:9]
    assert (lesion < 0).any() and (lesion <= 0).all()  # raising a lesion's logit lowers the loss
    assert (gradient > 0).sum() > 100  # raising a background logit raises it
    negatives = gradient[gradient > 0]
    torch.testing.assert_close(negatives / -gradient.min(), torch.full_like(negatives, 0.6))


def test_image_without_lesions_respects_ignored_regions() -> None:
    torch.manual_seed(0)
    head = build_head("RPNHead", PARTIAL)
    scores = torch.zeros(1, 1, 16, 16, requires_grad=True)
    loss = classification_loss(head, scores, instances(), instances([-16.0, 0.0, 80.0, 32.0]))
    gradient = torch.autograd.grad(loss, scores)[0][0, 0]
    assert (gradient[2:7] == 0).all()
    assert (gradient[10:] > 0).sum() > 50


def test_plain_loss_is_as_in_the_stock_head() -> None:
    plain = {"type": "CrossEntropyLoss", "use_sigmoid": True}
    heads = []
    for kind in ("RPNHead", "mmdet.RPNHead"):
        torch.manual_seed(0)
        heads.append(build_head(kind, plain))
    scores, gt = torch.randn(1, 1, 16, 16), instances([22.0, 22.0, 38.0, 38.0])
    values = []
    for head in heads:
        torch.manual_seed(1)
        values.append(classification_loss(head, scores, gt, instances()))
    assert torch.equal(*values)
    assert isinstance(heads[0], RPNHead)


def test_stock_head_without_the_flag_is_told() -> None:
    head = build_head("mmdet.RPNHead", PARTIAL)
    with pytest.raises(ValueError, match="write use_sigmoid=True beside type='PartialLabelLoss'"):
        classification_loss(head, torch.zeros(1, 2, 16, 16), instances([22.0, 22.0, 38.0, 38.0]), instances())


def test_expose_use_sigmoid_leaves_other_configs_alone() -> None:
    exposed = expose_use_sigmoid(PARTIAL)
    assert exposed["use_sigmoid"] is True
    assert "use_sigmoid" not in PARTIAL
    assert expose_use_sigmoid(exposed) is exposed
    plain = {"type": "CrossEntropyLoss"}
    assert expose_use_sigmoid(plain) is plain
