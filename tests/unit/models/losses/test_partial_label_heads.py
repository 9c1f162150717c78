"""The partial-label loss in mmdet's own heads, put there by config alone."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config, ConfigDict
from mmengine.optim import OptimWrapper
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmpluld.datasets.steps import num_slices
from mmpluld.engine.config import load_config
from mmpluld.registry import MODELS

pytestmark = pytest.mark.usefixtures("mmpluld_scope")


ANCHORS = {
    "type": "AnchorGenerator",
    "ratios": [1.0],
    "octave_base_scale": 4,
    "scales_per_octave": 1,
    "strides": [4, 8],
}
POINTS = {"type": "MlvlPointGenerator", "offset": 0, "strides": [4, 8]}
BODY = {"in_channels": 8, "feat_channels": 8}
NORM = {"stacked_convs": 1, "norm_cfg": {"type": "GN", "num_groups": 4}}
COMMON = {"allowed_border": -1, "pos_weight": -1, "debug": False}
IOU = {"type": "IgnoreAwareMaxIoUAssigner", "pos_iou_thr": 0.5, "neg_iou_thr": 0.4, "min_pos_iou": 0.0}
ATSS = {"train_cfg": {"assigner": {"type": "ATSSAssigner", "topk": 9}, **COMMON}, "loss_bbox": {"type": "GIoULoss"}}
FOCAL = {"type": "FocalLoss", "use_sigmoid": True}
QUALITY = {"type": "QualityFocalLoss", "use_sigmoid": True}
# name: config of the head, its argument that takes the loss, the stock loss
HEADS: dict[str, tuple[dict[str, Any], str, dict[str, Any]]] = {
    "RetinaHead": (
        {**BODY, "stacked_convs": 1, "anchor_generator": ANCHORS, "train_cfg": {"assigner": IOU, **COMMON}},
        "loss_cls",
        FOCAL,
    ),
    "ATSSHead": ({**BODY, **NORM, **ATSS, "anchor_generator": ANCHORS}, "loss_cls", FOCAL),
    "FCOSHead": ({**BODY, **NORM, "strides": [4, 8], "regress_ranges": ((-1, 16), (16, 1e8))}, "loss_cls", FOCAL),
    "GFLHead": ({**BODY, **NORM, **ATSS, "anchor_generator": ANCHORS}, "loss_cls", QUALITY),
    "RTMDetHead": (
        {
            **BODY,
            **NORM,
            "anchor_generator": POINTS,
            "bbox_coder": {"type": "DistancePointBBoxCoder"},
            "with_objectness": False,
            "loss_bbox": {"type": "GIoULoss"},
            "train_cfg": {"assigner": {"type": "DynamicSoftLabelAssigner", "topk": 9}, **COMMON},
        },
        "loss_cls",
        QUALITY,
    ),
    "CenterNetHead": (BODY, "loss_center_heatmap", {"type": "GaussianFocalLoss"}),
}


def wrap(loss: dict[str, Any], **changes: object) -> dict[str, Any]:
    flag = {"use_sigmoid": True} if "use_sigmoid" in loss else {}
    return {"type": "PartialLabelLoss", **flag, "loss": loss, **changes}


def boxes(*corners: list[float], label: int = 0) -> InstanceData:
    return InstanceData(
        bboxes=torch.tensor(corners).view(-1, 4), labels=torch.full((len(corners),), label, dtype=torch.long)
    )


def run_head(kind: str, loss: dict[str, Any], num_classes: int) -> tuple[dict[str, Tensor], list[Tensor]]:
    """Losses (summed over levels) of one image with a lesion and one without, and the gradients of all parameters."""
    body, key, _ = HEADS[kind]
    torch.manual_seed(0)
    head = MODELS.build(ConfigDict(copy.deepcopy({"type": kind, "num_classes": num_classes, **body, key: loss})))
    maps = [torch.randn(2, 8, 16, 16), torch.randn(2, 8, 8, 8)][: 1 if kind == "CenterNetHead" else 2]
    truth = [boxes([10.0, 12.0, 30.0, 34.0], label=num_classes - 1), boxes()]
    meta = {"img_shape": (64, 64), "pad_shape": (64, 64), "batch_input_shape": (64, 64)}
    found = head.loss_by_feat(*head(tuple(maps)), truth, [meta, meta])
    losses = {name: sum(value) if isinstance(value, list) else value for name, value in found.items()}
    sum(losses.values()).backward()
    return losses, [parameter.grad for parameter in head.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("num_classes", [1, 3])
@pytest.mark.parametrize("kind", HEADS)
def test_stock_heads(kind: str, num_classes: int) -> None:
    _, key, stock_loss = HEADS[kind]
    stock, stock_gradients = run_head(kind, stock_loss, num_classes)
    off, off_gradients = run_head(kind, wrap(stock_loss, neg_weight=1.0, keep_prob=1.0), num_classes)
    assert stock.keys() == off.keys()
    assert all(torch.equal(stock[name], off[name]) for name in stock)
    assert len(stock_gradients) == len(off_gradients) > 4
    assert all(map(torch.equal, stock_gradients, off_gradients))

    positives, _ = run_head(kind, wrap(stock_loss, neg_weight=0.0, keep_prob=1.0), num_classes)
    half, gradients = run_head(kind, wrap(stock_loss, neg_weight=0.5, keep_prob=1.0), num_classes)
    masked, _ = run_head(kind, wrap(stock_loss, neg_weight=1.0, keep_prob=0.5), num_classes)
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    assert 0 < positives[key] < 0.2 * stock[key]
    torch.testing.assert_close(half[key], (stock[key] + positives[key]) / 2)
    torch.testing.assert_close(masked[key], half[key], rtol=0.2, atol=0)
    for name in stock.keys() - {key}:  # boxes, centreness, offsets
        assert torch.equal(stock[name], half[name])


def rpn(loss_cls: dict[str, Any]) -> nn.Module:
    config = {
        "type": "RPNHead",
        **BODY,
        "anchor_generator": {"type": "AnchorGenerator", "scales": [4], "ratios": [1.0], "strides": [4]},
        "loss_cls": loss_cls,
        "train_cfg": {
            "assigner": {**IOU, "pos_iou_thr": 0.7, "neg_iou_thr": 0.3, "min_pos_iou": 0.3},
            "sampler": {"type": "RandomSampler", "num": 256, "pos_fraction": 0.5, "add_gt_as_proposals": False},
            **COMMON,
        },
    }
    return MODELS.build(ConfigDict(copy.deepcopy(config)))


def rpn_gradient(scores: Tensor, truth: InstanceData, ignored: InstanceData) -> Tensor:
    torch.manual_seed(0)
    head = rpn(wrap({"type": "CrossEntropyLoss", "use_sigmoid": True}, neg_weight=0.6, keep_prob=1.0))
    assert head.cls_out_channels == 1
    meta = {"img_shape": (64, 64), "pad_shape": (64, 64)}
    losses = head.loss_by_feat([scores], [torch.zeros(1, 4, 16, 16)], [truth], [meta], [ignored])
    return torch.autograd.grad(losses["loss_rpn_cls"][0], scores)[0][0, 0]


def test_polarity_in_the_proposal_network() -> None:
    truth = boxes([22.0, 22.0, 38.0, 38.0])  # anchors are 16 px wide and centred on multiples of 4: 28 and 32 match
    gradient = rpn_gradient(torch.zeros(1, 1, 16, 16, requires_grad=True), truth, boxes())
    lesion = gradient[7:9, 7:9]
    assert (lesion < 0).any() and (lesion <= 0).all()  # raising a lesion's logit lowers the loss
    assert (gradient > 0).sum() > 100  # raising a background logit raises it
    negatives = gradient[gradient > 0]
    torch.testing.assert_close(negatives / -gradient.min(), torch.full_like(negatives, 0.6))


def test_proposal_network_without_lesions_respects_ignored_regions() -> None:
    scores = torch.zeros(1, 1, 16, 16, requires_grad=True)
    gradient = rpn_gradient(scores, boxes(), boxes([-16.0, 0.0, 80.0, 32.0]))
    assert (gradient[2:7] == 0).all()
    assert (gradient[10:] > 0).sum() > 50


def test_a_head_that_would_add_a_background_channel_is_not_built() -> None:
    loss = wrap({"type": "CrossEntropyLoss", "use_sigmoid": True})
    del loss["use_sigmoid"]
    with pytest.raises(ValueError, match="write use_sigmoid=True beside type='PartialLabelLoss'"):
        rpn(loss)


def batch(size: int, num_slices: int) -> dict[str, Any]:
    samples = []
    for corners in ([20.0, 24.0, 36.0, 40.0], [8.0, 30.0, 30.0, 48.0]):
        sample = DetDataSample(
            metainfo={"img_shape": (size, size), "ori_shape": (size, size), "scale_factor": (1.0, 1.0)}
        )
        sample.gt_instances = boxes(corners)
        mask = np.zeros((1, size, size), np.uint8)
        mask[0, int(corners[1]) : int(corners[3]), int(corners[0]) : int(corners[2])] = 1
        sample.gt_instances.masks = BitmapMasks(mask, size, size)
        sample.ignored_instances = boxes()
        samples.append(sample)
    generator = torch.Generator().manual_seed(1)
    images = [torch.rand(num_slices, size, size, generator=generator) * 255 - 50 for _ in samples]
    return {"inputs": images, "data_samples": samples}


def trained(config: Config, iterations: int = 3) -> dict[str, Tensor]:
    """Parameters and buffers of the config's model after a few iterations from a fixed seed."""
    torch.manual_seed(0)
    model = MODELS.build(config.model)
    model.init_weights()
    model.train()
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9))
    for _ in range(iterations):
        model.train_step(batch(64, num_slices(config)), wrapper)
    return model.state_dict()


@pytest.mark.parametrize(
    ("leaf", "head"),
    [
        ("a3d_densenet121-fpn_7s_phantom", "rpn_head"),
        ("retinanet-a3d_densenet121-fpn_7s_phantom", "bbox_head"),
        ("fcos-a3d_densenet121-fpn_7s_phantom", "bbox_head"),
    ],
)
def test_detector_trains_the_same_bit_for_bit_when_switched_off(leaf: str, head: str) -> None:
    states = []
    for changes in (None, {"neg_weight": 1.0, "keep_prob": 1.0}, {}):
        config = load_config(leaf)
        if changes is not None:
            config.model[head].loss_cls = wrap(config.model[head].loss_cls.to_dict(), **changes)
        states.append(trained(config))
    stock, off, on = states
    assert all(torch.isfinite(value).all() for value in stock.values())
    assert stock.keys() == off.keys() == on.keys()
    assert all(torch.equal(stock[name], off[name]) for name in stock)
    different = [name for name in stock if not torch.equal(stock[name], on[name])]
    assert any(name.startswith("backbone.") for name in different)
