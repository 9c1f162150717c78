"""Batch norm with the statistics of the batch, and ReLU, forth and back in two passes over the data."""

from __future__ import annotations

import torch
from torch import Tensor

from mmpluld.models.cpu.chunks import Scratch

__all__ = ["BatchNormReLU", "add_line", "channel_statistics", "through_statistics"]

_SMALLEST_SCALE = 1e-12
"""Norm scales nearer to zero are moved away to here: the threshold mean - bias / scale would leave the number range."""


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


def column(x: Tensor) -> Tensor:
    """(C,) as (C, 1, 1)."""
    return x[:, None, None]
