"""The 2.5D DenseNet of LENS and MULAN: a slice stack as a few colour images that exchange features half-way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mmpluld.errors import InputError
from mmpluld.models.backbones.domain_attention import DomainAttention
from mmpluld.models.backbones.truncated_densenet import Transition, TruncatedDenseNet, pointwise
from mmpluld.models.cpu import INFER_BY_IMAGE, INFER_IMAGES, INFER_LAST, on_cpu
from mmpluld.models.data_preprocessors import SliceStacks
from mmpluld.registry import MODELS

__all__ = ["ImageFeatures", "LensDenseNet"]


class ImageFeatures(NamedTuple):
    """What the network makes of N single images, before images meet.

    Attributes:
        maps: (N, C_i, H_i, W_i) of each block but the last, finest first.
        entrance: (N, C, H, W), what enters the last block.
        last: (N, C, H, W), what the last block makes of it; None where only the fused image needs that block.
    """

    maps: tuple[Tensor, ...]
    entrance: Tensor
    last: Tensor | None


class ImageMixer(nn.Conv2d):
    """A 1x1 convolution over the features of all images of a stack.

    The weight (C, D * C, 1, 1) reads the images one after the other.

    Shape:
        Input (B, C, D, H, W), D images; output (B, C, H, W).
    """

    def __init__(self, channels: int, num_images: int) -> None:
        super().__init__(channels * num_images, channels, 1)
        self.num_images = num_images

    def forward(self, x: Tensor) -> Tensor:
        """Fuse."""
        # A view of the features, channel before image, with the weight in the same order.
        weight = self.weight.unflatten(1, (self.num_images, -1)).transpose(1, 2).flatten(1, 2).to(x.dtype)
        return pointwise(x.flatten(1, 2), weight) + self.bias[:, None, None].to(x.dtype)


class AttendedTransition(Transition):
    """A transition with domain attention behind it, or with nothing (None)."""

    def __init__(self, in_channels: int, norm_cfg: dict, attention: dict | None) -> None:
        super().__init__(in_channels, norm_cfg)
        nn.init.kaiming_normal_(self.conv.weight)
        # The initialiser from ImageNet knows by this name, as by "mixer", that the file has no such weights.
        self.attention = None if attention is None else DomainAttention(in_channels // 2, **attention)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W) -> (B, C / 2, D, H / 2, W / 2)."""
        x = super().forward(x)
        return x if self.attention is None else self.attention(x)


