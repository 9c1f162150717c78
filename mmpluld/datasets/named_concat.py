"""Several datasets in one training, each under a name of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmpluld.registry import DATASETS  # first: it makes mmdet importable where mmcv has no compiled operators

# isort: split
from mmdet.datasets import ConcatDataset

from mmpluld.errors import InputError

__all__ = ["NamedConcatDataset", "dataset_settings"]


def dataset_settings(dataset: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the settings of every single dataset of a dataloader's ``dataset``, complete."""
    parts = dataset.get("datasets")
    if parts is None:
        return [dict(dataset)]
    if not isinstance(parts, Mapping):
        return [dict(part) for part in parts]
    order = [*dataset.get("order", ()), *sorted(set(parts) - set(dataset.get("order", ())))]
    return [{**dataset.get("shared", {}), **parts[name]} for name in order if parts.get(name)]


@DATASETS.register_module()
class NamedConcatDataset(ConcatDataset):
    """Datasets one after the other, in a config that names each and says once what they share.

    Args:
        datasets: Settings of each dataset by name; None leaves one out.
        order: Names in the order of the datasets; those that are not there follow by name.
        shared: Settings of all of them; what a dataset sets itself takes the place of the shared value.
        **kwargs: Further arguments of mmdet's ``ConcatDataset``.

    Raises:
        InputError: If no dataset is left.
    """

    def __init__(
        self,
        datasets: Mapping[str, Any],
        shared: Mapping[str, Any] | None = None,
        order: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        parts = dataset_settings({"datasets": datasets, "shared": shared or {}, "order": order})
        if not parts:
            raise InputError(f"NamedConcatDataset: all of {', '.join(datasets) or 'no dataset'} left out; keep one")
        # The header of the annotation files differs from dataset to dataset.
        super().__init__(datasets=parts, ignore_keys=["dataset"], **kwargs)
