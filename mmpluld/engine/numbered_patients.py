"""Noting in checkpoints which patients' numbers of lesions a training has seen."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmpluld.registry import HOOKS

__all__ = ["NUMBERED", "NumberedPatientsHook"]

NUMBERED = "numbered_patients"
"""Key of a checkpoint's ``meta``: the patients that have a lesion with a number in training, sorted."""


@HOOKS.register_module()
class NumberedPatientsHook(Hook):
    """Write into each checkpoint the patients of the training set of whom a lesion has a number.

    Such numbers tell which marks are one lesion, which is what an embedding is later asked: ``mmpluld embed`` refuses
    these patients.
    """

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Write them."""
        dataset = runner.train_dataloader.dataset
        samples = (dataset.get_data_info(index) for index in range(len(dataset)))
        checkpoint.setdefault("meta", {})[NUMBERED] = sorted(
            {
                sample["patient"]
                for sample in samples
                if any(item.get("identity") is not None for item in sample["instances"])
            }
        )
