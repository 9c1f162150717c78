"""What wrappers of mmengine and mmdet hold: the model itself, and the datasets that one is put together from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmengine.model import is_model_wrapper
from torch import nn

__all__ = ["single_datasets", "unwrapped"]


def unwrapped(model: nn.Module) -> nn.Module:
    """The model itself, where it is wrapped for several processes."""
    inner: nn.Module = model.module if is_model_wrapper(model) else model
    return inner


def single_datasets(dataset: Any) -> Iterator[Any]:
    """The datasets with an annotation file that a dataset is put together from; one that is not, itself."""
    parts = [*getattr(dataset, "datasets", []), *([dataset.dataset] if hasattr(dataset, "dataset") else [])]
    if not parts:
        yield dataset
    for part in parts:
        yield from single_datasets(part)
