"""Detection in whole CT volumes with a detector of the zoo."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import init_default_scope
from torch import nn

from mmpluld.datasets.steps import pipeline_steps
from mmpluld.datasets.transforms import CropBody, LoadSliceStack
from mmpluld.datasets.transforms.body import body_box
from mmpluld.engine.checkpoint import load_weights
from mmpluld.engine.device import checked_device
from mmpluld.errors import InputError
from mmpluld.evaluation.functional import measure_recist
from mmpluld.evaluation.metrics.froc_metric import predicted_boxes, to_array
from mmpluld.inference.grid_source import GridSliceSource
from mmpluld.inference.stacks import SharedFeatures, StackLoader, shares_images
from mmpluld.io.slice_sources import SliceSource, VolumeSliceSource
from mmpluld.io.slice_stack import StackPlan
from mmpluld.postprocess import Box3D, link_slices, paste_mask, tracklet_to_box3d
from mmpluld.postprocess.grid import GridRule
from mmpluld.postprocess.linking import LinkOrder, ScoreRule
from mmpluld.progress import track
from mmpluld.registry import MODELS, TRANSFORMS
from mmpluld.structures import RECIST, CTVolume, Finding

__all__ = ["Lesion3D", "Precision", "VolumeDetector"]

Precision = Literal["fp32", "bf16"]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Lesion3D:
    """One detection in a series.

    Attributes:
        found: Its box and key slice in slice numbers of the series, its score, its 2D box on the key slice.
        recist: Diameters on the key slice; None where the model predicts no mask.
        tags: Name and score of each tag on the key slice, best first; empty where the model predicts none.
    """

    found: Box3D
    recist: RECIST | None = None
    tags: tuple[tuple[str, float], ...] = ()


class _SliceResult(NamedTuple):
    """2D boxes (n, 4) in pixels of the volume, scores (n,), masks over the boxes (n, h, w), tag scores (n, T)."""

    boxes: FloatArray
    scores: FloatArray
    masks: FloatArray | None
    tag_scores: FloatArray | None


class VolumeDetector:
    """A trained 2.5D detector that is run over every slice of a volume's grid.

    The volume is examined on a regular grid along z, whose gap is that of the config's ``LoadSliceStack`` (2 mm in
    the papers; its native rules keep the slices of thicker scans), through the config's own test pipeline. A model
    that asks for the slice interval is told the scan's own. Where the pipeline cuts away the air around the body
    (``CropBody``), all slices are cut alike, to the box that holds the body on each of them. The 2D boxes are linked
    into 3D boxes and mapped back to whole slices of the scan. Memory beyond the volume itself does not grow with the
    number of slices.

    Args:
        config: A loaded config of the zoo.
        model: Weights that belong to its model, or the model itself, built and on its device.
        device: ``cpu``, ``cuda`` or ``cuda:N``, for weights.
        precision: ``bf16`` runs the network in mixed precision.
        score_thr: 2D boxes below this score are dropped before linking, in [0, 1]; so are boxes without area.
        iou_thr: See :func:`mmpluld.postprocess.link_slices`, as for the next two.
        max_gap: Grid slices without a partner that a chain of 2D boxes may bridge.
        link_order: ``iou`` or ``score``, which pair of boxes comes first.
        score_rule: ``max`` or ``mean``, see :func:`mmpluld.postprocess.tracklet_to_box3d`.
        grid_rule: ``covered`` or ``nearest``, see :class:`mmpluld.postprocess.GridMap`.
        min_slices: Chains with 2D boxes on fewer grid slices are dropped.
        max_boxes: 3D boxes to keep of a volume, those with the best scores; None keeps all.
        batch_size: Grid slices examined at once.
        tag_names: Names of the tags that the model predicts; None numbers them.
        tag_thr: Tags below this score are left out, in [0, 1].
        share: Let stacks share the features of images that are the same, where the backbone can (``LensDenseNet``).
            The findings are the same without.

    Raises:
        InputError: If a setting is not allowed, or the weights are unreadable or of another model.
    """

    def __init__(
        self,
        config: Config,
        model: str | os.PathLike[str] | nn.Module,
        device: str = "cpu",
        precision: Precision = "fp32",
        score_thr: float = 0.3,
        iou_thr: float = 0.5,
        max_gap: int = 0,
        link_order: LinkOrder = "iou",
        score_rule: ScoreRule = "max",
        grid_rule: GridRule = "covered",
        min_slices: int = 1,
        max_boxes: int | None = None,
        batch_size: int = 1,
        tag_names: Sequence[str] | None = None,
        tag_thr: float = 0.5,
        share: bool = True,
    ) -> None:
        _check_choices(precision=precision, link_order=link_order, score_rule=score_rule, grid_rule=grid_rule)
        _check_numbers(score_thr, tag_thr, batch_size, iou_thr, max_gap, min_slices, max_boxes)
        self.precision = precision
        self.score_thr = score_thr
        self.iou_thr = iou_thr
        self.max_gap = max_gap
        self.link_order: LinkOrder = link_order
        self.score_rule: ScoreRule = score_rule
        self.grid_rule: GridRule = grid_rule
        self.min_slices = min_slices
        self.max_boxes = max_boxes
        self.batch_size = batch_size
        self.tag_thr = tag_thr
        init_default_scope(config.get("default_scope", "mmpluld"))
        self.pipeline = Compose([TRANSFORMS.build(step) for step in _inference_steps(config)])
        self.loader = _slice_loader(self.pipeline, config)
        self.stacks = StackLoader(self.pipeline)
        self._crops = any(isinstance(step, CropBody) for step in self.pipeline.transforms)
        if self._crops and not any(
            "crop_offset" in getattr(step, "meta_keys", ()) for step in self.pipeline.transforms
        ):
            raise InputError(
                f"{config.filename}: the test pipeline has CropBody, but meta_keys of PackDetInputs lack "
                "'crop_offset', without which boxes cannot be moved back; add it"
            )
        if isinstance(model, nn.Module):
            self.model = model
            self.device = next(model.parameters()).device
        else:
            self.device = checked_device(device)
            self.model = MODELS.build(config.model)
            load_weights(self.model, model)
            self.model.to(self.device)
        self.model.eval()
        self.tag_names = self._checked_tags(tag_names)
        self.share = share and self.stacks.slicewise and shares_images(getattr(self.model, "backbone", self.model))

    def detect(self, volume: CTVolume) -> list[Finding]:
        """Detect lesions in a volume.

        Returns:
            The findings, best score first.

        Raises:
            InputError: If the volume covers fewer grid slices than the model looks at together.
        """
        grid = self._grid(volume)
        return [
            Finding.from_canonical(
                volume,
                lesion.found.box.tolist(),
                lesion.found.score,
                lesion.found.key_slice,
                lesion.found.key_box.tolist(),
                lesion.recist,
                lesion.tags,
            )
            for lesion in self._detect_on(grid, volume.source)
        ]

    def detect_slices(self, source: SliceSource, first_slice: int, num_slices: int, name: str) -> list[Lesion3D]:
        """Detect lesions in a part of a series.

        Slices outside the part are not looked at. Where numbers are missing, what lies between the gaps is examined
        on its own. Beyond its ends the outermost slice is repeated.

        Args:
            source: The slices of the series.
            first_slice: Number of the first one of the part.
            num_slices: How many numbers it has.
            name: Of the part, for messages.

        Returns:
            The detections, best score first; boxes count slices as ``source`` does.

        Raises:
            InputError: If the distance of the slices is unknown, or the part has no slice.
        """
        interval = source.spacing_mm[0]
        if not (np.isfinite(interval) and interval > 0):
            raise InputError(
                f"{name}: slice interval is {interval:g} mm; 3D detection needs one above 0, mend spacing_mm"
            )
        slices = source.indices[(source.indices >= first_slice) & (source.indices < first_slice + num_slices)]
        if not len(slices):
            raise InputError(f"{name}: no slice from {first_slice} to {first_slice + num_slices - 1}; mend the volume")
        found: list[Lesion3D] = []
        for run in np.split(slices, np.flatnonzero(np.diff(slices) > 1) + 1):
            found += self._detect_on(GridSliceSource(source, self.loader.gap_mm(interval), run), name)
        found.sort(key=_rank)
        return found[: self.max_boxes]

    def _detect_on(self, grid: GridSliceSource, name: str) -> list[Lesion3D]:
        """Detections on a grid, in slice numbers of the series."""
        slices = [self._kept(result) for result in self._examine(grid, name)]
        boxes, scores = [item.boxes for item in slices], [item.scores for item in slices]
        chains = link_slices(boxes, scores, self.iou_thr, self.max_gap, self.link_order)
        merged = [tracklet_to_box3d(chain, self.score_rule) for chain in chains if len(chain.slices) >= self.min_slices]
        merged = sorted(merged, key=lambda item: (-item.score, *item.box))[: self.max_boxes]
        if not merged:
            return []
        scan_boxes = grid.grid.boxes_to_scan([item.box for item in merged], self.grid_rule)
        key_slices = grid.grid.slices_to_scan([item.key_slice for item in merged])
        # The slice nearest to a grid slice can lie just outside a box that was rounded to whole slices.
        key_slices = np.clip(key_slices, scan_boxes[:, 2], scan_boxes[:, 5] - 1).astype(np.int64)
        first, spacing_yx = int(grid.slices[0]), grid.spacing_mm[1:]
        scan_boxes[:, [2, 5]] += first
        return [
            Lesion3D(
                replace(item, box=box, key_slice=int(key) + first),
                _measure(item, slices[item.key_slice], spacing_yx),
                self._tags(item, slices[item.key_slice]),
            )
            for item, box, key in zip(merged, scan_boxes, key_slices, strict=True)
        ]

    def _kept(self, found: _SliceResult) -> _SliceResult:
        """What has an area and scores enough."""
        kept = (found.boxes[:, 2:] > found.boxes[:, :2]).all(axis=1) & (found.scores >= self.score_thr)
        masks, tag_scores = (None if part is None else part[kept] for part in (found.masks, found.tag_scores))
        return _SliceResult(found.boxes[kept], found.scores[kept], masks, tag_scores)

    def _tags(self, found: Box3D, key: _SliceResult) -> tuple[tuple[str, float], ...]:
        """The tags of a finding's box on its key slice, best first."""
        if key.tag_scores is None or self.tag_names is None:
            return ()
        scores = key.tag_scores[_row(found, key)]
        order = [index for index in np.argsort(-scores, kind="stable").tolist() if scores[index] >= self.tag_thr]
        return tuple((self.tag_names[index], float(scores[index])) for index in order)

    def _checked_tags(self, names: Sequence[str] | None) -> Sequence[str] | None:
        """A name for each tag of the model; None if it has no tags."""
        head = getattr(getattr(self.model, "roi_head", None), "tag_head", None)
        if names is None:
            return None if head is None else [f"tag {number}" for number in range(head.num_tags)]
        known = 0 if head is None else head.num_tags
        if len(names) != known:
            raise InputError(
                f"{len(names)} names of tags, but the model has {known} tags; give the names it was trained with"
            )
        return names

    def history(self, volume: CTVolume) -> tuple[str, ...]:
        """What :meth:`detect` does to a volume, in words, for records."""
        grid = self._grid(volume).grid
        origin = "which are the scan's own slices"
        if grid.gap_mm != grid.interval_mm:
            origin = f"interpolated linearly from {grid.num_slices} slices {grid.interval_mm:.4g} mm apart"
        cut = ", cut to the box around the body" if self._crops else ""
        return (
            f"examined at {grid.num_grid_slices} positions {grid.gap_mm:.4g} mm apart, {origin}{cut}",
            f"2D boxes scored {self.score_thr:g} or more, linked at IoU above {self.iou_thr:g}, {self.precision}",
        )

    def _grid(self, volume: CTVolume) -> GridSliceSource:
        depth, interval = volume.shape[0], volume.spacing_mm[0]
        gap, needed = self.loader.gap_mm(interval), self.loader.num_slices
        source = GridSliceSource(VolumeSliceSource(volume), gap)
        found = len(source.indices)
        if found < needed:
            raise InputError(
                f"{volume.source}: {depth} slice{'s' if depth > 1 else ''} {interval:.4g} mm apart make {found} "
                f"positions {gap:.4g} mm apart; the model needs at least {needed}, give a scan that "
                f"covers {(needed - 1) * gap:.4g} mm or more"
            )
        return source

    def _examine(self, grid: GridSliceSource, name: str) -> Iterator[_SliceResult]:
        """What the model finds on every grid slice."""
        self.stacks.start()
        shared = SharedFeatures(self.model.backbone, self.batch_size) if self.share else None
        count = len(grid.indices)
        body = body_box(map(grid.read, range(count))) if self._crops else None
        samples = (_sample(grid, index, name, body) for index in range(count))
        batches = iter(lambda: list(islice(samples, self.batch_size)), [])
        for batch in track(batches, "detecting", total=-(-count // self.batch_size)):
            data = pseudo_collate([self.stacks.load(sample) for sample in batch])
            yield from self._run(data, [self.stacks.plan(sample) for sample in batch], shared)

    @torch.inference_mode()
    def _run(self, data: dict[str, Any], plans: list[StackPlan], shared: SharedFeatures | None) -> list[_SliceResult]:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            if shared is None:
                results = self.model.test_step(data)
            else:
                data = self.model.data_preprocessor(data, False)
                data["inputs"] = shared.features(data["inputs"], plans)
                results = self.model(**data, mode="predict")
        return [
            _SliceResult(
                predicted_boxes(result),
                to_array(result.pred_instances.scores),
                result.pred_instances.mask_probs.cpu().numpy() if "mask_probs" in result.pred_instances else None,
                to_array(result.pred_instances.tag_scores) if "tag_scores" in result.pred_instances else None,
            )
            for result in results
        ]


def _rank(lesion: Lesion3D) -> tuple[float, ...]:
    return (-lesion.found.score, *lesion.found.box.tolist())


def _row(found: Box3D, key: _SliceResult) -> int:
    """Which box of its key slice a finding has there."""
    return int((key.boxes == found.key_box).all(axis=1).argmax())


def _measure(found: Box3D, key: _SliceResult, spacing_yx: tuple[float, float]) -> RECIST | None:
    """Diameters of a finding from the mask of its box on the key slice."""
    if key.masks is None or not all(np.isfinite(size) and size > 0 for size in spacing_yx):
        return None
    probs, origin = paste_mask(key.masks[_row(found, key)], found.key_box)
    return measure_recist(probs, spacing_yx, origin)


def _check_choices(**settings: str) -> None:
    allowed = {"precision": Precision, "link_order": LinkOrder, "score_rule": ScoreRule, "grid_rule": GridRule}
    for name, value in settings.items():
        if value not in get_args(allowed[name]):
            raise InputError(f"{name} is {value!r}; allowed are {', '.join(get_args(allowed[name]))}")


def _check_numbers(
    score_thr: float,
    tag_thr: float,
    batch_size: int,
    iou_thr: float,
    max_gap: int,
    min_slices: int,
    max_boxes: int | None,
) -> None:
    for name, share in (("score_thr", score_thr), ("tag_thr", tag_thr)):
        if not 0 <= share <= 1:
            raise InputError(f"{name} is {share}; allowed is 0 to 1")
    if not 0 <= iou_thr < 1:
        raise InputError(f"iou_thr is {iou_thr}; allowed is 0 to below 1")
    least = {"batch_size": (batch_size, 1), "max_gap": (max_gap, 0), "min_slices": (min_slices, 1)}
    if max_boxes is not None:
        least["max_boxes"] = (max_boxes, 1)
    for name, (value, low) in least.items():
        if value < low:
            raise InputError(f"{name} is {value}; allowed is {low} or more")


def _inference_steps(config: Config) -> list[dict[str, Any]]:
    """The test pipeline without the loading of annotations."""
    pipeline = config.get("test_dataloader", {}).get("dataset", {}).get("pipeline")
    return [step for step in pipeline_steps(pipeline) if step["type"].rpartition(".")[-1] != "LoadAnnotations"]


def _slice_loader(pipeline: Compose, config: Config) -> LoadSliceStack:
    """The transform that says which slices the model looks at.

    Raises:
        InputError: If the pipeline has none, or one that does not look at neighbouring slices.
    """
    place = f"{config.filename}: test_dataloader.dataset.pipeline"
    loader = next((step for step in pipeline.transforms if isinstance(step, LoadSliceStack)), None)
    if loader is None:
        raise InputError(f"{place} has no LoadSliceStack; detection needs a config of this zoo")
    if not loader.slice_gap_mm > 0:
        raise InputError(f"{place}: slice_gap_mm is {loader.slice_gap_mm}; detection needs a number of mm above 0")
    return loader


def _sample(grid: GridSliceSource, index: int, name: str, body: tuple[int, int, int, int] | None) -> dict[str, Any]:
    """What the dataset would hand to the pipeline for this grid slice, and the body in the volume."""
    return {
        "body_box": body,
        "slice_source": grid,
        "key_slice": index,
        "img_id": index,
        "volume_id": name,
        "slice_interval_mm": grid.source.spacing_mm[0],
    }
