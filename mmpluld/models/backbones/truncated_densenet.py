"""DenseNet-121 without its last dense block, applied to every slice of a stack, with slice mixing in between."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal, get_args

import torch
from mmcv.cnn import build_norm_layer
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from mmpluld.errors import InputError
from mmpluld.models.backbones.dense_inference import run_dense_block, run_stem, run_transition, slices_as_images
from mmpluld.models.backbones.dense_training import can_train_fast, train_dense_block
from mmpluld.models.data_preprocessors import SliceStacks
from mmpluld.registry import MODELS

__all__ = ["TruncatedDenseNet"]

SlicesAs = Literal["depth", "channels"]


class SliceConv2d(nn.Conv2d):
    """A 2D convolution without bias on every slice, after the slices were mixed.

    Args:
        num_slices: Slices D of a stack.
        slice_mixer: Config of the mixer, which gets ``channels`` and ``num_slices``; None mixes nothing.

    Shape:
        Input (B, C, D, H, W), output (B, C_out, D, H, W).
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, num_slices: int, slice_mixer: dict | None
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False)
        self.mixer: nn.Module | None = None
        if slice_mixer is not None:
            self.mixer = MODELS.build({**slice_mixer, "channels": in_channels, "num_slices": num_slices})

    def forward(self, x: Tensor, thickness_mm: Tensor | None = None) -> Tensor:
        """Mix, then convolve."""
        if self.mixer is not None:
            x = self.mixer(x, thickness_mm)
        if self.kernel_size == (1, 1):
            return pointwise(x, self.weight)
        return F.conv3d(x, self.weight.unsqueeze(2), padding=(0, *self.padding))


def pointwise(x: Tensor, weight: Tensor) -> Tensor:
    """1x1 convolution of ``x`` (B, C, ...) with ``weight`` (C_out, C, 1, 1); one matrix product for each stack."""
    return torch.matmul(weight.flatten(1), x.flatten(2)).view(x.shape[0], -1, *x.shape[2:])


def norm_relu(norm: nn.Module, x: Tensor) -> Tensor:
    """Batch norm and ReLU of ``x`` (B, C, D, H, W); for the norm the slices are rows of one tall image."""
    return F.relu(norm(x.flatten(2, 3)), inplace=True).view(x.shape)


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


@contextmanager
def frozen_statistics(norm: _BatchNorm) -> Iterator[None]:
    """Let ``norm`` normalise by the batch without updating its running statistics."""
    momentum, batches = norm.momentum, norm.num_batches_tracked
    norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        norm.momentum, norm.num_batches_tracked = momentum, batches


class DenseLayer(nn.Module):
    """Norm, ReLU, mixing, 1x1 convolution; norm, ReLU, mixing, 3x3 convolution."""

    def __init__(
        self,
        in_channels: int,
        growth_rate: int,
        bn_size: int,
        num_slices: int,
        slice_mixer: dict | None,
        norm_cfg: dict,
        with_cp: bool,
    ) -> None:
        super().__init__()
        width = bn_size * growth_rate
        self.norm1 = build_norm_layer(norm_cfg, in_channels)[1]
        self.conv1 = SliceConv2d(in_channels, width, 1, num_slices, slice_mixer)
        self.norm2 = build_norm_layer(norm_cfg, width)[1]
        self.conv2 = SliceConv2d(width, growth_rate, 3, num_slices, slice_mixer)
        self.with_cp = with_cp

    def halves(self) -> tuple[tuple[nn.Module, SliceConv2d], tuple[nn.Module, SliceConv2d]]:
        """Norm and convolution of the first half and of the second."""
        return (self.norm1, self.conv1), (self.norm2, self.conv2)

    def _checkpoint_contexts(self) -> tuple[AbstractContextManager, AbstractContextManager]:
        """Contexts of the first run and the rerun, so that only the first updates the running statistics."""
        return nullcontext(), frozen_statistics(self.norm1)

    def _bottleneck(self, thickness_mm: Tensor | None, *features: Tensor) -> Tensor:
        return self.conv1(norm_relu(self.norm1, torch.cat(features, 1)), thickness_mm)

    def forward(self, features: list[Tensor], thickness_mm: Tensor | None = None) -> Tensor:
        """New features (B, growth_rate, D, H, W) from all earlier ones of the block."""
        if self.with_cp and self.training:
            x = checkpoint(
                self._bottleneck,
                thickness_mm,
                *features,
                use_reentrant=False,
                context_fn=self._checkpoint_contexts,
            )
        else:
            x = self._bottleneck(thickness_mm, *features)
        return self.conv2(norm_relu(self.norm2, x), thickness_mm)


