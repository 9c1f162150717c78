"""LENS' detector as one writes it down first: the reference of the volume benchmark for speed and equality.

The images of a stack are a batch of a 2D DenseNet with separate convolutions, batch norms and concatenations; the
pyramid of each image is built, all three are joined and fused; the proposal head is mmdet's, with distances in every
cell; each stack is loaded on its own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mmpluld.inference import VolumeDetector
from mmpluld.models.dense_heads import AFPHead


def _norm_relu(norm: Any, x: Tensor) -> Tensor:
    return F.relu(F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias))


def plain_backbone(model: Any, stacks: Tensor) -> list[Tensor]:
    """Maps (B * D, C_i, H_i, W_i) of the D images of each of B stacks, finest first, with a LensDenseNet's weights."""
    count, centre = model.depth, model.depth // 2
    x = F.conv2d(stacks.unflatten(1, (count, -1)).flatten(0, 1), model.conv0.weight, stride=2, padding=3)
    x = F.max_pool2d(_norm_relu(model.norm0, x), 3, stride=2, padding=1)
    maps = []
    for number in range(1, model.num_blocks + 1):
        features = [x]
        for layer in getattr(model, f"denseblock{number}").children():
            hidden = F.conv2d(_norm_relu(layer.norm1, torch.cat(features, 1)), layer.conv1.weight)
            features.append(F.conv2d(_norm_relu(layer.norm2, hidden), layer.conv2.weight, padding=1))
        maps.append(torch.cat(features, 1))
        if number == model.num_blocks:
            return maps
        transition = getattr(model, f"transition{number}")
        x = F.avg_pool2d(F.conv2d(_norm_relu(transition.norm, maps[-1]), transition.conv.weight), 2)
        if number == model.num_blocks - 1:
            images = x.unflatten(0, (-1, count)).clone()
            images[:, centre] = F.conv2d(images.flatten(1, 2), transition.mixer.weight, transition.mixer.bias)
            x = images.flatten(0, 1)
    return maps


def plain_neck(neck: Any, maps: list[Tensor]) -> Tensor:
    """The fused map (B, C, H, W) of such maps, with an ImageTopDownFusion's parameters."""
    fused: Tensor | None = None
    for name, x in reversed(list(zip(neck._laterals, maps, strict=True))):
        lateral = getattr(neck, name)
        level = F.conv2d(x, lateral.weight, lateral.bias)
        fused = level if fused is None else level + F.interpolate(fused, size=level.shape[-2:], mode="nearest")
    assert fused is not None
    return F.conv2d(fused.unflatten(0, (-1, neck.num_images)).flatten(1, 2), neck.fusion.weight, neck.fusion.bias)


def make_plain(detector: VolumeDetector) -> None:
    """Let a detector that shares nothing use the plain formulation, with the weights that it has."""
    model: Any = detector.model
    model.extract_feat = lambda stacks: (plain_neck(model.neck, plain_backbone(model.backbone, stacks)),)
    model.rpn_head.predict = super(AFPHead, model.rpn_head).predict
    detector.stacks._single = None
