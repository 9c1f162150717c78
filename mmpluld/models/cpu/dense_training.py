"""A dense block of ``TruncatedDenseNet`` for training on a CPU: the same gradients with far less memory traffic.

Written plainly, every layer concatenates, normalises, rectifies and mixes all features before it, and keeps each of
these results for the backward pass. Here one ``torch.autograd.Function`` runs a whole block, in which

- all layers read from and write into one buffer, and their gradients add up in one other;
- the batch statistics of a channel are computed once, for all layers that read it; what flows back through them is
  gathered as two numbers per channel and added once;
- the buffers are cut into chunks of pixels, and a layer runs on one chunk at a time, so that its results stay in the
  cache. They are computed again in the backward pass: only features, bottlenecks and the inputs of the 3x3
  convolutions are kept;
- batch norm and ReLU take two passes over the data, the scale goes into the next convolution (``BatchNormReLU``).

Shapes: C channels, D slices, B stacks, P = H * W pixels of a slice, L layers, W the width of a bottleneck; K chunks of
q pixels, which come first, so that the first c channels of a chunk lie together (``Chunks``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from mmpluld.models.cpu.batch_norm_relu import BatchNormReLU, add_line, channel_statistics, through_statistics
from mmpluld.models.cpu.chunks import Chunks, Scratch
from mmpluld.models.cpu.mixing import grad_matrices_of, matrices_of, mix, unmix
from mmpluld.models.cpu.protocols import DenseBlockLike, mixers_are_linear

__all__ = ["can_train_fast", "train_dense_block"]

_CHUNK_VALUES = 1 << 21
"""Values in a chunk of all features of a block, about: few enough for the cache, enough to share among threads."""


class LayerTensors(NamedTuple):
    """What a dense layer computes with: norm, mixing, 1x1 convolution; norm, mixing, 3x3 convolution.

    A mix is None, or (S, M, D, D): target before source slice, for the first M channels; S = 1 for all stacks, or B.
    """

    weight1: Tensor
    bias1: Tensor
    mix1: Tensor | None
    conv1: Tensor
    weight2: Tensor
    bias2: Tensor
    mix2: Tensor | None
    conv2: Tensor


class BlockResults(NamedTuple):
    """What the forward pass leaves for the backward pass."""

    features: Tensor  # (K, C, D, q)
    mean: Tensor  # (C,)
    var: Tensor  # (C,)
    hidden: Tensor  # (L, K, W, D, q), results of the 1x1 convolutions
    hidden_mean: Tensor  # (L, W)
    hidden_var: Tensor  # (L, W)
    images: Tensor  # (L, B, D, W, P), inputs of the 3x3 convolutions without the scale of the norm


def can_train_fast(block: DenseBlockLike, x: Tensor) -> bool:
    """Whether ``train_dense_block`` serves: gradients, no autocast, plain batch statistics, mixers with matrices."""
    if not torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"):
        return False
    norms = [norm for layer in block.children() for norm in (layer.norm1, layer.norm2)]
    plain = all(type(norm) is nn.BatchNorm2d and norm.training for norm in norms)
    return plain and mixers_are_linear(block)


def train_dense_block(block: DenseBlockLike, x: Tensor, thickness_mm: Tensor | None = None) -> Tensor:
    """Output (B, C_out, D, H, W) of ``block`` for ``x`` (B, C, D, H, W); updates the norms' running statistics.

    Args:
        block: See ``can_train_fast``.
        x: Input of the block.
        thickness_mm: Slice intervals (B,) for mixers that depend on them.
    """
    tensors: list[Tensor | None] = []
    layers = list(block.children())
    for layer in layers:
        for norm, conv in ((layer.norm1, layer.conv1), (layer.norm2, layer.conv2)):
            tensors += [norm.weight, norm.bias, _mixing_matrices(conv.mixer, thickness_mm, x.dtype), conv.weight]
    out, *statistics = DenseBlockFunction.apply(x, layers[0].norm1.eps, *tensors)
    mean, var, hidden_mean, hidden_var = statistics
    count = x.numel() // x.shape[1]
    with torch.no_grad():
        for i, layer in enumerate(layers):
            channels = layer.norm1.num_features
            _update_running_statistics(layer.norm1, mean[:channels], var[:channels], count)
            _update_running_statistics(layer.norm2, hidden_mean[i], hidden_var[i], count)
    return out


def _mixing_matrices(mixer: nn.Module | None, thickness_mm: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    if mixer is None:
        return None
    intervals = [None] if thickness_mm is None else list(thickness_mm)
    return torch.stack([mixer.matrices(interval) for interval in intervals]).to(dtype)


def _update_running_statistics(norm: nn.BatchNorm2d, mean: Tensor, var: Tensor, count: int) -> None:
    """As the norm does itself: ``var`` is biased, the running one is not."""
    norm.num_batches_tracked.add_(1)
    momentum = 1.0 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
    norm.running_mean.lerp_(mean, momentum)
    norm.running_var.lerp_(var * (count / max(count - 1, 1)), momentum)


class DenseBlockFunction(torch.autograd.Function):
    """(x, eps, tensors of all layers) -> (output, mean, var, hidden mean, hidden var); see ``BlockResults``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Output (B, C_out, D, H, W) and statistics."""
        layers = _layers(tensors)
        batch, channels, depth, *size = x.shape
        growth, width = layers[0].conv2.shape[:2]
        total, pixels = channels + len(layers) * growth, size[0] * size[1]
        shared = all(m is None or len(m) == 1 for layer in layers for m in (layer.mix1, layer.mix2))
        chunks = Chunks(batch, pixels, _CHUNK_VALUES / (total * depth), shared)
        kept = BlockResults(
            features=x.new_empty(chunks.number, total, depth, chunks.size),
            mean=x.new_zeros(total),
            var=x.new_zeros(total),
            hidden=x.new_empty(len(layers), chunks.number, width, depth, chunks.size),
            hidden_mean=x.new_empty(len(layers), width),
            hidden_var=x.new_empty(len(layers), width),
            images=x.new_empty(len(layers), batch, depth, width, pixels),
        )
        scratch = Scratch(x, max(total, width) * depth * chunks.size, 2)
        new, values = slice(0, channels), x.flatten(3)
        for i, layer in enumerate(layers):
            kept.features[:, new] = chunks.split(values)
            kept.mean[new], kept.var[new] = channel_statistics(kept.features[:, new])
            norm = BatchNormReLU(layer.weight1, layer.bias1, kept.mean[:channels], kept.var[:channels], eps)
            first_half(layer, norm, chunks, kept.features[:, :channels], kept.hidden[i], scratch)
            kept.hidden_mean[i], kept.hidden_var[i] = channel_statistics(kept.hidden[i])
            norm = BatchNormReLU(layer.weight2, layer.bias2, kept.hidden_mean[i], kept.hidden_var[i], eps)
            values = second_half(layer, norm, chunks, kept.hidden[i], kept.images[i], size, scratch)
            new = slice(channels, channels + growth)
            channels += growth
        kept.features[:, new] = chunks.split(values)
        ctx.eps, ctx.size, ctx.chunks = eps, size, chunks
        ctx.save_for_backward(*kept, *tensors)
        statistics = (kept.mean, kept.var, kept.hidden_mean, kept.hidden_var)
        ctx.mark_non_differentiable(*statistics)
        return chunks.join(kept.features).unflatten(3, size), *statistics

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor, *_: Any) -> tuple[Any, ...]:
        """Gradients of x and of all tensors."""
        kept = BlockResults(*ctx.saved_tensors[: len(BlockResults._fields)])
        layers = _layers(ctx.saved_tensors[len(BlockResults._fields) :])
        chunks, (channels, depth) = ctx.chunks, kept.features.shape[1:3]
        growth, width = layers[0].conv2.shape[:2]
        count = kept.features[:, 0].numel()
        scratch = Scratch(grad_out, max(channels, width) * depth * chunks.size, 3)
        grad = chunks.split(grad_out.flatten(3)).contiguous()  # for fixed statistics, until all readers are done
        if grad.data_ptr() == grad_out.data_ptr():
            grad = grad.clone()
        total, projection = torch.zeros_like(kept.mean), torch.zeros_like(kept.mean)
        inverse_std = torch.rsqrt(kept.var + ctx.eps)

        def finish(part: slice) -> None:
            line = through_statistics(total[part], projection[part], kept.mean[part], inverse_std[part], count)
            add_line(grad[:, part], kept.features[:, part], *line, scratch)

        grads: list[Tensor | None] = []
        for i in reversed(range(len(layers))):
            new = slice(channels - growth, channels)
            channels -= growth
            if i + 1 < len(layers):  # nothing in the block reads the last layer
                finish(new)
            layer, hidden = layers[i], kept.hidden[i]
            norm = BatchNormReLU(layer.weight2, layer.bias2, kept.hidden_mean[i], kept.hidden_var[i], ctx.eps)
            grad_hidden, sums, second = second_half_backward(
                layer, norm, chunks, hidden, kept.images[i], chunks.join(grad[:, new]), ctx.size, scratch
            )
            line = through_statistics(*sums, norm.mean, norm.inverse_std, count)
            norm = BatchNormReLU(layer.weight1, layer.bias1, kept.mean[:channels], kept.var[:channels], ctx.eps)
            sums, first = first_half_backward(
                layer, norm, chunks, kept.features[:, :channels], hidden, line, grad_hidden, grad[:, :channels], scratch
            )
            total[:channels] += sums[0]
            projection[:channels] += sums[1]
            grads = [*first, *second, *grads]
        finish(slice(0, channels))
        return (chunks.join(grad[:, :channels]).unflatten(3, ctx.size), None, *grads)


def _layers(tensors: Sequence[Tensor]) -> list[LayerTensors]:
    step = len(LayerTensors._fields)
    return [LayerTensors(*tensors[i : i + step]) for i in range(0, len(tensors), step)]


def first_half(
    layer: LayerTensors, norm: BatchNormReLU, chunks: Chunks, features: Tensor, hidden: Tensor, scratch: Scratch
) -> None:
    """Norm, ReLU, mixing and 1x1 convolution of ``features`` (K, C, D, q) into ``hidden`` (K, W, D, q)."""
    kernel = layer.conv1.flatten(1) * norm.scale
    for k, x in enumerate(features):
        active = norm.activate(x, scratch.like(0, x))
        mixed = mix(matrices_of(layer.mix1, chunks, k), active, scratch.like(1, x))
        torch.mm(kernel, mixed.flatten(1), out=hidden[k].flatten(1))


def second_half(
    layer: LayerTensors,
    norm: BatchNormReLU,
    chunks: Chunks,
    hidden: Tensor,
    images: Tensor,
    size: list[int],
    scratch: Scratch,
) -> Tensor:
    """Norm, ReLU, mixing and 3x3 convolution of ``hidden`` to new features (B, growth, D, P); fills ``images``."""
    for k, x in enumerate(hidden):
        active = norm.activate(x, scratch.like(0, x))
        mixed = mix(matrices_of(layer.mix2, chunks, k), active, scratch.like(1, x))
        image = chunks.of_images(images, k)
        image.copy_(mixed.view(image.shape))
    kernel = layer.conv2 * norm.scale[:, None, None]
    new = F.conv2d(images.flatten(0, 1).unflatten(2, size), kernel, padding=1)
    return new.flatten(2).unflatten(0, images.shape[:2]).transpose(1, 2)


def second_half_backward(
    layer: LayerTensors,
    norm: BatchNormReLU,
    chunks: Chunks,
    hidden: Tensor,
    images: Tensor,
    grad_new: Tensor,
    size: list[int],
    scratch: Scratch,
) -> tuple[Tensor, tuple[Tensor, Tensor], list[Tensor | None]]:
    """Backward of ``second_half``, for the gradient ``grad_new`` (B, growth, D, P).

    Returns:
        Gradient of ``hidden`` for fixed statistics; its sum and its sum of products with xhat; gradients of the second
        four tensors of ``layer``.
    """
    kernel = layer.conv2 * norm.scale[:, None, None]
    grad_new = grad_new.transpose(1, 2).flatten(0, 1).unflatten(2, size).contiguous()
    grad_images, grad_kernel, _ = torch.ops.aten.convolution_backward(
        *(grad_new, images.flatten(0, 1).unflatten(2, size), kernel),
        *(None, (1, 1), (1, 1), (1, 1), False, (0, 0), 1, (True, True, False)),
    )
    grad_images = grad_images.flatten(2).unflatten(0, images.shape[:2])
    grad_mix = grad_matrices_of(layer.mix2)
    grad_hidden = torch.empty_like(hidden)
    total, moment = torch.zeros_like(norm.mean), torch.zeros_like(norm.mean)
    for k, x in enumerate(hidden):
        active = norm.activate(x, scratch.like(0, x))
        grad = chunks.of_images(grad_images, k).flatten(2)
        grad = unmix(layer.mix2, grad_mix, chunks, k, grad, active, grad_hidden[k])
        grad = norm.backward_(grad, active)
        total += grad.sum((1, 2))
        moment += torch.mul(grad, x, out=active).sum((1, 2))
    grad_weight, grad_bias, projection = norm.gradients(total, moment)
    grad_kernel = grad_kernel * norm.scale[:, None, None]
    return grad_hidden, (total, projection), [grad_weight, grad_bias, grad_mix, grad_kernel]


def first_half_backward(
    layer: LayerTensors,
    norm: BatchNormReLU,
    chunks: Chunks,
    features: Tensor,
    hidden: Tensor,
    line: tuple[Tensor, Tensor],
    grad_hidden: Tensor,
    grad_features: Tensor,
    scratch: Scratch,
) -> tuple[tuple[Tensor, Tensor], list[Tensor | None]]:
    """Backward of ``first_half``; adds to ``grad_features`` for fixed statistics.

    ``line`` completes ``grad_hidden``, which is for fixed statistics (``through_statistics``).

    Returns:
        Sum of what was added and its sum of products with xhat; gradients of the first four tensors of ``layer``.
    """
    kernel = layer.conv1.flatten(1) * norm.scale
    grad_kernel = torch.zeros_like(kernel)
    grad_mix = grad_matrices_of(layer.mix1)
    total, moment = torch.zeros_like(norm.mean), torch.zeros_like(norm.mean)
    for k, x in enumerate(features):
        add_line(grad_hidden[k : k + 1], hidden[k : k + 1], *line, scratch)
        grad_result = grad_hidden[k].flatten(1)
        active = norm.activate(x, scratch.like(0, x))
        mixed = mix(matrices_of(layer.mix1, chunks, k), active, scratch.like(1, x))
        grad_kernel.addmm_(grad_result, mixed.flatten(1).t())
        grad_mixed = scratch.like(1 if mixed is not active else 2, x)
        torch.mm(kernel.t(), grad_result, out=grad_mixed.flatten(1))
        grad = unmix(layer.mix1, grad_mix, chunks, k, grad_mixed, active, scratch.like(2, x))
        grad = norm.backward_(grad, active)
        total += grad.sum((1, 2))
        grad_features[k] += grad
        moment += grad.mul_(x).sum((1, 2))
    grad_weight, grad_bias, projection = norm.gradients(total, moment)
    grad_kernel = (grad_kernel * norm.scale).view_as(layer.conv1)
    return (total, projection), [grad_weight, grad_bias, grad_mix, grad_kernel]
