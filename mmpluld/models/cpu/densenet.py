"""Inference of a whole ``TruncatedDenseNet`` or ``LensDenseNet`` by the stages of ``dense_inference``."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmpluld.models.cpu.dense_inference import fold_stem, run_dense_block, run_transition
from mmpluld.models.cpu.protocols import DenseNetLike, ImageNetworkLike, TransitionLike, mixers_are_linear

__all__ = ["can_infer_fast", "infer_image_by_image", "infer_images", "infer_last_block", "infer_stacks"]


def can_infer_fast(network: DenseNetLike, x: Tensor) -> bool:
    """Whether these functions serve: evaluation without gradients, in single precision or less, linear mixers."""
    if network.training or torch.is_grad_enabled() or network.conv0.weight.dtype == torch.float64:
        return False
    blocks = (getattr(network, f"denseblock{number}") for number in range(1, network.num_blocks + 1))
    return all(mixers_are_linear(block) for block in blocks)


def infer_stacks(network: DenseNetLike, x: Tensor, thickness_mm: Tensor | None = None) -> tuple[Tensor, ...]:
    """Maps (B, C_i, H_i, W_i) of all blocks for stacks (B, slices, H, W), one stack after the other.

    ``thickness_mm`` (B,) are the slice intervals, for mixers that depend on them.
    """
    dtype = _data_type(network)
    with torch.autocast("cpu", enabled=False):
        intervals = [None] * len(x) if thickness_mm is None else thickness_mm
        stacks = [_maps_of(network, stack, interval, dtype) for stack, interval in zip(x, intervals, strict=True)]
    return tuple(torch.stack(maps) for maps in zip(*stacks, strict=True))


def infer_images(network: DenseNetLike, images: Tensor) -> list[Tensor]:
    """Of images (N, slices, H, W): the maps (N, C, H, W) of all blocks but the last, and what enters the last."""
    dtype = _data_type(network)
    with torch.autocast("cpu", enabled=False):
        single = [_up_to_last_block(network, image, dtype) for image in images]
    return [_joined(parts) for parts in zip(*single, strict=True)]


def infer_last_block(network: ImageNetworkLike, entrance: Tensor) -> Tensor:
    """Map (N, C, H, W) of the last block for what enters it, (N, C', H, W)."""
    block = getattr(network, f"denseblock{network.num_blocks}")
    maps = []
    with torch.autocast("cpu", enabled=False):
        for features in entrance:
            buffer = features.new_empty(block.out_channels, 1, *features.shape[1:])
            buffer[: block.in_channels, 0] = features
            run_dense_block(block, buffer)
            maps.append(network.attended(buffer.unsqueeze(0)).squeeze(2))
    return _joined(maps)


def infer_image_by_image(
    network: ImageNetworkLike, x: Tensor, thickness_mm: Tensor | None = None
) -> tuple[Tensor, ...]:
    """As ``infer_stacks``, with images apart, so that stacks which share features give the same to the last bit."""
    images = x.unflatten(1, (network.depth, -1)).unbind(1)
    features = [network.image_features(image, d != network.depth // 2) for d, image in enumerate(images)]
    return tuple(torch.stack(level, 2).flatten(1, 2) for level in network.fuse(features))


def _data_type(network: DenseNetLike) -> torch.dtype:
    if torch.is_autocast_enabled("cpu"):
        return torch.get_autocast_dtype("cpu")
    return network.conv0.weight.dtype


def _maps_of(network: DenseNetLike, stack: Tensor, thickness_mm: Tensor | None, dtype: torch.dtype) -> list[Tensor]:
    """The maps (C_i, H_i, W_i) of one stack (slices, H, W)."""
    maps: list[Tensor] = []
    features = stack
    for number in range(1, network.num_blocks + 1):
        features = _block(network, number, features, thickness_mm, dtype)
        maps.append(getattr(network, f"reductionz{number}")(features.unsqueeze(0))[0])
    return maps


def _up_to_last_block(network: DenseNetLike, image: Tensor, dtype: torch.dtype) -> list[Tensor]:
    """Maps and the last block's entrance (1, C, H, W) of one image (slices, H, W)."""
    features, maps = image, []
    for number in range(1, network.num_blocks):
        features = _block(network, number, features, None, dtype)
        maps.append(features.transpose(0, 1))
    entrance = features.new_empty(features.shape[0] // 2, 1, features.shape[2] // 2, features.shape[3] // 2)
    _transition(getattr(network, f"transition{network.num_blocks - 1}"), features, entrance)
    return [*maps, entrance.transpose(0, 1)]


def _block(network: DenseNetLike, number: int, x: Tensor, thickness_mm: Tensor | None, dtype: torch.dtype) -> Tensor:
    """A dense block (C, D, H, W) and what leads to it, from the stack (slices, H, W) or the block before."""
    block = getattr(network, f"denseblock{number}")
    if number == 1:
        depth = len(x) // network.conv0.in_channels
        height, width = (((size + 1) // 2 + 1) // 2 for size in x.shape[1:])
    else:
        depth, height, width = x.shape[1], x.shape[2] // 2, x.shape[3] // 2
    buffer = x.new_empty((block.out_channels, depth, height, width), dtype=dtype)
    if number == 1:
        fold_stem(network.conv0, network.norm0, x, buffer[: block.in_channels])
    else:
        _transition(getattr(network, f"transition{number - 1}"), x, buffer[: block.in_channels])
    run_dense_block(block, buffer, thickness_mm)
    return buffer


def _transition(transition: TransitionLike, x: Tensor, out: Tensor) -> None:
    """A transition of ``x`` (C, D, H, W) into ``out`` (C / 2, D, H / 2, W / 2), without exchange between images."""
    run_transition(transition, x, out)
    attention = getattr(transition, "attention", None)
    if attention is not None:
        out.copy_(attention(out.unsqueeze(0))[0])


def _joined(parts: Sequence[Tensor]) -> Tensor:
    """Tensors (1, ...) as one (N, ...); a single one is not copied."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))
