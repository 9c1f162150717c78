"""What the parts with one expert per dataset share: which dataset a batch is of, and joining what experts find."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmcv.ops import batched_nms
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import nn

from mmpluld.compat.half_precision import widened
from mmpluld.errors import InputError, did_you_mean

__all__ = ["check_datasets", "dataset_of_batch", "join_experts"]

_TAKEN = ("weight", "bias")  # by mmengine's initialisers


def check_datasets(datasets: Sequence[str], owner: str) -> list[str]:
    """The names of the datasets as a list.

    Args:
        datasets: Names, in the order of the experts.
        owner: Class to name in messages.

    Raises:
        InputError: If there is none, one comes twice, or one cannot name a part of a model.
    """
    names = list(datasets)
    if isinstance(datasets, str) or not names or len(set(names)) < len(names):
        raise InputError(
            f"{owner}: datasets is {datasets!r}; needed is a list of different names, e.g. ['deeplesion', 'luna16']"
        )
    for name in names:
        # The parts are attributes of a ModuleDict, and mmengine initialises what has a weight.
        if not isinstance(name, str) or not name or "." in name or hasattr(nn.ModuleDict(), name) or name in _TAKEN:
            raise InputError(
                f"{owner}: {name!r} cannot name a dataset; names are text without dots and no word of PyTorch, "
                "rename it with CTLesionDataset(name=...)"
            )
    return names


def dataset_of_batch(samples: Sequence[DetDataSample], datasets: Sequence[str], owner: str) -> str:
    """Name of the one dataset that all samples of a batch are of, from their ``dataset``.

    Raises:
        InputError: If a sample does not say its dataset, they are of several, or of one without an expert.
    """
    names = {sample.metainfo.get("dataset") for sample in samples}
    if None in names:
        raise InputError(
            f"{owner}: a data sample has no 'dataset'; add it to the meta_keys of PackDetInputs, CTLesionDataset "
            "provides it"
        )
    if len(names) > 1:
        raise InputError(
            f"{owner}: a batch holds samples of {' and '.join(sorted(names))}; use LesionSampler with batch_size set "
            "to that of the data loader, then a batch comes from one dataset"
        )
    (name,) = names
    if name not in datasets:
        raise InputError(
            f"{owner}: no expert for dataset {name!r}, there are {', '.join(datasets)}"
            + did_you_mean(name, datasets)
            + "; add it to datasets, or set CTLesionDataset(name=...)"
        )
    return str(name)


def join_experts(
    groups: Sequence[InstanceData],
    nms: dict[str, Any],
    max_per_img: int,
    experts: Sequence[int] | None = None,
    unfused: bool = False,
) -> InstanceData:
    """The union of what several experts found in an image, after one non-maximum suppression.

    Args:
        groups: Of each expert: ``bboxes`` (N, 4), ``scores`` (N,), ``labels`` (N,).
        nms: Settings of mmcv's ``batched_nms``, which treats labels apart.
        max_per_img: Boxes to keep at most.
        experts: Numbers of the groups; counted from 0 by default.
        unfused: Return the whole union, in the order of the groups, and say in ``fused_scores`` what is left of it.

    Returns:
        The same keys and ``expert`` (M,), the number of the group a box comes from; best first. If ``unfused``, also
        ``fused_scores`` (M,): the score after the suppression, -1 for boxes that it, or ``max_per_img``, removes.
    """
    numbers = range(len(groups)) if experts is None else experts
    expert = torch.cat(
        [g.scores.new_full((len(g),), i, dtype=torch.long) for g, i in zip(groups, numbers, strict=True)]
    )
    boxes, scores = torch.cat([g.bboxes for g in groups]), torch.cat([g.scores for g in groups])
    union = InstanceData(
        bboxes=boxes, scores=scores, labels=torch.cat([g.labels.long() for g in groups]), expert=expert
    )
    kept, fused = torch.arange(len(boxes), device=boxes.device), scores
    if len(boxes):
        dets, kept = batched_nms(widened(boxes), widened(scores), union.labels, nms)
        kept, fused = kept[:max_per_img], dets[:max_per_img, -1]
    if unfused:
        union.fused_scores = torch.full_like(scores, -1.0)
        union.fused_scores[kept] = fused.to(scores.dtype)
        return union
    best = union[kept]
    best.scores = fused
    return best
