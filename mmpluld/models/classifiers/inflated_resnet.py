"""A ResNet of basic blocks on volumes, most of whose convolutions look at each slice alone."""

from __future__ import annotations

from collections.abc import Sequence

from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F

from mmpluld.errors import InputError
from mmpluld.registry import MODELS

__all__ = ["InflatedResNet"]


class InflatedBlock(nn.Module):
    """Two convolutions of depth x 3 x 3 with a shortcut; torchvision's basic block on volumes.

    Args:
        in_channels, channels: Of the input and of the output.
        depth: Kernel size of both convolutions along z, odd.
        stride: (z, y, x) of the first one.
    """

    def __init__(self, in_channels: int, channels: int, depth: int, stride: tuple[int, int, int]) -> None:
        super().__init__()
        kernel, padding = (depth, 3, 3), (depth // 2, 1, 1)
        self.conv1 = nn.Conv3d(in_channels, channels, kernel, stride, padding, bias=False)
        self.bn1 = nn.BatchNorm3d(channels)
        self.conv2 = nn.Conv3d(channels, channels, kernel, 1, padding, bias=False)
        self.bn2 = nn.BatchNorm3d(channels)
        self.downsample: nn.Module | None = None
        if stride != (1, 1, 1) or in_channels != channels:
            shortcut = nn.Conv3d(in_channels, channels, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm3d(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, D, H, W) -> (B, channels, D', H', W')."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(x)) + shortcut, inplace=True)


@MODELS.register_module()
class InflatedResNet(BaseModule):
    """ResNet whose kernels are 1 x 3 x 3 in its first three blocks and 3 x 3 x 3 in the last (LENS, sec. IV-D).

    The defaults are ResNet-18. The paper states the kernels of the four blocks; that the stem looks at each slice alone
    and that z keeps its resolution up to block 3 are ours. Names of the tensors are torchvision's.

    Args:
        in_channels: Channels of the input; a CT has one.
        channels: Of the stem and block 1; each further block has twice as many.
        num_blocks: Basic blocks of each of the four ResNet blocks.
        depths: Kernel sizes along z of the four, odd.
        z_strides: Strides along z of the four.
        stem_stride: In-plane stride of the stem's convolution of 1 x 7 x 7.
        stem_pool: Halve the resolution in plane once more behind it.
        init_cfg: Start weights, such as ``dict(type="ResNetImageNet", checkpoint=FILE)``; None: random.

    Attributes:
        out_channels: Channels of the four maps.
        strides: (z, y, x) of each of them.

    Raises:
        InputError: If a setting is not given four times, or a depth is even.
    """

    def __init__(
        self,
        in_channels: int = 1,
        channels: int = 64,
        num_blocks: Sequence[int] = (2, 2, 2, 2),
        depths: Sequence[int] = (1, 1, 1, 3),
        z_strides: Sequence[int] = (1, 1, 1, 2),
        stem_stride: int = 2,
        stem_pool: bool = True,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        for name, values in (("num_blocks", num_blocks), ("depths", depths), ("z_strides", z_strides)):
            if len(values) != 4 or min(values) < 1:
                raise InputError(f"InflatedResNet: {name} is {tuple(values)}; needed are four numbers from 1")
        if any(depth % 2 == 0 for depth in depths):
            raise InputError(f"InflatedResNet: depths are {tuple(depths)}; allowed are odd numbers")
        self.conv1 = nn.Conv3d(in_channels, channels, (1, 7, 7), (1, stem_stride, stem_stride), (0, 3, 3), bias=False)
        self.bn1 = nn.BatchNorm3d(channels)
        self.maxpool = nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)) if stem_pool else nn.Identity()
        self.out_channels = tuple(channels * 2**index for index in range(4))
        in_plane, along_z, wide = stem_stride * (2 if stem_pool else 1), 1, channels
        strides = []
        for index, (count, depth, z_stride) in enumerate(zip(num_blocks, depths, z_strides, strict=True)):
            step = 1 if index == 0 else 2
            blocks = [InflatedBlock(wide, channels * 2**index, depth, (z_stride, step, step))]
            wide, in_plane, along_z = channels * 2**index, in_plane * step, along_z * z_stride
            blocks += [InflatedBlock(wide, wide, depth, (1, 1, 1)) for _ in range(count - 1)]
            setattr(self, f"layer{index + 1}", nn.Sequential(*blocks))
            strides.append((along_z, in_plane, in_plane))
        self.strides = tuple(strides)
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(B, in_channels, D, H, W) -> the maps of the four blocks, (B, out_channels, D / stride, ...) each."""
        x = self.maxpool(F.relu(self.bn1(self.conv1(x)), inplace=True))
        maps = []
        for index in range(4):
            x = getattr(self, f"layer{index + 1}")(x)
            maps.append(x)
        return tuple(maps)
