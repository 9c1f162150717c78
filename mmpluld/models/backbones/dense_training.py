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
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

if TYPE_CHECKING:
    from mmpluld.models.backbones.truncated_densenet import DenseBlock

__all__ = ["can_train_fast", "train_dense_block"]

_CHUNK_VALUES = 1 << 21
"""Values in a chunk of all features of a block, about: few enough for the cache, enough to share among threads."""

_SMALLEST_SCALE = 1e-12
"""Norm scales nearer to zero are moved away to here: the threshold mean - bias / scale would leave the number range."""


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


def can_train_fast(block: DenseBlock, x: Tensor) -> bool:
    """Whether ``train_dense_block`` serves: gradients on a CPU, plain batch statistics, mixers that have matrices."""
    if x.device.type != "cpu" or not torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"):
        return False
    halves = [half for layer in block.children() for half in layer.halves()]
    plain = all(type(norm) is nn.BatchNorm2d and norm.training and norm.affine for norm, _ in halves)
    return plain and all(conv.mixer is None or hasattr(conv.mixer, "matrices") for _, conv in halves)


def train_dense_block(block: DenseBlock, x: Tensor, thickness_mm: Tensor | None = None) -> Tensor:
    """Output (B, C_out, D, H, W) of ``block`` for ``x`` (B, C, D, H, W); updates the norms' running statistics.

    Args:
        block: See ``can_train_fast``.
        x: Input of the block.
        thickness_mm: Slice intervals (B,) for mixers that depend on them.
    """
    tensors: list[Tensor | None] = []
    halves = [half for layer in block.children() for half in layer.halves()]
    for norm, conv in halves:
        tensors += [norm.weight, norm.bias, _mixing_matrices(conv.mixer, thickness_mm, x.dtype), conv.weight]
    eps = halves[0][0].eps
    out, *statistics = DenseBlockFunction.apply(x, eps, *tensors)
    mean, var, hidden_mean, hidden_var = statistics
    count = x.numel() // x.shape[1]
    with torch.no_grad():
        for i, layer in enumerate(block.children()):
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
    if not norm.track_running_stats:
        return
    norm.num_batches_tracked.add_(1)
    momentum = 1.0 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
    norm.running_mean.lerp_(mean, momentum)
    norm.running_var.lerp_(var * (count / max(count - 1, 1)), momentum)