class DenseBlock(nn.Module):
    """Layers that each read everything before them in the block; the output concatenates input and all layers."""

    def __init__(self, num_layers: int, in_channels: int, growth_rate: int, **layer_kwargs: Any) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = in_channels + num_layers * growth_rate
        for i in range(num_layers):
            layer = DenseLayer(in_channels + i * growth_rate, growth_rate, **layer_kwargs)
            self.add_module(f"denselayer{i + 1}", layer)

    def forward(self, x: Tensor, thickness_mm: Tensor | None = None) -> Tensor:
        """(B, C, D, H, W) -> (B, out_channels, D, H, W)."""
        if can_train_fast(self, x):
            return train_dense_block(self, x, thickness_mm)
        features = [x]
        for layer in self.children():
            features.append(layer(features, thickness_mm))
        return torch.cat(features, 1)


class Transition(nn.Module):
    """Norm, ReLU, 2x2 average pooling, 1x1 convolution that halves the channels. No mixing.

    DenseNet pools after the convolution. Both are linear and commute, and this order takes a quarter of the arithmetic.
    """

    def __init__(self, in_channels: int, norm_cfg: dict) -> None:
        super().__init__()
        self.norm = build_norm_layer(norm_cfg, in_channels)[1]
        self.conv = nn.Conv2d(in_channels, in_channels // 2, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W) -> (B, C / 2, D, H / 2, W / 2)."""
        pooled = F.avg_pool2d(norm_relu(self.norm, x).flatten(1, 2), 2)
        return pointwise(pooled.unflatten(1, x.shape[1:3]), self.conv.weight)

    def run_fused(self, x: Tensor, out: Tensor) -> None:
        """``forward`` of one stack (C, D, H, W) into ``out``, without gradients (see ``dense_inference``)."""
        run_transition(self, x, out)


class ReductionZ(nn.Module):
    """All slices of a stack to one map, by a dense (D, 1, 1) convolution without padding."""

    def __init__(self, channels: int, num_slices: int) -> None:
        super().__init__()
        self.reduction_z_conv = nn.Conv3d(channels, channels, (num_slices, 1, 1), bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W) -> (B, C, H, W)."""
        return pointwise(x.flatten(1, 2), self.reduction_z_conv.weight.to(x.dtype))


@MODELS.register_module()
class TruncatedDenseNet(BaseModule):
    """DenseNet-121 up to its third dense block, run on every slice, with slices mixed before each dense convolution.

    Kernels are stored in 2D, so ImageNet weights load unchanged (see ``DenseNetImageNet``).

    Args:
        num_slices: Slices D of a stack.
        slice_mixer: Config of the operator in front of the dense convolutions; None keeps the slices apart. It is
            called with features (B, C, D, H, W) and the slice intervals (B,) in mm, or None where the model gets none.
            A mixer that also has ``matrices()``, as those of this package do, takes part in the fast path for
            inference on a CPU.
        slices_as: ``depth`` as above, or ``channels``: the 2.5D network, in which the slices are the input channels of
            an ordinary 2D DenseNet; it has neither mixers nor a depth to reduce.
        growth_rate: Channels that each dense layer adds.
        bn_size: Bottleneck width of a dense layer, as a multiple of ``growth_rate``.
        block_config: Layers in each dense block; one output map per block.
        stem_channels: Channels of the stem.
        norm_cfg: Batch norm (``BN`` or ``SyncBN``).
        with_cp: Recompute the first half of each dense layer in the backward pass, to save memory. Training on a CPU
            does so in any case (see ``dense_training``).
        init_cfg: MMEngine initialisation; without one, convolutions keep their Kaiming-normal start.

    Shape:
        Input (B, D, H, W), or ``SliceStacks`` with the slice intervals beside it; intensities in [-50, 205] as the
        published window gives them. Output: one (B, C_i, H_i, W_i) per block at strides 4, 8, 16; with the defaults
        256, 512, 1024 channels.

    Raises:
        InputError: If ``num_slices`` differs from the input's, the norm is no batch norm, ``slices_as`` is unknown, or
            ``channels`` is combined with a mixer.

    Source: "Asymmetric 3D Context Fusion for Universal Lesion Detection", 2021, Sec. 2.3.
    """

    def __init__(
        self,
        num_slices: int,
        slice_mixer: dict | None = {"type": "A3DMixer"},  # noqa: B006  read only
        slices_as: SlicesAs = "depth",
        growth_rate: int = 32,
        bn_size: int = 4,
        block_config: Sequence[int] = (6, 12, 24),
        stem_channels: int = 64,
        norm_cfg: dict = {"type": "BN"},  # noqa: B006  read only
        with_cp: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        if slices_as not in get_args(SlicesAs):
            raise InputError(f"slices_as: {slices_as!r} is not one of {', '.join(get_args(SlicesAs))}")
        if slices_as == "channels" and slice_mixer is not None:
            raise InputError("slices_as='channels' leaves no slices to mix; set slice_mixer=None")
        self.num_slices = num_slices
        self.depth = num_slices if slices_as == "depth" else 1
        self.num_blocks = len(block_config)
        self.conv0 = nn.Conv2d(num_slices // self.depth, stem_channels, 7, stride=2, padding=3, bias=False)
        self.norm0 = build_norm_layer(norm_cfg, stem_channels)[1]
        if not isinstance(self.norm0, _BatchNorm):
            raise InputError(f"norm_cfg: {norm_cfg['type']} is no batch norm; use 'BN' or 'SyncBN'")
        channels = stem_channels
        for i, num_layers in enumerate(block_config, start=1):
            block = DenseBlock(
                num_layers,
                channels,
                growth_rate,
                bn_size=bn_size,
                num_slices=self.depth,
                slice_mixer=slice_mixer,
                norm_cfg=norm_cfg,
                with_cp=with_cp,
            )
            channels = block.out_channels
            self.add_module(f"denseblock{i}", block)
            reduction = ReductionZ(channels, num_slices) if slices_as == "depth" else nn.Flatten(1, 2)
            self.add_module(f"reductionz{i}", reduction)
            if i < self.num_blocks:
                self.add_module(f"transition{i}", Transition(channels, norm_cfg))
                channels //= 2
        convs = [module for module in self.modules() if isinstance(module, SliceConv2d)]
        self._mixers_are_linear = all(conv.mixer is None or hasattr(conv.mixer, "matrices") for conv in convs)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Conv3d)):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, inputs: Tensor | SliceStacks) -> tuple[Tensor, ...]:
        """Maps of all blocks, finest first."""
        x, thickness_mm = inputs if isinstance(inputs, SliceStacks) else (inputs, None)
        if x.dim() != 4 or x.shape[1] != self.num_slices:
            raise InputError(
                f"input of shape {tuple(x.shape)}: the backbone needs (B, {self.num_slices}, H, W); "
                "set num_slices of the backbone and of LoadSliceStack to the same number"
            )
        if self._can_fuse(x):
            return self._forward_fused(x, thickness_mm)
        x = self._stem(x)
        outputs = []
        for i in range(1, self.num_blocks + 1):
            x = getattr(self, f"denseblock{i}")(x, thickness_mm)
            outputs.append(getattr(self, f"reductionz{i}")(x))
            if i < self.num_blocks:
                x = getattr(self, f"transition{i}")(x)
        return tuple(outputs)

    def _stem(self, x: Tensor) -> Tensor:
        """(B, D, H, W) -> (B, C, D, H / 4, W / 4)."""
        batch, depth = x.shape[0], x.shape[1] // self.conv0.in_channels
        images = slices_as_images(x.flatten(0, 1), batch * depth)
        x = F.relu(self.norm0(self.conv0(images)), inplace=True)
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        return ChannelsOutermost.apply(x).unflatten(1, (batch, depth)).transpose(0, 1)

    def _can_fuse(self, x: Tensor) -> bool:
        """Whether the fast path serves: evaluation without gradients on a CPU, in single precision or less."""
        plain_use = self.training or torch.is_grad_enabled() or x.device.type != "cpu"
        return not plain_use and self._mixers_are_linear and self.conv0.weight.dtype != torch.float64

    def _forward_fused(self, x: Tensor, thickness_mm: Tensor | None) -> tuple[Tensor, ...]:
        """``forward`` without gradients, one stack after the other (see ``dense_inference``)."""
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else self.conv0.weight.dtype
        with torch.autocast("cpu", enabled=False):
            intervals = [None] * len(x) if thickness_mm is None else thickness_mm
            stacks = [self._fused_stack(stack, interval, dtype) for stack, interval in zip(x, intervals, strict=True)]
        return tuple(torch.stack(maps) for maps in zip(*stacks, strict=True))

    def _fused_stack(self, stack: Tensor, thickness_mm: Tensor | None, dtype: torch.dtype) -> list[Tensor]:
        """The maps (C_i, H_i, W_i) of one stack (D, H, W)."""
        maps: list[Tensor] = []
        features = stack
        for number in range(1, self.num_blocks + 1):
            features = self._fused_block(number, features, thickness_mm, dtype)
            maps.append(getattr(self, f"reductionz{number}")(features.unsqueeze(0))[0])
        return maps

    def _fused_block(self, number: int, x: Tensor, thickness_mm: Tensor | None, dtype: torch.dtype) -> Tensor:
        """A dense block (C, D, H, W) and what leads to it, from the stack (slices, H, W) or the block before."""
        block = getattr(self, f"denseblock{number}")
        if number == 1:
            depth = len(x) // self.conv0.in_channels
            height, width = (((size + 1) // 2 + 1) // 2 for size in x.shape[1:])
        else:
            depth, height, width = x.shape[1], x.shape[2] // 2, x.shape[3] // 2
        buffer = x.new_empty((block.out_channels, depth, height, width), dtype=dtype)
        if number == 1:
            run_stem(self.conv0, self.norm0, x, buffer[: block.in_channels])
        else:
            getattr(self, f"transition{number - 1}").run_fused(x, buffer[: block.in_channels])
        run_dense_block(block, buffer, thickness_mm)
        return buffer
