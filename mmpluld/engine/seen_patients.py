"""Noting in checkpoints which patients a training has seen, so that no later step takes them for others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmpluld.engine.checkpoint import meta_of
from mmpluld.engine.wrapped import single_datasets
from mmpluld.registry import HOOKS

__all__ = ["NUMBERED", "TRAINED", "NumberedPatientsHook", "SeenPatientsHook", "patients_trained_on"]

TRAINED = "trained_patients"
"""Key of a checkpoint's ``meta``: of each dataset, by its name in the annotation file, the ``patients`` trained on,
sorted, and the ``fold`` (``[k, K, seed, part]``, as of :class:`~mmpluld.datasets.CTLesionDataset`), None if it was not
divided."""

NUMBERED = "numbered_patients"
"""Key of a checkpoint's ``meta``: the patients that have a lesion with a number in training, sorted."""


def patients_trained_on(dataset: Any) -> dict[str, dict[str, Any]]:
    """What :data:`TRAINED` says of a training on a dataset, or on several together."""
    found: dict[str, dict[str, Any]] = {}
    for part in single_datasets(dataset):
        if (patients := getattr(part, "patients", None)) is None:
            continue
        fold = None if part.fold is None else [*part.fold, part.fold_seed, part.fold_part]
        found = _united(found, {part.annotated_as: {"fold": fold, "patients": patients}})
    return found


class SeenPatientsHook(Hook):
    """Write into each checkpoint the patients that the training has seen, and those that the weights it began with had.

    ``mmpluld propose`` refuses them where it is asked for patients that the detector has not seen. A run from a config
    has this hook.
    """

    def __init__(self) -> None:
        self._before: dict[str, dict[str, Any]] = {}

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Keep what it says: the training goes on from these weights."""
        self._before = meta_of(checkpoint).get(TRAINED, {})

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Write them."""
        now = patients_trained_on(runner.train_dataloader.dataset)
        checkpoint.setdefault("meta", {})[TRAINED] = _united(self._before, now)


@HOOKS.register_module()
class NumberedPatientsHook(Hook):
    """Write into each checkpoint the patients of whom a lesion has had a number in training.

    Such numbers tell which marks are one lesion, which is what an embedding is later asked: ``mmpluld embed`` refuses
    these patients. Those of the weights that the training began with count, too.
    """

    def __init__(self) -> None:
        self._before: Iterable[str] = ()

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Keep what it says: the training goes on from these weights."""
        self._before = meta_of(checkpoint).get(NUMBERED, ())

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Write them."""
        dataset = runner.train_dataloader.dataset
        samples = (dataset.get_data_info(index) for index in range(len(dataset)))
        numbered = {
            sample["patient"]
            for sample in samples
            if any(item.get("identity") is not None for item in sample["instances"])
        }
        checkpoint.setdefault("meta", {})[NUMBERED] = sorted(numbered.union(self._before))


def _united(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Two records as one; of a dataset in both the later fold holds."""
    result = {name: dict(record) for name, record in before.items()}
    for name, record in now.items():
        earlier = result.get(name, {"fold": None, "patients": []})
        result[name] = {
            "fold": record["fold"] or earlier["fold"],
            "patients": sorted({*earlier["patients"], *record["patients"]}),
        }
    return result