class BatchNormReLU:
    """ReLU(weight * xhat + bias), xhat = (x - mean) / std, as ``scale * v`` with v = ReLU(sign * (x - threshold)).

    The scale is not negative, and the mixing that follows treats channels alone, so the convolution after it takes the
    scale into its weights. Gradients "for fixed statistics" leave out that mean and std depend on x.

    Args:
        weight, bias: Of the norm, (C,).
        mean, var: Batch statistics, (C,); the variance is biased.
        eps: Of the norm.
    """

    def __init__(self, weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor, eps: float) -> None:
        self.mean = mean
        self.inverse_std = torch.rsqrt(var + eps)
        signed = weight * self.inverse_std
        smallest = torch.full_like(signed, _SMALLEST_SCALE).copysign(signed)
        self.signed_scale = torch.where(signed.abs() < _SMALLEST_SCALE, smallest, signed)
        self.scale = self.signed_scale.abs()
        self.threshold = column(mean - bias / self.signed_scale)
        self.sign = column(self.signed_scale.sign()) if bool((self.signed_scale < 0).any()) else None

    def activate(self, x: Tensor, out: Tensor) -> Tensor:
        """v of ``x`` (C, D, q), in ``out``."""
        torch.sub(x, self.threshold, out=out)
        if self.sign is not None:
            out.mul_(self.sign)
        return out.relu_()

    def backward_(self, grad: Tensor, active: Tensor) -> Tensor:
        """Turn the gradient of v = ``active`` into that of x for fixed statistics, in place."""
        torch.ops.aten.threshold_backward.grad_input(grad, active, 0, grad_input=grad)
        return grad if self.sign is None else grad.mul_(self.sign)

    def gradients(self, total: Tensor, moment: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of weight and bias, and the sum of gradient * xhat; all (C,).

        Args:
            total: Sum of the gradient of x for fixed statistics.
            moment: Sum of the same times x.
        """
        projection = self.inverse_std * (moment - self.mean * total)
        return projection / self.signed_scale, total / self.signed_scale, projection


def through_statistics(
    total: Tensor, projection: Tensor, mean: Tensor, inverse_std: Tensor, count: int
) -> tuple[Tensor, Tensor]:
    """What the gradient for fixed statistics lacks, as ``slope * x + offset``; columns of (C,).

    Args:
        total: Sum of the gradient for fixed statistics.
        projection: Sum of gradient * xhat.
        mean, inverse_std: Batch statistics.
        count: Values in a channel.
    """
    slope = -inverse_std * projection / count
    return column(slope), column(-total / count - slope * mean)


class Chunks:
    """The pixels of (B, P) in chunks of q: some pixels of one stack, or some whole stacks.

    Args:
        batch: Stacks B.
        pixels: Pixels P of a slice.
        target: Wanted q; the nearest that divides evenly is taken.
        together: Whether a chunk may hold several stacks.
    """

    def __init__(self, batch: int, pixels: int, target: float, together: bool) -> None:
        self.batch, self.pixels = batch, pixels
        self.stacks, self.parts = 1, 1  # stacks in a chunk, chunks in a stack
        if pixels < target and together:
            self.stacks = nearest_divisor(batch, target / pixels)
        elif pixels > target:
            self.parts = nearest_divisor(pixels, pixels / target)
        self.size = self.stacks * pixels // self.parts
        self.number = batch * pixels // self.size

    def split(self, x: Tensor) -> Tensor:
        """(B, C, D, P) to (K, C, D, q)."""
        x = x.unflatten(3, (self.parts, -1)).unflatten(0, (-1, self.stacks))
        return x.permute(0, 4, 2, 3, 1, 5).reshape(self.number, *x.shape[2:4], self.size)

    def join(self, x: Tensor) -> Tensor:
        """(K, C, D, q) to (B, C, D, P)."""
        x = x.unflatten(3, (self.stacks, -1)).unflatten(0, (-1, self.parts))
        return x.permute(0, 4, 2, 3, 1, 5).reshape(self.batch, *x.shape[2:4], self.pixels)

    def first_stack(self, index: int) -> int:
        """The first stack in a chunk."""
        return index // self.parts * self.stacks

    def of_images(self, images: Tensor, index: int) -> Tensor:
        """View of a chunk of ``images`` (B, D, C, P), as (C, D, stacks, pixels)."""
        stack, size = self.first_stack(index), self.size // self.stacks
        start = index % self.parts * size
        return images[stack : stack + self.stacks, :, :, start : start + size].permute(2, 1, 0, 3)


def nearest_divisor(number: int, target: float) -> int:
    """The divisor of ``number`` whose ratio to ``target`` is nearest to 1."""
    divisors = [d for d in range(1, number + 1) if number % d == 0]
    return min(divisors, key=lambda d: max(d / target, target / d))


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


def matrices_of(matrices: Tensor | None, chunks: Chunks, index: int) -> Tensor | None:
    """The mixing matrices (M, D, D) of a chunk."""
    return None if matrices is None else matrices[min(chunks.first_stack(index), len(matrices) - 1)]


def grad_matrices_of(matrices: Tensor | None) -> Tensor | None:
    """Zeros to gather the gradient of mixing matrices in, if they have one."""
    return None if matrices is None or not matrices.requires_grad else torch.zeros_like(matrices)


def mix(matrices: Tensor | None, x: Tensor, out: Tensor) -> Tensor:
    """Mix the slices of the first M channels of ``x`` (C, D, q) in ``out``; without matrices, ``x`` itself."""
    if matrices is None:
        return x
    count = len(matrices)
    torch.bmm(matrices, x[:count], out=out[:count])
    if count < len(x):
        out[count:] = x[count:]
    return out


def unmix(
    matrices: Tensor | None,
    grad_matrices: Tensor | None,
    chunks: Chunks,
    index: int,
    grad: Tensor,
    x: Tensor,
    out: Tensor,
) -> Tensor:
    """Backward of ``mix`` for a chunk: the gradient of ``x`` in ``out``; adds to ``grad_matrices``."""
    own = matrices_of(matrices, chunks, index)
    if own is None:
        return grad if grad is out else out.copy_(grad)
    own_grad = matrices_of(grad_matrices, chunks, index)
    if own_grad is not None:
        count = len(own)
        own_grad.baddbmm_(grad[:count], x[:count].transpose(1, 2))
    return mix(own.transpose(1, 2), grad, out)


def add_line(grad: Tensor, x: Tensor, slope: Tensor, offset: Tensor, scratch: Scratch) -> None:
    """Add ``slope * x + offset`` to ``grad`` (K, C, D, q)."""
    for part, values in zip(grad, x, strict=True):
        part += torch.mul(values, slope, out=scratch.like(0, values)).add_(offset)


def channel_statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance (C,) of ``x`` (K, C, D, q)."""
    count = x[:, 0].numel()
    mean = sum(part.sum((1, 2)) for part in x) / count
    var = sum((part - column(mean)).square_().sum((1, 2)) for part in x) / count
    return mean, var


class Scratch:
    """Memory for the results of a chunk, used again and again."""

    def __init__(self, like: Tensor, values: int, number: int) -> None:
        self._buffers = like.new_empty(number, values)

    def like(self, index: int, x: Tensor) -> Tensor:
        """Buffer ``index`` as a contiguous tensor of the shape of ``x``."""
        return self._buffers[index, : x.numel()].view(x.shape)


def column(x: Tensor) -> Tensor:
    """(C,) as (C, 1, 1)."""
    return x[:, None, None]
