"""The dense blocks of ``TruncatedDenseNet`` for inference on a CPU: the same numbers with far less memory traffic.

Written as single operators, a dense layer reads and writes its concatenated input five times, which costs more time than
the arithmetic. Here

- all layers of a block write into one preallocated buffer (C, D, H, W), so that nothing is concatenated;
- batch norms are folded into the neighbouring 1x1 convolution (see ``fold_norm_relu``);
- a layer runs on a few image rows at a time, so that its intermediate results stay in the cache;
- the 3x3 convolution is one matrix product for its nine taps, whose results are added at shifted positions.

Everything runs on one stack at a time, with channels outermost: mixing is then one batched matrix product over channels
and a 1x1 convolution one plain matrix product, both without moving data.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

if TYPE_CHECKING:
    from mmpluld.models.backbones.truncated_densenet import DenseBlock, DenseLayer, Transition

__all__ = ["fold_norm_relu", "run_dense_block", "run_stem", "run_transition"]

_WORKSPACE_BYTES = 4 << 20
"""Size of the intermediate results of a layer: about the second-level cache of two cores."""

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
        """Write clamp(x, lower, upper) to ``out``, both (C, D, P)."""
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
    mix1: Tensor | None  # (C, D, D), target slice before source slice
    conv1: Tensor  # (width, C)
    bias1: Tensor  # (width, D, 1) or (width, 1, 1)
    mix2: Tensor | None  # (width, D, D)
    conv2: Tensor  # (9 * growth, width), taps row by row outermost


def fold_layer(layer: DenseLayer, dtype: torch.dtype) -> FoldedLayer:
    """Fold both norms of ``layer`` into its first convolution."""
    norm_relu = fold_norm_relu(layer.norm1, dtype)
    mix1, mix2 = (
        None if conv.mixer is None else conv.mixer.matrices().to(dtype).contiguous() for conv in (layer.conv1, layer.conv2)
    )
    scale2, shift2 = affine_of(layer.norm2)
    conv1 = scale2[:, None] * layer.conv1.weight.float().flatten(1)
    offset = norm_relu.offset[:, None]
    if mix1 is not None:
        offset = offset * mix1.float().sum(2)
    bias1 = conv1 @ offset + shift2[:, None]
    conv1 = conv1 * norm_relu.scale
    conv2 = layer.conv2.weight.permute(2, 3, 0, 1).flatten(0, 2)
    return FoldedLayer(
        norm_relu, mix1, conv1.to(dtype), bias1.to(dtype).unsqueeze(2), mix2, conv2.to(dtype).contiguous()
    )


def run_stem(weight: Tensor, norm: _BatchNorm, stack: Tensor, out: Tensor) -> None:
    """Convolution, norm, ReLU and pooling of ``stack`` (D, H, W) into ``out`` (C, D, H / 4, W / 4)."""
    scale, shift = affine_of(norm)
    kernel = (weight.float() * scale[:, None, None, None]).to(out.dtype)
    for i, image in enumerate(stack.to(out.dtype)):
        x = F.conv2d(image[None, None], kernel, shift.to(out.dtype), stride=2, padding=3)
        out[:, i] = F.max_pool2d(x.relu_(), 3, stride=2, padding=1)[0]


def run_dense_block(block: DenseBlock, buffer: Tensor) -> None:
    """Fill ``buffer`` (C_out, D, H, W), whose first C_in channels hold the input, with the output of ``block``."""
    layers = list(block.children())
    rows, sizes = zip(*(_chunking(layer, buffer) for layer in layers), strict=True)
    workspace = buffer.new_empty(max(sizes))
    for layer, layer_rows in zip(layers, rows, strict=True):
        channels = layer.conv1.in_channels
        new = buffer[channels : channels + layer.conv2.out_channels]
        _run_dense_layer(fold_layer(layer, buffer.dtype), buffer[:channels], new, workspace, layer_rows)


def run_transition(transition: Transition, x: Tensor, out: Tensor) -> None:
    """Norm, ReLU, pooling and convolution of ``x`` (C, D, H, W) into ``out`` (C / 2, D, H / 2, W / 2)."""
    norm_relu = fold_norm_relu(transition.norm, x.dtype)
    weight = transition.conv.weight.float().flatten(1)
    bias = (weight @ norm_relu.offset).to(x.dtype)
    weight = (weight * norm_relu.scale).to(x.dtype)
    for i in range(x.shape[1]):
        clamped = torch.empty_like(x[:, i])
        norm_relu.clamp(x[:, i], clamped)
        pooled = F.avg_pool2d(clamped, 2)
        out[:, i] = torch.addmm(bias[:, None], weight, pooled.flatten(1)).view(-1, *pooled.shape[1:])


def _chunking(layer: DenseLayer, buffer: Tensor) -> tuple[int, int]:
    """Image rows that ``layer`` runs on at a time, and the elements of workspace it needs for them."""
    _, depth, height, width = buffer.shape
    channels = 2 * layer.conv1.in_channels + 2 * layer.conv2.in_channels + 9 * layer.conv2.out_channels
    per_row = channels * depth * width
    rows = min(height, max(1, _WORKSPACE_BYTES // (per_row * buffer.element_size())))
    return rows, rows * per_row


def _carve(workspace: Tensor, shapes: Sequence[tuple[int, ...]]) -> Iterator[Tensor]:
    """Consecutive parts of ``workspace`` in the given shapes."""
    start = 0
    for shape in shapes:
        size = math.prod(shape)
        yield workspace[start : start + size].view(shape)
        start += size


def _run_dense_layer(layer: FoldedLayer, x: Tensor, out: Tensor, workspace: Tensor, rows: int) -> None:
    """One layer on ``x`` (C, D, H, W) into ``out`` (growth, D, H, W)."""
    channels, depth, height, width = x.shape
    bottleneck = layer.conv1.shape[0]
    out.zero_()
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        pixels = (bottom - top) * width
        wide, narrow = (channels, depth, pixels), (bottleneck, depth, pixels)
        taps_shape = (layer.conv2.shape[0], depth * pixels)
        active, mixed, hidden, hidden_mixed, taps = _carve(workspace, [wide, wide, narrow, narrow, taps_shape])
        layer.norm_relu.clamp(x[:, :, top:bottom].flatten(2), active)
        if layer.mix1 is not None:
            active = torch.bmm(layer.mix1, active, out=mixed)
        torch.mm(layer.conv1, active.view(channels, -1), out=hidden.view(bottleneck, -1))
        hidden.add_(layer.bias1).relu_()
        if layer.mix2 is not None:
            hidden = torch.bmm(layer.mix2, hidden, out=hidden_mixed)
        torch.mm(layer.conv2, hidden.view(bottleneck, -1), out=taps)
        _add_taps(taps.view(3, 3, -1, depth, bottom - top, width), out, top)


def _add_taps(taps: Tensor, out: Tensor, top: int) -> None:
    """Add the nine tap images (3, 3, growth, D, rows, W), whose first row is ``top``, to ``out`` at their shifts."""
    height, width = out.shape[2:]
    rows = taps.shape[4]
    for i in range(3):
        first, last = max(0, top + 1 - i), min(height, top + rows + 1 - i)  # rows of `out` that tap row i reaches
        for j in range(3):
            left, right = max(0, 1 - j), min(width, width + 1 - j)
            source = taps[i, j, :, :, first - top - 1 + i : last - top - 1 + i, left - 1 + j : right - 1 + j]
            out[:, :, first:last, left:right].add_(source)
