"""Converted weights score as the published detectors do, which are written down here in plain float64."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData
from torch import Tensor
from torch.nn import functional as F

from mmpluld.engine.checkpoint import load_weights
from mmpluld.engine.config import find_config, load_config
from mmpluld.registry import MODELS, TASK_UTILS
from mmpluld.weights.alignshift import convert_alignshift

VARIANTS = ("a3d", "alignshift", "tsm", "25d")
THICKNESS_MM = 5.0
SIZE = 64


class PublishedDetector:
    """One image through a published detector; boxes name their last pixel, the background is class 0."""

    def __init__(self, published: SimpleNamespace, variant: str, weights: dict[str, Tensor]) -> None:
        self.published, self.variant = published, variant
        self.weights = {name: value.double() for name, value in weights.items()}

    def __getitem__(self, name: str) -> Tensor:
        return self.weights[name]

    def mix(self, name: str, x: Tensor) -> Tensor:
        """Slices of ``x`` (C, D, H, W) before a dense convolution."""
        fold, alpha = len(x) // 8, 1 - min(2 / THICKNESS_MM, 1)
        mixed = x.clone()
        if self.variant == "a3d":
            mixing = self[f"{name}.adaptive_align_weights"]
            for target in range(x.shape[1]):
                mixed[:, target] = sum(
                    mixing[source, target][:, None, None] * x[:, source] for source in range(len(mixing))
                )
        elif self.variant == "tsm":
            mixed[:fold] = F.pad(x[:fold, 1:], (0, 0, 0, 0, 0, 1))
            mixed[fold : 2 * fold] = F.pad(x[fold : 2 * fold, :-1], (0, 0, 0, 0, 1, 0))
        elif self.variant == "alignshift":
            mixed[:fold, :-1] = alpha * x[:fold, :-1] + (1 - alpha) * x[:fold, 1:]
            group = slice(fold, 2 * fold)
            mixed[group, 1:] = alpha * x[group, 1:] + (1 - alpha) * x[group, :-1]
        return mixed

    def conv(self, name: str, x: Tensor, **kwargs: int) -> Tensor:
        """A 2D convolution of every slice of (C, D, H, W)."""
        slices = F.conv2d(x.transpose(0, 1), self[f"{name}.weight"], **kwargs)
        return slices.transpose(0, 1)

    def norm_relu(self, name: str, x: Tensor) -> Tensor:
        mean, var, scale, shift = (
            self[f"{name}.{part}"][:, None, None, None] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return ((x - mean) / (var + 1e-5).sqrt() * scale + shift).clamp(min=0)

    def features(self, stack: Tensor) -> Tensor:
        """The fused map (C, H / 4, W / 4) of a stack (D, H, W)."""
        x = stack.double()
        x = x[:, None] if self.variant == "25d" else x[None]
        x = self.norm_relu("backbone.norm0", self.conv("backbone.conv0", x, stride=2, padding=3))
        x = F.max_pool2d(x, 3, 2, 1)
        maps = []
        for block, layers in enumerate(self.published.tiny.blocks, 1):
            for layer in range(1, layers + 1):
                name = f"backbone.denseblock{block}.denselayer{layer}"
                y = self.mix(f"{name}.conv1", self.norm_relu(f"{name}.norm1", x))
                y = self.norm_relu(f"{name}.norm2", self.conv(f"{name}.conv1", y))
                y = self.conv(f"{name}.conv2", self.mix(f"{name}.conv2", y), padding=1)
                x = torch.cat([x, y])
            reduced = x[:, 0]
            if self.variant != "25d":
                reduced = F.conv3d(x[None], self[f"backbone.reductionz{block}.reduction_z_conv.weight"])[0, :, 0]
            maps.append(reduced)
            if block < len(self.published.tiny.blocks):
                name = f"backbone.transition{block}"
                x = self.conv(f"{name}.conv", self.norm_relu(f"{name}.norm", x))
                x = F.avg_pool2d(x, 2)
        fused = torch.zeros(1, dtype=torch.float64)
        for level in (4, 3, 2):
            lateral = self.conv2d(f"backbone.lateral{level}", maps[level - 2])
            fused = lateral + (F.interpolate(fused[None], scale_factor=2)[0] if level < 4 else 0)
        return fused

    def conv2d(self, name: str, x: Tensor, **kwargs: int) -> Tensor:
        return F.conv2d(x[None], self[f"{name}.weight"], self[f"{name}.bias"], **kwargs)[0]

    def proposals(self, fused: Tensor) -> np.ndarray:
        x = self.conv2d("rpn_head.rpn_conv", fused, padding=1).clamp(min=0)
        scores = self.conv2d("rpn_head.rpn_cls", x).sigmoid().permute(1, 2, 0).reshape(-1).numpy()
        deltas = self.conv2d("rpn_head.rpn_reg", x).permute(1, 2, 0).reshape(-1, 4).numpy()
        boxes = self.published.decode(self.published.anchors(*fused.shape[1:]), deltas, SIZE, SIZE)
        return boxes[self.published.nms(boxes, scores, 0.7)[:300]]

    def pooled(self, fused: Tensor, boxes: np.ndarray, size: int) -> Tensor:
        return torch.tensor(np.stack([self.published.roi_align(fused.numpy(), box, size) for box in boxes]))

    def detect(self, fused: Tensor, score_thr: float) -> tuple[np.ndarray, np.ndarray]:
        """Boxes (N, 4), N at most 50, and their scores."""
        proposals = self.proposals(fused)
        x = self.pooled(fused, proposals, 7).flatten(1)
        for index in range(2):
            name = f"bbox_head.shared_fcs.{index}"
            x = F.linear(x, self[f"{name}.weight"], self[f"{name}.bias"]).clamp(min=0)
        logits = F.linear(x, self["bbox_head.fc_cls.weight"], self["bbox_head.fc_cls.bias"])
        deltas = F.linear(x, self["bbox_head.fc_reg.weight"], self["bbox_head.fc_reg.bias"])[:, 4:]
        scores = logits.softmax(1)[:, 1].numpy()
        boxes = self.published.decode(proposals, deltas.numpy() * [0.1, 0.1, 0.2, 0.2], SIZE, SIZE)
        boxes, scores = boxes[scores > score_thr], scores[scores > score_thr]
        kept = self.published.nms(boxes, scores, 0.5)[:50]
        return boxes[kept], scores[kept]

    def masks(self, fused: Tensor, boxes: np.ndarray) -> np.ndarray:
        """Lesion probabilities (N, 28, 28) over each box."""
        x = self.pooled(fused, boxes, 14)
        for index in range(4):
            name = f"mask_head.convs.{index}.conv"
            x = F.conv2d(x, self[f"{name}.weight"], self[f"{name}.bias"], padding=1).clamp(min=0)
        x = F.conv_transpose2d(x, self["mask_head.upsample.weight"], self["mask_head.upsample.bias"], stride=2)
        x = F.conv2d(x.clamp(min=0), self["mask_head.conv_logits.weight"], self["mask_head.conv_logits.bias"])
        return x[:, 1].sigmoid().numpy()


@pytest.fixture(scope="module")
def models(published: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """For each variant the published detector and ours with its weights, three slices."""
    folder, found = tmp_path_factory.mktemp("converted"), {}
    for variant in VARIANTS:
        weights = published.weights(variant, 3, seed=3)
        # Features of order 1, so that scores do not saturate and boxes spread over the image.
        spread = PublishedDetector(published, variant, weights).features(stack()).std().float()
        for name in weights:
            if "lateral" in name:
                weights[name] /= spread
        torch.save(published.checkpoint(weights), folder / "published.pth")
        config = published.tiny_config(find_config(f"legacy-{variant}_densenet121-fpn_3s_deeplesion").path, folder)
        operator = variant if variant in ("alignshift", "tsm") else None
        convert_alignshift(folder / "published.pth", folder / f"{variant}.pth", operator=operator, config=config)
        with DefaultScope.overwrite_default_scope("mmpluld"):
            model = MODELS.build(load_config(config).model).eval()
        load_weights(model, folder / f"{variant}.pth")
        found[variant] = PublishedDetector(published, variant, weights), model
    return found


def stack() -> Tensor:
    """Three slices (3, 64, 64) in the range of the window."""
    return torch.rand(3, SIZE, SIZE, generator=torch.Generator().manual_seed(1)) * 255 - 50


def batch() -> dict:
    """The stack as the test pipeline hands it to a model."""
    meta = {"img_shape": (SIZE, SIZE), "ori_shape": (SIZE, SIZE), "scale_factor": (1.0, 1.0)}
    return {"inputs": [stack()], "data_samples": [DetDataSample(metainfo={**meta, "slice_interval_mm": THICKNESS_MM})]}


def predict(model: torch.nn.Module) -> InstanceData:
    with torch.no_grad():
        (result,) = model.test_step(batch())
    return result.pred_instances


@pytest.mark.parametrize("training_path", [True, False], ids=["plain", "fused"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_features(models: dict, variant: str, training_path: bool) -> None:
    reference, model = models[variant]
    inputs = model.data_preprocessor(batch())["inputs"]
    with torch.set_grad_enabled(training_path):  # without gradients the backbone takes its fast path
        (fused,) = model.extract_feat(inputs)
    expected = reference.features(stack())
    scale = float(expected.abs().max())
    np.testing.assert_allclose(fused[0].detach().numpy() / scale, expected.numpy() / scale, atol=2e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_boxes_scores_and_masks(models: dict, variant: str) -> None:
    """Ours are the published boxes with the far edge at the end of their last pixel: the only +1 of the whole chain."""
    reference, model = models[variant]
    fused = reference.features(stack())
    score_thr = model.test_cfg.rcnn.score_thr
    boxes, scores = reference.detect(fused, score_thr)
    found = predict(model)
    assert len(found) == len(boxes) > 5
    np.testing.assert_allclose(found.scores.numpy(), scores, atol=1e-5)
    np.testing.assert_allclose(found.bboxes.numpy(), boxes + [0, 0, 1, 1], atol=2e-3)
    np.testing.assert_allclose(found.mask_probs.numpy(), reference.masks(fused, boxes), atol=1e-4)


@pytest.mark.parametrize("part", ["anchor_generator", "bbox_coder", "bbox_roi_extractor"])
def test_every_part_of_the_preset_counts(models: dict, part: str) -> None:
    """The comparison above would notice if mmdet's own part were there instead."""
    _, model = models["a3d"]
    expected = predict(model)
    stock = load_config(find_config("a3d_densenet121-fpn_7s_20e_deeplesion")).model
    place, attribute, registry, config = {
        "anchor_generator": (model.rpn_head, "prior_generator", TASK_UTILS, stock.rpn_head.anchor_generator),
        "bbox_coder": (model.rpn_head, "bbox_coder", TASK_UTILS, stock.rpn_head.bbox_coder),
        "bbox_roi_extractor": (
            model.roi_head,
            "bbox_roi_extractor",
            MODELS,
            {**stock.roi_head.bbox_roi_extractor, "out_channels": 8},
        ),
    }[part]
    own = getattr(place, attribute)
    setattr(place, attribute, registry.build(config))
    try:
        found = predict(model)
    finally:
        setattr(place, attribute, own)
    assert len(found) == len(expected)
    assert float((found.scores - expected.scores).abs().max()) > 1e-3
