"""The 2.5D DenseNet of LENS and MULAN: a slice stack as a few colour images that exchange features half-way."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mmpluld.errors import InputError
from mmpluld.models.backbones.truncated_densenet import Transition, TruncatedDenseNet, pointwise
from mmpluld.registry import MODELS

__all__ = ["LensDenseNet"]


class ImageMixer(nn.Conv2d):
    """Replace the features of the central image by a 1x1 convolution over those of all images.

    The weight (C, D * C, 1, 1) reads the images one after the other.

    Shape:
        Input and output (B, C, D, H, W), D images.
    """

    def __init__(self, channels: int, num_images: int) -> None:
        super().__init__(channels * num_images, channels, 1)
        self.num_images = num_images

    def forward(self, x: Tensor) -> Tensor:
        """Fuse; the other images stay as they are."""
        centre = self.num_images // 2
        # A view of the features, channel before image, with the weight in the same order.
        weight = self.weight.unflatten(1, (self.num_images, -1)).transpose(1, 2).flatten(1, 2).to(x.dtype)
        fused = pointwise(x.flatten(1, 2), weight) + self.bias[:, None, None].to(x.dtype)
        return torch.cat([x[:, :, :centre], fused.unsqueeze(2), x[:, :, centre + 1 :]], 2)


class MixingTransition(Transition):
    """A transition with an exchange between the images behind it."""

    def __init__(self, in_channels: int, num_images: int, norm_cfg: dict) -> None:
        super().__init__(in_channels, norm_cfg)
        nn.init.kaiming_normal_(self.conv.weight)
        # The initialiser from ImageNet knows by this name that the file has no such weights.
        self.mixer = ImageMixer(in_channels // 2, num_images)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W) -> (B, C / 2, D, H / 2, W / 2)."""
        return self.mixer(super().forward(x))

    def run_fused(self, x: Tensor, out: Tensor) -> None:
        """``forward`` of one stack (C, D, H, W) into ``out``, without gradients."""
        super().run_fused(x, out)
        out.copy_(self.mixer(out.unsqueeze(0))[0])


@MODELS.register_module()
class LensDenseNet(TruncatedDenseNet):
    """Truncated DenseNet-121 on images of a few neighbouring slices, fused into the central one before the last block.

    The slices are cut into images of equal depth (9 slices: 0-2, 3-5, 6-8), each an ordinary input of the 2D network,
    all with the same weights. After the last transition the central image, which holds the key slice, gets a 1x1
    convolution over the features of all images. ``ImageTopDownFusion`` is the neck that goes with it.

    Args:
        num_slices: Slices of a stack.
        num_images: Images to cut them into; odd, and a divisor of ``num_slices``.
        norm_cfg: Batch norm (``BN`` or ``SyncBN``).
        **kwargs: As for ``TruncatedDenseNet``: ``growth_rate``, ``bn_size``, ``block_config``, ``stem_channels``,
            ``with_cp`` and ``init_cfg``.

    Shape:
        Input (B, num_slices, H, W), intensities in [-50, 205] as the published window gives them. Output: one
        (B, C_i * num_images, H_i, W_i) per block at strides 4, 8, 16, in which channel c of image d is number
        ``c * num_images + d``; with the defaults C_i is 256, 512, 1024.

    Raises:
        InputError: If ``num_images`` is even or does not divide ``num_slices``, or as for ``TruncatedDenseNet``.

    Source: "Learning from Multiple Datasets with Heterogeneous and Partial Labels for Universal Lesion Detection in
    CT", 2020, Sec. IV-A, which takes the backbone of MULAN (2019) over; details from MULAN's code.
    """

    def __init__(
        self,
        num_slices: int = 9,
        num_images: int = 3,
        norm_cfg: dict = {"type": "BN"},  # noqa: B006  read only
        **kwargs: Any,
    ) -> None:
        if num_images < 1 or num_images % 2 == 0 or num_slices % num_images:
            raise InputError(
                f"num_images: {num_images} does not cut {num_slices} slices into an odd number of equal images; "
                "the paper has 3 images of 3 slices"
            )
        # Each image is a "slice" for the parts of the base class, which treat slices alike and apart.
        per_image = num_slices // num_images
        super().__init__(per_image, slice_mixer=None, slices_as="channels", norm_cfg=norm_cfg, **kwargs)
        self.num_slices = num_slices
        self.depth = num_images
        last = f"transition{self.num_blocks - 1}"
        in_channels = getattr(self, last).conv.in_channels
        self.add_module(last, MixingTransition(in_channels, num_images, norm_cfg))
