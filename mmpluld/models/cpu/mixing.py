"""Mixing of slices by matrices, of one chunk of pixels at a time, with its gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from mmpluld.models.cpu.chunks import Chunks

__all__ = ["grad_matrices_of", "matrices_of", "mix", "unmix"]


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


def matrices_of(matrices: Tensor | None, chunks: Chunks, index: int) -> Tensor | None:
    """The mixing matrices (M, D, D) of a chunk."""
    return None if matrices is None else matrices[min(chunks.first_stack(index), len(matrices) - 1)]


def grad_matrices_of(matrices: Tensor | None) -> Tensor | None:
    """Zeros to gather the gradient of mixing matrices in, if they have one."""
    return None if matrices is None or not matrices.requires_grad else torch.zeros_like(matrices)
