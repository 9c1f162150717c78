"""Fusion of the pyramids of several images into one map."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmpluld.models.cpu import PROJECT, on_cpu
from mmpluld.models.necks.top_down_fusion import TopDownFusion
from mmpluld.registry import MODELS

__all__ = ["ImageTopDownFusion"]


@MODELS.register_module()
class ImageTopDownFusion(TopDownFusion):
    """``TopDownFusion`` of each image, then one 1x1 convolution over the maps of all images of a stack.

    Both are linear, and enlarging by nearest neighbour commutes with 1x1 convolutions. So each lateral convolution is
    multiplied with the fusing one first, and the maps of the single images, three quarters of the memory and half of
    the arithmetic, are never made.

    Args:
        num_images: Images of a stack, as in ``LensDenseNet``.
        in_channels: Channels of the maps of one image, finest first.
        out_channels: Channels of the output map.
        init_cfg: As for ``TopDownFusion``; it covers the fusing convolution too.

    Shape:
        Input: a tuple of (B, C_i * num_images, H_i, W_i), finest first, as ``LensDenseNet`` returns them, each of which
        may also be a list of the images' (B, C_i, H_i, W_i). Output: a tuple of one (B, out_channels, H_0, W_0).

    Source: pyramid and "3D feature fusion" of LENS, 2020, Sec. IV-A, and MULAN, 2019; details from MULAN's code.
    """

    def __init__(
        self,
        num_images: int = 3,
        in_channels: Sequence[int] = (256, 512, 1024),
        out_channels: int = 512,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(in_channels, out_channels, init_cfg)
        self.num_images = num_images
        self.fusion = nn.Conv2d(num_images * out_channels, out_channels, 1)

    def forward(self, inputs: Sequence[Tensor | Sequence[Tensor]]) -> tuple[Tensor]:
        """Fuse ``inputs`` (finest first) into one map of the finest size."""
        laterals = [getattr(self, name) for name in self._laterals]
        by_image = self.fusion.weight.flatten(1).unflatten(1, (self.num_images, -1))  # (O, D, O)
        # At every pixel each lateral's bias arrives once from each image.
        bias = self.fusion.bias + by_image.sum(1) @ sum(lateral.bias for lateral in laterals)
        fused: Tensor | None = None
        for lateral, x in reversed(list(zip(laterals, inputs, strict=True))):
            level = self._project(x, by_image @ lateral.weight.flatten(1))
            if fused is None:
                fused = level + bias[:, None, None].to(level.dtype)
            else:
                fused = level + F.interpolate(fused, size=level.shape[-2:], mode="nearest")
        return (fused,)

    @on_cpu(PROJECT)
    def _project(self, x: Tensor | Sequence[Tensor], weight: Tensor) -> Tensor:
        """1x1 convolution (B, O, H, W) of the maps of all images with ``weight`` (O, D, C)."""
        stacked = x if isinstance(x, Tensor) else torch.stack(list(x), 2).flatten(1, 2)
        return F.conv2d(stacked, weight.transpose(1, 2).flatten(1)[:, :, None, None])  # channel before image
