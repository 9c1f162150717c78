"""How many of a training's negatives lie on lesions that nobody marked, where the complete truth is known."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.models.dense_heads import AnchorHead
from mmdet.models.dense_heads.anchor_free_head import AnchorFreeHead
from mmdet.models.roi_heads.base_roi_head import BaseRoIHead
from mmdet.structures.bbox import bbox_overlaps, get_box_tensor
from mmengine.dist import all_gather_object, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, nn

from mmpluld.atomic import atomic_write_text
from mmpluld.engine.wrapped import single_datasets, unwrapped
from mmpluld.errors import InputError
from mmpluld.registry import HOOKS
from mmpluld.structures import AnnotationSet, boxes_by_slice

__all__ = ["NegativesHook"]

_SAME_IOU = 0.5
"""A lesion of the truth is marked if a box of the training set overlaps it so far."""
_TOUCHING_IOU = 0.5
_COUNTS = ("negatives", "touching", "centred")
_STATE = "negatives"

Negatives = list[tuple[int, Tensor]]  # number of an image, boxes (N, 4) or points (N, 2) in its pixels


@HOOKS.register_module()
class NegativesHook(Hook):
    """Measure over a training the share of negatives on unmarked lesions; the training itself does not change.

    In every ``interval``-th iteration it notes which anchors, cells and regions the heads take for negatives, after
    their samplers and before a loss that looks at the score, and compares them with the lesions of the complete truth
    that the training set lacks, brought to the image by the sample's own geometry. At the end it writes
    ``negatives.json`` into the work folder:

    - ``rpn``: share of the negatives of the dense heads (proposal network, one-stage head), ``roi`` of the RoI head's,
      that touch an unmarked lesion. A box touches one with an IoU of at least 0.5, whatever the assigner's threshold; a
      cell of a head without anchors, in the central half of its sides;
    - ``rpn_centre``, ``roi_centre``: the looser share of those whose centre is inside an unmarked lesion;
    - ``rpn_negatives``, ``roi_negatives``: how many negatives were seen, ``images``: on how many images.

    A stage that the detector lacks has no keys, nor has ``CenterNetProposalHead``, whose targets are soft. Only samples
    of volumes that the truth holds are counted. Parts of lesions at the image's edge count if their centre is inside;
    lesions that the truth says to ignore do not. The counts of a resumed training go on from its last epoch's.

    Args:
        truth: Annotation file with all lesions on the training slices (of a phantom, ``truth/train_key_slices.json``),
            absolute, or relative to the ``data_root`` of the training set.
        interval: Iterations from one measurement to the next.

    Raises:
        InputError: ``interval`` is less than 1, or ``truth`` no path; before training, if there is no such file, it
            holds no volume of the training set, or the pipeline does not hand over ``homography_matrix``.
    """

    def __init__(self, truth: str, interval: int = 50) -> None:
        if not isinstance(truth, str):
            raise InputError(
                f"NegativesHook: truth is {truth!r}; it is the path of an annotation file with all lesions"
            )
        if isinstance(interval, bool) or not isinstance(interval, int) or interval < 1:
            raise InputError(f"NegativesHook: interval is {interval}; it is a number of iterations from 1")
        self.truth = truth
        self.interval = interval
        self._unmarked: dict[tuple[str, int], Tensor] = {}
        self._here: list[Tensor | None] = []  # unmarked lesions of each image of the batch; None: not in the truth
        self._found: dict[str, Negatives] = {}
        self._undo: list[Callable[[], Any]] = []
        self._new: dict[str, int] = {}
        self._total: dict[str, int] = {}

    def before_train(self, runner: Runner) -> None:
        """Find the unmarked lesions of all samples."""
        self._unmarked = {}
        for dataset in single_datasets(runner.train_dataloader.dataset):
            self._unmarked.update(_unmarked_lesions(dataset, Path(dataset.data_root or "") / self.truth))
        if not self._unmarked:
            raise InputError(
                f"NegativesHook: {self.truth} holds no volume of the training set; give its complete truth"
            )
        self._new = {}
        self._total = dict(runner.message_hub.get_info(_STATE) or {})

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Watch the heads in this iteration if it is its turn."""
        if runner.iter % self.interval:
            return
        self._here = [self._in_image(sample.metainfo) for sample in data_batch["data_samples"]]
        self._found = {"rpn": [], "roi": []}
        for module in unwrapped(runner.model).modules():
            if isinstance(module, BaseRoIHead) and hasattr(module, "bbox_sampler"):
                self._undo.append(_watch_sampler(module, "bbox_sampler", self._found["roi"]))
            elif isinstance(module, AnchorHead) and hasattr(module, "sampler"):
                self._undo.append(_watch_sampler(module, "sampler", self._found["rpn"]))
            elif isinstance(module, AnchorFreeHead):
                self._undo.append(_watch_points(module, self._found["rpn"]))

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Count what was seen."""
        if not self._undo:
            return
        for undo in self._undo:
            undo()
        self._undo = []
        _add(self._new, {"images": sum(boxes is not None for boxes in self._here)})
        for stage, found in self._found.items():
            for image, places in found:
                lesions = self._here[image]
                if lesions is not None:
                    touching, centred = _on_lesions(places, lesions.to(places))
                    seen = (len(places), int(touching.sum()), int(centred.sum()))
                    _add(self._new, {f"{stage}_{name}": count for name, count in zip(_COUNTS, seen, strict=True)})

    def after_train_epoch(self, runner: Runner) -> None:
        """Join the counts of all processes, and leave them to the checkpoint."""
        for part in all_gather_object(self._new):
            _add(self._total, part)
        self._new = {}
        runner.message_hub.update_info(_STATE, self._total)

    def after_train(self, runner: Runner) -> None:
        """Write the shares."""
        if not is_main_process():
            return
        report: dict[str, float | int] = {"images": self._total.get("images", 0)}
        for stage in ("rpn", "roi"):
            count, touching, centred = (self._total.get(f"{stage}_{name}", 0) for name in _COUNTS)
            if count:
                report |= {stage: touching / count, f"{stage}_centre": centred / count, f"{stage}_negatives": count}
        atomic_write_text(Path(runner.work_dir) / "negatives.json", json.dumps(report, indent=1) + "\n")

    def _in_image(self, meta: dict[str, Any]) -> Tensor | None:
        """Unmarked lesions (K, 4) of a sample in the pixels of its image; None if the truth does not know it."""
        boxes = self._unmarked.get((meta["volume_id"], meta["key_slice"]))
        if boxes is None:
            return None
        matrix = torch.as_tensor(np.asarray(meta.get("homography_matrix", np.eye(3))), dtype=torch.float64)
        corners = boxes[:, [0, 1, 2, 1, 0, 3, 2, 3]].view(-1, 4, 2).double()
        moved = corners @ matrix[:2, :2].T + matrix[:2, 2]
        height, width = meta["img_shape"][:2]
        low, high = moved.amin(1), moved.amax(1)
        centre, size = (low + high) / 2, moved.new_tensor([width, height])
        inside = ((centre >= 0) & (centre < size)).all(1)
        return torch.cat([low.clamp(min=0), high.minimum(size)], 1)[inside].float()


def _unmarked_lesions(dataset: Any, truth: Path) -> dict[tuple[str, int], Tensor]:
    """Boxes (K, 4) of the truth's lesions that a dataset lacks, by volume and slice of its samples."""
    if not truth.is_file():
        raise InputError(f"NegativesHook: {truth}: no such file; give an annotation file with all lesions as truth")
    if not any("homography_matrix" in getattr(step, "meta_keys", ()) for step in dataset.pipeline.transforms):
        raise InputError(
            "NegativesHook: samples come without their geometry; add 'homography_matrix' to meta_keys of "
            "PackDetInputs in the training pipeline"
        )
    known = AnnotationSet.load(truth)
    volumes = {volume.id for volume in known.volumes}
    boxes: dict[tuple[str, int], list[tuple[float, ...]]] = {}
    for lesion in known.lesions:
        if not lesion.ignore:
            for index, box in boxes_by_slice(lesion).items():
                boxes.setdefault((lesion.volume, index), []).append(box)
    unmarked = {}
    for number in range(len(dataset)):
        sample = dataset.get_data_info(number)
        key = (sample["volume_id"], sample["key_slice"])
        if key[0] in volumes:
            own = torch.tensor([item["bbox"] for item in sample["instances"]], dtype=torch.float32).view(-1, 4)
            every = torch.tensor(boxes.get(key, []), dtype=torch.float32).view(-1, 4)
            unmarked[key] = every[~(bbox_overlaps(every, own) >= _SAME_IOU).any(1)]
    return unmarked


