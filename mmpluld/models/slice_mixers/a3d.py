"""A3D: learned, asymmetric fusion of the slices of a stack."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmpluld.registry import MODELS

__all__ = ["A3DMixer"]


@MODELS.register_module()
class A3DMixer(nn.Module):
    """Replace every slice by a learned linear combination of all slices, with other weights for each channel.

    With source slice d, target slice k and channel c:

        y[b, c, k, h, w] = sum_d weight[d, k, c] * x[b, c, d, h, w]

    The weights start at the identity plus noise from U(-0.1, 0.1).

    Args:
        channels: Channels C of the input.
        num_slices: Slices D of the stack; fixed, as the weights depend on the position in the stack.

    Shape:
        Input and output (B, C, D, H, W).

    Source: "Asymmetric 3D Context Fusion for Universal Lesion Detection", 2021, Sec. 2.2.
    """

    def __init__(self, channels: int, num_slices: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_slices, num_slices, channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the weights to the identity plus noise."""
        with torch.no_grad():
            self.weight.uniform_(-0.1, 0.1)
            self.weight.diagonal(dim1=0, dim2=1).add_(1.0)

    def matrices(self, thickness_mm: Tensor | None = None) -> Tensor:
        """The linear maps (C, target slice, source slice) that ``forward`` applies to the slices of each channel."""
        return self.weight.permute(2, 1, 0).contiguous()  # else the batched product runs one channel at a time

    def forward(self, x: Tensor, thickness_mm: Tensor | None = None) -> Tensor:
        """Mix the slices of ``x`` (B, C, D, H, W); the slice interval has no influence."""
        return torch.matmul(self.matrices(), x.flatten(3)).view(x.shape)

    def extra_repr(self) -> str:
        num_slices, _, channels = self.weight.shape
        return f"channels={channels}, num_slices={num_slices}"
