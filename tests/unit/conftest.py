"""The published AlignShift code as a reference: its checkpoints, of any size, and its arithmetic on inclusive boxes."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

SCALES, RATIOS, STRIDE = (4, 6, 8, 12, 24, 48), (0.5, 1.0, 2.0), 4

CONFIG_TEXT = """
import os; os.system('touch executed')  # a config is a program; here it is only looked at
model = dict(
    type='{detector}',
    backbone=dict(type='{backbone}', n_cts=7),  # type='TSMDetector' and type='AlignDetector' in a comment
    bbox_roi_extractor=dict(roi_layer=dict(type='RoIAlign', out_size=7, sample_num=2)))
"""


@dataclass(frozen=True)
class Sizes:
    """Widths of a detector; the defaults are the published ones."""

    blocks: tuple[int, ...] = (6, 12, 24)
    growth: int = 32
    bottleneck: int = 128
    stem: int = 64
    fused: int = 512
    anchors: int = 18
    fc: int = 2048
    mask: int = 256
    roi: int = 7


TINY = Sizes(blocks=(2, 1, 2), growth=4, bottleneck=8, stem=8, fused=8, fc=16, mask=4)


@pytest.fixture(scope="session")
def published() -> SimpleNamespace:
    """Functions that write what the published code writes and compute what it computes."""
    return SimpleNamespace(
        tiny=TINY,
        layout=layout,
        weights=weights,
        checkpoint=checkpoint,
        tiny_config=tiny_config,
        anchors=anchors,
        encode=encode,
        decode=decode,
        iou=iou,
        nms=nms,
        roi_align=roi_align,
    )


# ------------------------------------------------------------------------------------------------ checkpoints
def layout(variant: str, num_slices: int, sizes: Sizes = Sizes()) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the state dict of a detector: a3d, alignshift, tsm or 25d."""
    shapes: dict[str, tuple[int, ...]] = {}

    def norm(name: str, channels: int) -> None:
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.{part}"] = (channels,)
        shapes[f"{name}.num_batches_tracked"] = ()

    def conv(name: str, out: int, channels: int, kernel: int, mixing: int) -> None:
        shapes[f"{name}.weight"] = (out, channels, kernel, kernel)
        if variant == "a3d":
            shapes[f"{name}.adaptive_align_weights"] = (mixing, mixing, channels)

    def affine(name: str, shape: tuple[int, ...], outputs: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = shape, (outputs,)

    conv("backbone.conv0", sizes.stem, num_slices if variant == "25d" else 1, 7, mixing=3)
    norm("backbone.norm0", sizes.stem)
    channels, maps = sizes.stem, []
    for block, layers in enumerate(sizes.blocks, 1):
        for layer in range(1, layers + 1):
            name = f"backbone.denseblock{block}.denselayer{layer}"
            norm(f"{name}.norm1", channels)
            conv(f"{name}.conv1", sizes.bottleneck, channels, 1, mixing=num_slices)
            norm(f"{name}.norm2", sizes.bottleneck)
            conv(f"{name}.conv2", sizes.growth, sizes.bottleneck, 3, mixing=num_slices)
            channels += sizes.growth
        maps.append(channels)
        if variant != "25d":
            shapes[f"backbone.reductionz{block}.reduction_z_conv.weight"] = (channels, channels, num_slices, 1, 1)
        if block < len(sizes.blocks):
            norm(f"backbone.transition{block}.norm", channels)
            conv(f"backbone.transition{block}.conv", channels // 2, channels, 1, mixing=3)
            channels //= 2
    for index, width in enumerate(maps, 2):
        affine(f"backbone.lateral{index}", (sizes.fused, width, 1, 1), sizes.fused)
    affine("rpn_head.rpn_conv", (sizes.fused, sizes.fused, 3, 3), sizes.fused)
    affine("rpn_head.rpn_cls", (sizes.anchors, sizes.fused, 1, 1), sizes.anchors)
    affine("rpn_head.rpn_reg", (4 * sizes.anchors, sizes.fused, 1, 1), 4 * sizes.anchors)
    affine("bbox_head.shared_fcs.0", (sizes.fc, sizes.fused * sizes.roi**2), sizes.fc)
    affine("bbox_head.shared_fcs.1", (sizes.fc, sizes.fc), sizes.fc)
    affine("bbox_head.fc_cls", (2, sizes.fc), 2)
    affine("bbox_head.fc_reg", (8, sizes.fc), 8)
    for index in range(4):
        affine(f"mask_head.convs.{index}.conv", (sizes.mask, sizes.mask if index else sizes.fused, 3, 3), sizes.mask)
    affine("mask_head.upsample", (sizes.mask, sizes.mask, 2, 2), sizes.mask)
    affine("mask_head.conv_logits", (2, sizes.mask, 1, 1), 2)
    return shapes


def weights(variant: str, num_slices: int, sizes: Sizes = TINY, seed: int = 0) -> OrderedDict[str, torch.Tensor]:
    """Random weights of sane scale; slice mixing is asymmetric, so that an exchange of its two slice axes shows."""
    generator = torch.Generator().manual_seed(seed)
    result: OrderedDict[str, torch.Tensor] = OrderedDict()
    for name, shape in layout(variant, num_slices, sizes).items():
        noise = torch.randn(shape, generator=generator)
        if name.endswith("num_batches_tracked"):
            value = torch.tensor(9)
        elif name.endswith("running_var"):
            value = 1 + 0.2 * noise.abs()
        elif name.endswith("running_mean"):
            value = 0.2 * noise
        elif name.endswith("bias"):
            value = 0.1 * noise
        elif ".norm" in name:
            value = 1 + 0.2 * noise
        elif name.endswith("adaptive_align_weights"):
            value = 0.4 * noise
        else:
            value = noise * (2 / noise[0].numel()) ** 0.5
        result[name] = value
    return result


def checkpoint(state_dict: dict[str, torch.Tensor], detector: str = "MaskRCNN", backbone: str = "Trunc") -> dict:
    """The dict around the weights: metadata with the text of a config, and an optimiser."""
    return {
        "meta": {
            "mmdet_version": "1.0rc1",
            "config": CONFIG_TEXT.format(detector=detector, backbone=backbone),
            "CLASSES": "lesion",
            "epoch": 20,
            "iter": 100,
            "time": "Mon Sep 6 10:00:00 2021",
        },
        "state_dict": state_dict,
        "optimizer": {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": [{"lr": 0.02}]},
    }


def tiny_config(base: Path, folder: Path) -> Path:
    """Write ``base``, a config of the zoo, with the widths of ``TINY``, as a user would."""
    path = folder / f"tiny-{base.name}"
    path.write_text(
        f"""
_base_ = {str(base)!r}
model = dict(
    backbone=dict(growth_rate=4, bn_size=2, block_config=(2, 1, 2), stem_channels=8),
    neck=dict(in_channels=(16, 12, 14), out_channels=8),
    rpn_head=dict(in_channels=8, feat_channels=8),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=8),
        bbox_head=dict(in_channels=8, fc_out_channels=16),
        mask_roi_extractor=dict(out_channels=8),
        mask_head=dict(in_channels=8, conv_out_channels=4),
    ),
)
"""
    )
    return path


# ----------------------------------------------------------------- arithmetic; boxes name their last pixel
def anchors(height: int, width: int) -> np.ndarray:
    """(height * width * 18, 4): whole-numbered corners around multiples of the stride, all scales of a ratio first."""
    base = []
    for ratio in RATIOS:
        for scale in SCALES:
            half_w = np.round(0.5 * (4 * scale / np.sqrt(ratio) - 1))
            half_h = np.round(0.5 * (4 * scale * np.sqrt(ratio) - 1))
            base.append([-half_w, -half_h, half_w, half_h])
    cells = [[STRIDE * x, STRIDE * y, STRIDE * x, STRIDE * y] for y in range(height) for x in range(width)]
    return np.concatenate([np.zeros((0, 4)), *(np.array(base) + np.array(cell) for cell in cells)])


def encode(boxes: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Deltas of centre and logarithmic size from boxes (N, 4) to truth (N, 4)."""
    size, true_size = boxes[:, 2:] - boxes[:, :2] + 1, truth[:, 2:] - truth[:, :2] + 1
    centre, true_centre = (boxes[:, :2] + boxes[:, 2:]) / 2, (truth[:, :2] + truth[:, 2:]) / 2
    return np.hstack([(true_centre - centre) / size, np.log(true_size / size)])


def decode(boxes: np.ndarray, deltas: np.ndarray, height: int, width: int) -> np.ndarray:
    """Boxes (N, 4) moved by deltas (N, 4) and clipped to pixels of the image."""
    size, centre = boxes[:, 2:] - boxes[:, :2] + 1, (boxes[:, :2] + boxes[:, 2:]) / 2
    limit = abs(np.log(16 / 1000))
    new_size = size * np.exp(np.clip(deltas[:, 2:], -limit, limit))
    new_centre = centre + size * deltas[:, :2]
    decoded = np.hstack([new_centre - new_size / 2 + 0.5, new_centre + new_size / 2 - 0.5])
    return np.clip(decoded, 0, [width - 1, height - 1, width - 1, height - 1])


def iou(one: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Overlap of one box with others (N, 4)."""
    inside = np.minimum(one[2:], others[:, 2:]) - np.maximum(one[:2], others[:, :2]) + 1
    common = np.maximum(inside, 0).prod(1)
    return common / ((one[2:] - one[:2] + 1).prod() + (others[:, 2:] - others[:, :2] + 1).prod(1) - common)


def nms(boxes: np.ndarray, scores: np.ndarray, iou_thr: float) -> list[int]:
    """Indices of the boxes that no better one overlaps by more than ``iou_thr``, best first."""
    order, kept = np.argsort(-scores, kind="stable"), []
    while len(order):
        best, order = order[0], order[1:]
        kept.append(int(best))
        order = order[iou(boxes[best], boxes[order]) <= iou_thr]
    return kept


def roi_align(feature: np.ndarray, box: np.ndarray, size: int) -> np.ndarray:
    """(C, size, size) from (C, H, W): 2 x 2 samples per bin from x1 / stride to (x2 + 1) / stride, no least size."""
    start, end = box[:2] / STRIDE, (box[2:] + 1) / STRIDE
    bins = np.maximum(end - start, 0) / size
    steps = (np.arange(2 * size) + 0.5) / 2
    rows = _interpolation(start[1] + steps * bins[1], feature.shape[1])
    columns = _interpolation(start[0] + steps * bins[0], feature.shape[2])
    samples = rows @ feature @ columns.T
    return samples.reshape(len(feature), size, 2, size, 2).mean((2, 4))


def _interpolation(positions: np.ndarray, length: int) -> np.ndarray:
    """(P, length) weights that read positions on a line of cells: constant up to a cell beyond its ends, then 0."""
    weights = np.zeros((len(positions), length))
    for row, position in zip(weights, positions, strict=True):
        if -1 <= position <= length:
            position = min(max(position, 0.0), length - 1.0)
            low = math.floor(position)
            row[low] += low + 1 - position
            row[min(low + 1, length - 1)] += position - low
    return weights
