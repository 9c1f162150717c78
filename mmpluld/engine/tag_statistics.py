"""Handing the model what its tag losses need to know of the training set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmpluld.engine.wrapped import single_datasets, unwrapped
from mmpluld.errors import InputError
from mmpluld.registry import HOOKS

__all__ = ["TagStatisticsHook"]


@HOOKS.register_module()
class TagStatisticsHook(Hook):
    """Count the tags of the training set before training, for the model, or its RoI head, with ``set_tag_statistics``.

    The training dataset is a ``CTLesionDataset`` whose annotation file was written by ``mmpluld convert deeplesion
    --tags``, or several in a ``ConcatDataset``, of which some may have no tags. Each lesion counts once, on however
    many slices it is.

    Raises:
        InputError: No annotation file has tags, two name different ones, no lesion has a tag, or their number is not
            the head's.
    """

    def before_train(self, runner: Runner) -> None:
        """Count and hand over."""
        datasets = list(single_datasets(runner.train_dataloader.dataset))
        header = tag_header(datasets)
        tags = [own for dataset in datasets for own in lesion_tags(dataset)]
        if not tags:
            files = ", ".join(dataset.ann_file for dataset in datasets)
            raise InputError(f"{files}: no lesion has tags; do they belong to this DL_info.csv?")
        terms = header["terms"]
        counts = torch.zeros(len(terms))
        for own in tags:
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


def tag_header(datasets: Sequence[Any]) -> dict[str, Any]:
    """What the annotation files say of their tags, terms and which of them exclude each other; the same in all."""
    headers = [(dataset, dataset.metainfo["dataset"].get("tags")) for dataset in datasets]
    tagged = [(dataset, header) for dataset, header in headers if header is not None]
    if not tagged:
        raise InputError(f"{datasets[0].ann_file}: has no tags; write them with {_command(datasets[0])}")
    (first, wanted), *others = tagged
    for dataset, header in others:
        if header != wanted:
            raise InputError(
                f"{dataset.ann_file}: its tags are not those of {first.ann_file}, as they must be in one training; "
                f"write them from the same files with {_command(dataset)}"
            )
    return dict(wanted)


def _command(dataset: Any) -> str:
    root = dataset.data_root or "ROOT"
    return f"`mmpluld convert deeplesion {root} --tags FILE --tag-ontology FILE --overwrite`"


def lesion_tags(dataset: Any) -> list[list[int]]:
    """Tags of each lesion in a single dataset that has some; lesions to be ignored are not counted.

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
    return list(found.values())