class MixingTransition(AttendedTransition):
    """A transition with an exchange between the images behind it: the fused features replace the central image's."""

    def __init__(self, in_channels: int, num_images: int, norm_cfg: dict, attention: dict | None) -> None:
        super().__init__(in_channels, norm_cfg, attention)
        # The initialiser from ImageNet knows by this name that the file has no such weights.
        self.mixer = ImageMixer(in_channels // 2, num_images)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W) -> (B, C / 2, D, H / 2, W / 2)."""
        x = self.each_image(x)
        centre = x.shape[2] // 2
        return torch.cat([x[:, :, :centre], self.mixer(x).unsqueeze(2), x[:, :, centre + 1 :]], 2)

    def each_image(self, x: Tensor) -> Tensor:
        """``forward`` without the exchange."""
        return super().forward(x)


@MODELS.register_module()
class LensDenseNet(TruncatedDenseNet):
    """Truncated DenseNet-121 on images of a few neighbouring slices, fused into the central one before the last block.

    The slices are cut into images of equal depth (9 slices: 0-2, 3-5, 6-8), each an ordinary input of the 2D network,
    all with the same weights. After the last transition the central image, which holds the key slice, gets a 1x1
    convolution over the features of all images. ``ImageTopDownFusion`` is the neck that goes with it.

    Args:
        num_slices: Slices of a stack.
        num_images: Images to cut them into; odd, and a divisor of ``num_slices``.
        domain_attention: Settings of ``DomainAttention`` (``num_adapters``, ``reduction``), which then follows every
            transition and the last block, for each image before images meet; where it sits in a DenseNet the paper
            does not say. None, as in the paper's own detector, for none.
        norm_cfg: Batch norm (``BN`` or ``SyncBN``).
        **kwargs: As for ``TruncatedDenseNet``: ``growth_rate``, ``bn_size``, ``block_config``, ``stem_channels``,
            ``with_cp`` and ``init_cfg``.

    Shape:
        Input (B, num_slices, H, W), intensities in [-50, 205] as the published window gives them. Output: one
        (B, C_i * num_images, H_i, W_i) per block at strides 4, 8, 16, in which channel c of image d is number
        ``c * num_images + d``; with the defaults C_i is 256, 512, 1024.

    In whole volumes each image belongs to several stacks. ``image_features`` computes what does not depend on the
    stack, and ``forward`` takes a list of these, one per image, in place of the stack.

    Raises:
        InputError: If ``num_images`` is even or does not divide ``num_slices``, or as for ``TruncatedDenseNet``.

    Source: "Learning from Multiple Datasets with Heterogeneous and Partial Labels for Universal Lesion Detection in
    CT", 2020, Sec. IV-A, which takes the backbone of MULAN (2019) over; details from MULAN's code.
    """

    def __init__(
        self,
        num_slices: int = 9,
        num_images: int = 3,
        domain_attention: dict | None = None,
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
        last = self.num_blocks - 1
        channels = [getattr(self, f"transition{number}").conv.in_channels for number in range(1, last + 1)]
        if domain_attention is not None:
            for number in range(1, last):
                attended = AttendedTransition(channels[number - 1], norm_cfg, domain_attention)
                self.add_module(f"transition{number}", attended)
        mixing = MixingTransition(channels[-1], num_images, norm_cfg, domain_attention)
        self.add_module(f"transition{last}", mixing)
        if domain_attention is not None:
            # Where the base class reduces the depth of what the last block makes.
            attention = DomainAttention(getattr(self, f"denseblock{last + 1}").out_channels, **domain_attention)
            self.add_module(f"reductionz{last + 1}", nn.Sequential(attention, nn.Flatten(1, 2)))

    def forward(self, inputs: Tensor | SliceStacks | Sequence[ImageFeatures]) -> tuple[Tensor | list[Tensor], ...]:
        """Maps of all blocks, finest first; from features of images, each map is the list of its images' maps."""
        return super().forward(inputs) if isinstance(inputs, (Tensor, SliceStacks)) else self.fuse(inputs)

    @on_cpu(INFER_BY_IMAGE)  # the base class would take a shortcut that does not let images meet
    def _maps(self, x: Tensor, thickness_mm: Tensor | None) -> tuple[Tensor, ...]:
        return super()._maps(x, thickness_mm)

    @torch.no_grad()
    def image_features(self, images: Tensor, with_last: bool = True) -> ImageFeatures:
        """Features of single images, for evaluation.

        Args:
            images: (N, num_slices / num_images, H, W); number d of a stack is that of its slices which ``forward``
                takes for image d.
            with_last: Also run the last block, as needed of all images but the central one.
        """
        *maps, entrance = self._up_to_last_block(images)
        return ImageFeatures(tuple(maps), entrance, self._last_block(entrance) if with_last else None)

    @on_cpu(INFER_IMAGES)
    def _up_to_last_block(self, images: Tensor) -> list[Tensor]:
        """Maps (N, C, H, W) of the blocks before the last, and what enters that one, without exchange of images."""
        x, maps = self._stem(images), []
        for number in range(1, self.num_blocks):
            x = getattr(self, f"denseblock{number}")(x)
            maps.append(x.squeeze(2))
            transition = getattr(self, f"transition{number}")
            x = transition.each_image(x) if isinstance(transition, MixingTransition) else transition(x)
        return [*maps, x.squeeze(2)]

    @on_cpu(INFER_LAST)
    def _last_block(self, entrance: Tensor) -> Tensor:
        """Map (N, C, H, W) of the last block."""
        block = getattr(self, f"denseblock{self.num_blocks}")
        return self.attended(block(entrance.unsqueeze(2))).squeeze(2)

    def attended(self, x: Tensor) -> Tensor:
        """The output (B, C, D, H, W) of the last block after the attention, if there is one."""
        reduction = getattr(self, f"reductionz{self.num_blocks}")
        return reduction[0](x) if isinstance(reduction, nn.Sequential) else x

    @torch.no_grad()
    def fuse(self, images: Sequence[ImageFeatures]) -> tuple[list[Tensor], ...]:
        """For each block the maps (B, C, H, W) of all images of B stacks, from the features of each image."""
        mixer = getattr(self, f"transition{self.num_blocks - 1}").mixer
        last = [image.last for image in images]
        last[self.depth // 2] = self._last_block(mixer(torch.stack([image.entrance for image in images], 2)))
        return (*map(list, zip(*(image.maps for image in images), strict=True)), last)
