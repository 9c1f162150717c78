"""Several datasets in one training, each under a name of its own."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from mmpluld.registry import DATASETS  # first: it makes mmdet importable where mmcv has no compiled operators

# isort: split
from mmdet.datasets import ConcatDataset

from mmpluld.errors import InputError, did_you_mean

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
        InputError: If no dataset is left, or one lacks its type or an argument that has no default.
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
        for name in filter(datasets.get, datasets):
            _check_complete(name, datasets, shared or {})
        # The header of the annotation files differs from dataset to dataset.
        super().__init__(datasets=parts, ignore_keys=["dataset"], **kwargs)


def _check_complete(name: str, datasets: Mapping[str, Any], shared: Mapping[str, Any]) -> None:
    """Refuse settings that lack what their dataset cannot be built without, as those under a misspelt name do."""
    settings = {**shared, **datasets[name]}
    kind = settings.get("type")
    entry = DATASETS.get(kind) if isinstance(kind, str) else kind
    arguments = inspect.signature(entry).parameters.values() if entry else ()
    needed = [
        item.name
        for item in arguments
        if item.default is item.empty and item.kind not in (item.VAR_KEYWORD, item.VAR_POSITIONAL)
    ]
    for key in ("type", *needed):
        if key not in settings:
            others = [other for other in datasets if other != name]
            hint = did_you_mean(name, others, "give it, or set the dataset to None")
            raise InputError(f"NamedConcatDataset: datasets.{name} has no {key}{hint}")
