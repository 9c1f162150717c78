"""What the shortcuts ask of the parts of a network, whose classes they do not know."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from torch import Tensor, nn

__all__ = [
    "DenseBlockLike",
    "DenseLayerLike",
    "DenseNetLike",
    "ImageNetworkLike",
    "TransitionLike",
    "mixers_are_linear",
]


class DenseLayerLike(Protocol):
    """Norm, ReLU, mixing, 1x1 convolution; norm, ReLU, mixing, 3x3 convolution; no biases.

    The convolutions have a ``mixer``: None, or a module whose ``matrices(thickness_mm)`` gives the linear maps
    (M, target slice, source slice) that it applies to the slices of the first M channels.
    """

    norm1: Any
    conv1: Any
    norm2: Any
    conv2: Any


class DenseBlockLike(Protocol):
    """Dense layers, as its children."""

    in_channels: int
    out_channels: int

    def children(self) -> Iterator[Any]:
        """The layers, ``DenseLayerLike``."""


class TransitionLike(Protocol):
    """Norm, ReLU, 2x2 average pooling, 1x1 convolution without bias; then ``attention``, where that is not None."""

    norm: Any
    conv: Any


class DenseNetLike(Protocol):
    """Stem, and dense blocks with transitions between them.

    They are named ``denseblock1``, ``transition1``, ``denseblock2``, ...; ``reductionz1``, ... make of a block's output
    (B, C, D, H, W) its map (B, C', H', W').
    """

    training: bool
    num_blocks: int
    conv0: nn.Conv2d
    norm0: Any


class ImageNetworkLike(DenseNetLike, Protocol):
    """A ``DenseNetLike`` that treats the ``depth`` images of a stack alone until they meet in ``fuse``."""

    depth: int

    def image_features(self, images: Tensor, with_last: bool = True) -> Any:
        """Features of images (N, slices, H, W)."""

    def fuse(self, images: Sequence[Any]) -> tuple[list[Tensor], ...]:
        """Maps of each block, a list of the images' (B, C, H, W), from the features of all images."""

    def attended(self, x: Tensor) -> Tensor:
        """The output (B, C, D, H, W) of the last block with what follows it for each image."""


def mixers_are_linear(block: DenseBlockLike) -> bool:
    """Whether all mixers of a block have matrices."""
    mixers = [conv.mixer for layer in block.children() for conv in (layer.conv1, layer.conv2)]
    return all(mixer is None or hasattr(mixer, "matrices") for mixer in mixers)
