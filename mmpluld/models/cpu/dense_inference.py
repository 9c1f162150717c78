"""The stages of ``TruncatedDenseNet`` for inference on a CPU: the same numbers with far less memory traffic.

On a CPU, much of the time of a dense block goes into moving its ever longer concatenated input. Here

- all layers of a block write into one preallocated buffer (C, D, H, W), so that nothing is concatenated;
- the first half of a layer runs on a few pixels at a time, so that its results stay in the cache;
- batch norm and ReLU take one pass over the data, the rest is folded into the next convolution (``fold_norm_relu``);
- poolings, which PyTorch does not vectorise in this layout, are written as sums or done with channels last.

Everything runs on one stack at a time, with channels outermost: mixing is then one batched matrix product over channels
and a 1x1 convolution one plain matrix product, both without moving data.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from mmpluld.models.cpu.protocols import DenseBlockLike, DenseLayerLike, TransitionLike
from mmpluld.models.cpu.stem import slices_as_images

__all__ = ["Folds", "fold_norm_relu", "fold_stem", "folded_once", "run_dense_block", "run_transition"]

_CHUNK_PIXELS = 1024
"""Pixels of each slice that the first half of a layer handles at once in float32: its results stay in the cache."""

_SMALLEST_SCALE = 1e-12
"""Norm scales below this count as zero: the clamping threshold -shift / scale would leave the number range."""


@dataclass(frozen=True)
class NormReLU:
    """ReLU(scale * x + shift) written as ``scale * clamp(x, lower, upper) + offset``; all (C,), float32."""

    scale: Tensor
    offset: Tensor
    lower: Tensor
    upper: Tensor | None

    def clamp(self, x: Tensor, out: Tensor) -> None:
        """Write clamp(x, lower, upper) to ``out``; both of three dimensions, channels first."""
        torch.maximum(x, self.lower.to(x.dtype)[:, None, None], out=out)
        if self.upper is not None:
            torch.minimum(out, self.upper.to(x.dtype)[:, None, None], out=out)


def affine_of(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """Scale and shift (C,) in float32 that the norm applies in evaluation."""
    scale = norm.weight.float() * torch.rsqrt(norm.running_var.float() + norm.eps)
    return scale, norm.bias.float() - norm.running_mean.float() * scale


def fold_norm_relu(norm: _BatchNorm, dtype: torch.dtype) -> NormReLU:
    """Turn norm and ReLU into a clamp, one pass over the data, and an affine map that the next convolution absorbs.

    For scale > 0, ReLU(scale * x + shift) = scale * max(x, t) + shift with t = -shift / scale; a negative scale turns
    max into min, and a zero scale leaves the constant ReLU(shift). ``upper`` is None if no scale is <= 0, as is usual.
    The threshold is rounded to ``dtype`` first, so that inactive values cancel exactly.
    """
    scale, shift = affine_of(norm)
    constant = scale.abs() < _SMALLEST_SCALE
    scale = scale.masked_fill(constant, 0.0)
    threshold = (-shift / scale.masked_fill(constant, 1.0)).to(dtype).float().masked_fill(constant, 0.0)
    offset = torch.where(constant, shift.clamp_min(0.0), -scale * threshold)
    lower = threshold.masked_fill(scale < 0, -math.inf)
    upper = threshold.masked_fill(scale > 0, math.inf) if bool((scale <= 0).any()) else None
    return NormReLU(scale, offset, lower, upper)


@dataclass(frozen=True)
class FoldedLayer:
    """Weights of a dense layer, norms folded in, in the data type of the computation."""

    norm_relu: NormReLU
    mix1: Tensor | None  # (M, D, D) for the first M <= C channels, target slice before source slice
    conv1: Tensor  # (width, C)
    bias1: Tensor  # (width, D, 1) or (width, 1, 1)
    mix2: Tensor | None  # (M, D, D) for the first M <= width channels
    conv2: Tensor  # (growth, width, 3, 3)


def fold_layer(layer: DenseLayerLike, dtype: torch.dtype, thickness_mm: Tensor | None) -> FoldedLayer:
    """Fold both norms of ``layer`` into its first convolution, for a stack of the given slice interval (a scalar)."""
    norm_relu = fold_norm_relu(layer.norm1, dtype)
    mix1, mix2 = (
        None if conv.mixer is None else conv.mixer.matrices(thickness_mm).to(dtype).contiguous()
        for conv in (layer.conv1, layer.conv2)
    )
    scale2, shift2 = affine_of(layer.norm2)
    conv1 = scale2[:, None] * layer.conv1.weight.float().flatten(1)
    offset = norm_relu.offset[:, None]
    if mix1 is not None:
        offset = torch.cat([offset[: len(mix1)] * mix1.float().sum(2), offset[len(mix1) :].expand(-1, mix1.shape[1])])
    bias1 = conv1 @ offset + shift2[:, None]
    conv1 = conv1 * norm_relu.scale
    conv2 = layer.conv2.weight.to(dtype)
    return FoldedLayer(norm_relu, mix1, conv1.to(dtype), bias1.to(dtype).unsqueeze(2), mix2, conv2)


Folds = dict[tuple[int, torch.dtype, str], FoldedLayer]
_KEPT: ContextVar[Folds | None] = ContextVar("kept folds", default=None)


@contextmanager
def folded_once(kept: Folds) -> Iterator[None]:
    """Fold each dense layer once for all that runs in this block, and in others with the same ``kept``.

    Nothing tells when weights or norms change, so ``kept`` is for as long as the caller knows that they do not, as
    between the slices of one volume.

    Args:
        kept: Empty at first.
    """
    token = _KEPT.set(kept)
    try:
        yield
    finally:
        _KEPT.reset(token)


def _folded(layer: DenseLayerLike, dtype: torch.dtype, thickness_mm: Tensor | None) -> FoldedLayer:
    """:func:`fold_layer`, or what it gave before where that is kept."""
    kept = _KEPT.get()
    if kept is None:
        return fold_layer(layer, dtype, thickness_mm)
    key = id(layer), dtype, "" if thickness_mm is None else str(float(thickness_mm))  # as text: NaN equals nothing
    if key not in kept:
        kept[key] = fold_layer(layer, dtype, thickness_mm)
    return kept[key]


def fold_stem(conv: nn.Conv2d, norm: _BatchNorm, stack: Tensor, out: Tensor) -> None:
    """Convolution, norm, ReLU, max pooling of ``stack`` (N, H, W) into ``out`` (C, D, H / 4, W / 4), N = D if D > 1."""
    scale, shift = affine_of(norm)
    kernel = (conv.weight.float() * scale[:, None, None, None]).to(out.dtype)
    images = slices_as_images(stack.to(out.dtype), out.shape[1])
    x = F.conv2d(images, kernel, shift.to(out.dtype), stride=conv.stride, padding=conv.padding)
    x = F.max_pool2d(x, 3, stride=2, padding=1).relu_()  # ReLU is monotonic: after pooling it has less to do
    pixels_by_channels = x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])
    out.flatten(1).copy_(pixels_by_channels.t())


def run_dense_block(block: DenseBlockLike, buffer: Tensor, thickness_mm: Tensor | None = None) -> None:
    """Fill ``buffer`` (C_out, D, H, W), whose first C_in channels hold the input, with the output of ``block``.

    ``thickness_mm`` is the slice interval of the stack, a scalar, for mixers that depend on it.
    """
    layers = list(block.children())
    _, depth, height, width = buffer.shape
    pixels, bottleneck = height * width, layers[0].conv2.in_channels
    chunk = _chunk(pixels, buffer.dtype)
    workspace = buffer.new_empty(depth * (bottleneck * pixels + 2 * (block.out_channels + bottleneck) * chunk))
    for layer in layers:
        channels = layer.conv1.in_channels
        new = buffer[channels : channels + layer.conv2.out_channels]
        _run_dense_layer(_folded(layer, buffer.dtype, thickness_mm), buffer[:channels], new, workspace)


def run_transition(transition: TransitionLike, x: Tensor, out: Tensor) -> None:
    """Norm, ReLU, pooling and convolution of ``x`` (C, D, H, W) into ``out`` (C / 2, D, H / 2, W / 2)."""
    norm_relu = fold_norm_relu(transition.norm, x.dtype)
    weight = transition.conv.weight.float().flatten(1)
    bias = (weight @ norm_relu.offset).to(x.dtype)
    weight = (0.25 * weight * norm_relu.scale).to(x.dtype)
    height, width = 2 * out.shape[2], 2 * out.shape[3]
    active = torch.empty_like(x[:, 0])
    for i in range(x.shape[1]):
        norm_relu.clamp(x[:, i], active)
        rows = active[:, 0:height:2] + active[:, 1:height:2]
        pooled = rows[..., 0:width:2] + rows[..., 1:width:2]
        out[:, i] = (weight @ pooled.flatten(1)).add_(bias[:, None]).view(out[:, i].shape)


def _chunk(pixels: int, dtype: torch.dtype) -> int:
    """Pixels to handle at once; all in lower precision, where each product costs too much to set up."""
    return min(pixels, _CHUNK_PIXELS) if dtype == torch.float32 else pixels


def _carve(workspace: Tensor, *shapes: Sequence[int]) -> Iterator[Tensor]:
    """Consecutive parts of the flat ``workspace`` in the given shapes, then the rest of it."""
    start = 0
    for shape in shapes:
        size = math.prod(shape)
        yield workspace[start : start + size].view(shape)
        start += size
    yield workspace[start:]


def _mix(matrices: Tensor | None, x: Tensor, out: Tensor) -> Tensor:
    """``x`` (C, D, N) with its first channels mixed, in ``out`` or in place, whichever moves less."""
    if matrices is None:
        return x
    count = len(matrices)
    mixed = torch.bmm(matrices, x[:count], out=out[:count])
    if count == len(x):
        return mixed
    x[:count] = mixed
    return x


def _run_dense_layer(layer: FoldedLayer, x: Tensor, out: Tensor, workspace: Tensor) -> None:
    """One layer on ``x`` (C, D, H, W) into ``out`` (growth, D, H, W)."""
    channels, depth, height, width = x.shape
    bottleneck = layer.conv1.shape[0]
    x = x.flatten(2)
    slices, workspace = _carve(workspace, (depth, bottleneck, height * width))
    step = _chunk(height * width, x.dtype)
    for start in range(0, height * width, step):
        chunk = x[:, :, start : start + step]
        wide, narrow = chunk.shape, (bottleneck, *chunk.shape[1:])
        active, mixed, hidden, hidden_mixed, _ = _carve(workspace, wide, wide, narrow, narrow)
        layer.norm_relu.clamp(chunk, active)
        active = _mix(layer.mix1, active, mixed)
        torch.mm(layer.conv1, active.flatten(1), out=hidden.flatten(1))
        hidden.add_(layer.bias1).relu_()
        hidden = _mix(layer.mix2, hidden, hidden_mixed)
        slices[:, :, start : start + step] = hidden.transpose(0, 1)
    new = F.conv2d(slices.unflatten(2, (height, width)), layer.conv2, padding=1)
    out.copy_(new.transpose(0, 1))
