"""The stem of ``TruncatedDenseNet`` with channels last, in which PyTorch pools several times as fast on a CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mmpluld.models.cpu.protocols import DenseNetLike

__all__ = ["run_stem", "slices_as_images"]


def run_stem(network: DenseNetLike, x: Tensor) -> Tensor:
    """Stem of ``x`` (B, slices, H, W), with gradients: (B, C, D, H / 4, W / 4), contiguous channel by channel."""
    batch, depth = x.shape[0], x.shape[1] // network.conv0.in_channels
    images = slices_as_images(x.flatten(0, 1), batch * depth)
    x = F.relu(network.norm0(network.conv0(images)), inplace=True)
    x = F.max_pool2d(x, 3, stride=2, padding=1)
    outermost: Tensor = ChannelsOutermost.apply(x)
    return outermost.unflatten(1, (batch, depth)).transpose(0, 1)


def slices_as_images(slices: Tensor, count: int) -> Tensor:
    """Slices (N, H, W) to ``count`` images (count, N / count, H, W), strides of channels last: pooling is fast then.

    PyTorch takes a single channel for channels last whatever its strides are, hence no change of memory format.
    """
    return torch.stack(slices.unflatten(0, (count, -1)).unbind(1), -1).permute(0, 3, 1, 2)


class ChannelsOutermost(torch.autograd.Function):
    """(N, C, H, W) with strides of channels last to contiguous (C, N, H, W), and gradients back.

    Both ways as transposes of a matrix; PyTorch's general copy between these layouts takes ten times as long on a CPU.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        pixels_by_channels = x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])
        return pixels_by_channels.t().contiguous().view(x.shape[1], x.shape[0], *x.shape[2:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        pixels_by_channels = grad.reshape(len(grad), -1).t().contiguous()
        return pixels_by_channels.view(*grad.shape[1:], -1).permute(0, 3, 1, 2)
