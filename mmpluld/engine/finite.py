"""Which tensors hold values that are no numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from mmpluld.engine.nodes import nodes

__all__ = ["all_finite", "non_finite"]


def all_finite(tensor: Tensor) -> bool:
    """Whether a tensor has neither NaN nor infinity; one of integers always is.

    Only its extremes are computed, so that a large tensor needs no memory of its size.
    """
    if tensor.is_sparse:
        tensor = tensor.detach().coalesce().values()
    if not (tensor.is_floating_point() or tensor.is_complex()) or not tensor.numel():
        return True
    tensor = torch.view_as_real(tensor.detach()) if tensor.is_complex() else tensor.detach()
    for dim, stride in enumerate(tensor.stride() if tensor.layout is torch.strided else ()):
        if stride == 0:  # the same values again and again
            tensor = tensor.narrow(dim, 0, 1)
    try:
        return bool(torch.isfinite(torch.stack(torch.aminmax(tensor))).all())
    except (RuntimeError, NotImplementedError):  # a type without an order, as of eight bits
        return bool(torch.isfinite(tensor.to_dense().float()).all())


def non_finite(node: Any, place: str = "") -> Iterator[str]:
    """The places, as dotted names, of the tensors in nested dicts, lists and tuples that are not finite.

    Args:
        node: For example a state dict.
        place: Name of ``node`` itself.
    """
    return (name for name, item in nodes(node, place) if isinstance(item, Tensor) and not all_finite(item))