class _WatchedSampler:
    """A sampler that notes the negatives of what it samples, image after image."""

    def __init__(self, sampler: Any, found: Negatives) -> None:
        self._sampler = sampler
        self._found = found
        self._calls = 0

    def sample(self, *args: Any, **kwargs: Any) -> Any:
        result = self._sampler.sample(*args, **kwargs)
        self._found.append((self._calls, get_box_tensor(result.neg_priors).detach()))
        self._calls += 1
        return result

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sampler, name)


def _watch_sampler(head: nn.Module, name: str, found: Negatives) -> Callable[[], Any]:
    """Note what a head samples; the result undoes it."""
    sampler = getattr(head, name)
    setattr(head, name, _WatchedSampler(sampler, found))
    return lambda: setattr(head, name, sampler)


def _watch_points(head: nn.Module, found: Negatives) -> Callable[[], Any]:
    """Note the negative cells of a head without anchors as it calls its classification loss; the result undoes it."""
    sizes: list[torch.Size] = []

    def after_forward(module: nn.Module, args: Any, outputs: Any) -> None:
        sizes[:] = [score.shape for score in outputs[0]]

    def before_loss(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        scores, labels = args[:2]
        weights = args[2] if len(args) > 2 else kwargs.get("weight")
        # Cells that are left out have no weight, or in FCOS, which has none, a logit of their own.
        left_out = getattr(head, "left_out_logit", -torch.inf)
        taken = scores.amax(1) > left_out if weights is None else weights > 0
        negative = (labels == scores.size(1)) & taken
        # Level by level, in each image by image.
        levels = head.prior_generator.grid_priors([size[2:] for size in sizes], device=scores.device)
        count = sizes[0][0]
        points = torch.cat([level.repeat(count, 1) for level in levels])
        image = torch.cat([torch.arange(count).repeat_interleave(len(level)) for level in levels]).to(scores.device)
        found.extend((number, points[negative & (image == number)]) for number in range(count))

    handles = [
        head.register_forward_hook(after_forward),
        head.loss_cls.register_forward_pre_hook(before_loss, with_kwargs=True),
    ]
    return lambda: [handle.remove() for handle in handles]


def _on_lesions(places: Tensor, lesions: Tensor) -> tuple[Tensor, Tensor]:
    """Which boxes (N, 4) or points (N, 2) touch one of the lesions (K, 4), and which have their centre in one."""
    centre = places if places.size(1) == 2 else (places[:, :2] + places[:, 2:]) / 2
    middle, half = (lesions[:, :2] + lesions[:, 2:]) / 2, (lesions[:, 2:] - lesions[:, :2]) / 2
    offset = (centre[:, None] - middle).abs()
    inside = (offset < half).all(-1).any(1)
    if places.size(1) == 2:
        return (offset < half / 2).all(-1).any(1), inside
    return (bbox_overlaps(places, lesions) >= _TOUCHING_IOU).any(1), inside


def _add(total: dict[str, int], part: dict[str, int]) -> None:
    for name, count in part.items():
        total[name] = total.get(name, 0) + count
