"""What wrappers of mmengine and mmdet hold: the model itself, and the datasets that one is put together from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmengine.model import is_model_wrapper
from torch import nn

__all__ = ["folds_left_out", "single_datasets", "unwrapped"]


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


def folds_left_out(dataset: Any) -> dict[str, dict[str, Any]]:
    """Of each dataset that leaves a fold of the patients out, by name: ``fold`` (k, K, seed), and whom it keeps."""
    return {
        part.metainfo["dataset"]["name"]: {
            "fold": [*part.fold, part.fold_seed],
            "patients": part.patients,
        }
        for part in single_datasets(dataset)
        if getattr(part, "fold", None) is not None and part.fold_part == "out"
    }
