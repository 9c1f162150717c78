"""Handing the model what its tag losses need to know of the training set."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmpluld.engine.wrapped import unwrapped
from mmpluld.errors import InputError
from mmpluld.registry import HOOKS

__all__ = ["TagStatisticsHook"]


@HOOKS.register_module()
class TagStatisticsHook(Hook):
    """Count the tags of the training set before training, for the model, or its RoI head, with ``set_tag_statistics``.

    The training dataset is a ``CTLesionDataset`` whose annotation file was written by ``mmpluld convert deeplesion
    --tags``. Each lesion counts once, on however many slices it is.

    Raises:
        InputError: The annotation file has no tags, none of its lesions has one, or their number is not the head's.
    """

    def before_train(self, runner: Runner) -> None:
        """Count and hand over."""
        dataset = runner.train_dataloader.dataset
        header = dataset.metainfo["dataset"].get("tags")
        if header is None:
            raise InputError(
                f"{dataset.ann_file}: has no tags; write them with `mmpluld convert deeplesion "
                f"{dataset.data_root or 'ROOT'} --tags FILE --tag-ontology FILE --overwrite`"
            )
        tags = lesion_tags(dataset)
        if not tags:
            raise InputError(f"{dataset.ann_file}: none of its lesions has tags; do they belong to this DL_info.csv?")
        terms = header["terms"]
        counts = torch.zeros(len(terms))
        for own in tags.values():
            counts[own] += 1
        exclusive = torch.zeros(len(terms), len(terms), dtype=torch.bool)
        for term, others in enumerate(header["exclusive"]):
            exclusive[term, others] = True
        model = unwrapped(runner.model)
        getattr(model, "roi_head", model).set_tag_statistics(counts, len(tags), exclusive)
        runner.logger.info(
            f"{len(tags)} lesions have {int(counts.sum())} tags of {len(terms)} kinds; "
            f"{int(exclusive.sum()) // 2} pairs of kinds exclude each other"
        )


def lesion_tags(dataset: Any) -> dict[int, list[int]]:
    """Tags of the lesions in a dataset that have some, by lesion id; lesions to be ignored are not counted.

    Nor are doubtful tags, where the pipeline masks them.
    """
    steps = getattr(getattr(dataset, "pipeline", None), "transforms", ())
    masked = any(getattr(step, "uncertain", None) == "masked" for step in steps)
    found: dict[int, list[int]] = {}
    for index in range(len(dataset)):
        for item in dataset.get_data_info(index)["instances"]:
            if item.get("tags") is not None and not item["ignore_flag"]:
                doubtful = (item.get("uncertain_tags") or ()) if masked else ()
                found[item["lesion_id"]] = [tag for tag in item["tags"] if tag not in doubtful]
    return found
