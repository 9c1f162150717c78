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
from mmpluld.models.cpu import INFER_STACKS, STEM, TRAIN_BLOCK, on_cpu
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
        if x.is_cuda:  # slices as a batch: in half precision cuDNN's 3D kernels train three times as slowly
            slices = F.conv2d(x.transpose(1, 2).flatten(0, 1), self.weight, padding=self.padding)
            return slices.unflatten(0, (len(x), x.shape[2])).transpose(1, 2)
        return F.conv3d(x, self.weight.unsqueeze(2), padding=(0, *self.padding))


def pointwise(x: Tensor, weight: Tensor) -> Tensor:
    """1x1 convolution of ``x`` (B, C, ...) with ``weight`` (C_out, C, 1, 1).

    One matrix product for each stack; on a GPU cuDNN's, in the arithmetic of all other convolutions.
    """
    kernel = weight.flatten(1)
    flat = x.flatten(2)
    result = F.conv1d(flat, kernel.unsqueeze(2)) if x.is_cuda else torch.matmul(kernel, flat)
    return result.view(x.shape[0], -1, *x.shape[2:])


def norm_relu(norm: nn.Module, x: Tensor) -> Tensor:
    """Batch norm and ReLU of ``x`` (B, C, D, H, W); for the norm the slices are rows of one tall image."""
    return F.relu(norm(x.flatten(2, 3)), inplace=True).view(x.shape)


@contextmanager
def frozen_statistics(norm: _BatchNorm) -> Iterator[None]:
    """Let ``norm`` normalise by the batch without updating its running statistics."""
    # The count is kept and put back, since SyncBatchNorm refuses to be without.
    momentum, batches = norm.momentum, norm.num_batches_tracked.clone()
    norm.momentum = 0.0
    try:
        yield
    finally:
        norm.momentum = momentum
        norm.num_batches_tracked.copy_(batches)


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

    @on_cpu(TRAIN_BLOCK)
    def forward(self, x: Tensor, thickness_mm: Tensor | None = None) -> Tensor:
        """(B, C, D, H, W) -> (B, out_channels, D, H, W)."""
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


class ReductionZ(nn.Module):
    """All slices of a stack to one map, by a dense (D, 1, 1) convolution without padding."""

    def __init__(self, channels: int, num_slices: int) -> None:
        super().__init__()
        self.reduction_z_conv = nn.Conv3d(channels, channels, (num_slices, 1, 1), bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W) -> (B, C, H, W)."""
        return pointwise(x.flatten(1, 2), self.reduction_z_conv.weight.to(x.dtype))


def _check_norm(norm: nn.Module, norm_cfg: dict) -> None:
    """Refuse norms whose weights or statistics are not there for recomputation and the shortcuts to read."""
    if not isinstance(norm, _BatchNorm):
        raise InputError(f"norm_cfg: {norm_cfg['type']} is no batch norm; use 'BN' or 'SyncBN'")
    for setting in ("affine", "track_running_stats"):
        if not getattr(norm, setting):
            raise InputError(f"norm_cfg: {setting} is {getattr(norm, setting)}; allowed is True, the default")


@MODELS.register_module()
class TruncatedDenseNet(BaseModule):
    """DenseNet-121 up to its third dense block, run on every slice, with slices mixed before each dense convolution.

    Kernels are stored in 2D, so ImageNet weights load unchanged (see ``DenseNetImageNet``).

    Args:
        num_slices: Slices D of a stack.
        slice_mixer: Config of the operator in front of the dense convolutions; None keeps the slices apart. It is
            called with features (B, C, D, H, W) and the slice intervals (B,) in mm, or None where the model gets none.
            With a mixer that also has ``matrices()``, as those of this package do, the network runs faster on a CPU
            (see ``mmpluld.models.cpu``).
        slices_as: ``depth`` as above, or ``channels``: the 2.5D network, in which the slices are the input channels of
            an ordinary 2D DenseNet; it has neither mixers nor a depth to reduce.
        growth_rate: Channels that each dense layer adds.
        bn_size: Bottleneck width of a dense layer, as a multiple of ``growth_rate``.
        block_config: Layers in each dense block; one output map per block.
        stem_channels: Channels of the stem.
        norm_cfg: Batch norm (``BN`` or ``SyncBN``).
        with_cp: Recompute the first half of each dense layer in the backward pass, to save memory.
        init_cfg: MMEngine initialisation; without one, convolutions keep their Kaiming-normal start.

    Shape:
        Input (B, D, H, W), or ``SliceStacks`` with the slice intervals beside it; intensities in [-50, 205] as the
        published window gives them. Output: one (B, C_i, H_i, W_i) per block at strides 4, 8, 16; with the defaults
        256, 512, 1024 channels.

    Raises:
        InputError: If ``num_slices`` differs from the input's, the input is empty, the norm is no batch norm with
            weights and running statistics, ``slices_as`` is unknown, or ``channels`` is combined with a mixer.

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
        _check_norm(self.norm0, norm_cfg)
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
        if not len(x):
            raise InputError(f"input of shape {tuple(x.shape)}: the backbone needs one stack or more")
        return self._maps(x, thickness_mm)

    @on_cpu(INFER_STACKS)
    def _maps(self, x: Tensor, thickness_mm: Tensor | None) -> tuple[Tensor, ...]:
        """Maps of all blocks for stacks (B, D, H, W) and their slice intervals (B,)."""
        x = self._stem(x)
        outputs = []
        for i in range(1, self.num_blocks + 1):
            x = getattr(self, f"denseblock{i}")(x, thickness_mm)
            outputs.append(getattr(self, f"reductionz{i}")(x))
            if i < self.num_blocks:
                x = getattr(self, f"transition{i}")(x)
        return tuple(outputs)

    @on_cpu(STEM)
    def _stem(self, x: Tensor) -> Tensor:
        """(B, D, H, W) -> (B, C, D, H / 4, W / 4)."""
        channels = self.conv0.in_channels
        images = x.reshape(-1, channels, *x.shape[2:])
        images = F.relu(self.norm0(self.conv0(images)), inplace=True)
        images = F.max_pool2d(images, 3, stride=2, padding=1)
        return images.unflatten(0, (len(x), x.shape[1] // channels)).transpose(1, 2)
