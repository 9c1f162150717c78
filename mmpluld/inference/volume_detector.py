"""Detection in whole CT volumes with a detector of the zoo."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from itertools import islice
from threading import Lock
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope
from torch import nn

from mmpluld.compat.half_precision import keep_boxes_exact
from mmpluld.datasets.transforms.body import body_box
from mmpluld.engine.checkpoint import load_weights
from mmpluld.engine.device import checked_device
from mmpluld.errors import InputError, counted
from mmpluld.inference.grid_source import GridSliceSource
from mmpluld.inference.lesions_3d import Lesion3D, SliceBoxes, link_lesions
from mmpluld.inference.rescore import Rescorer
from mmpluld.inference.running import Precision, check_batch_size, check_precision
from mmpluld.inference.settings import DetectionSettings
from mmpluld.inference.stacks import SharedFeatures, StackLoader, inference_pipeline, shares_images
from mmpluld.io.slice_sources import SliceSource, VolumeSliceSource
from mmpluld.io.slice_stack import StackPlan
from mmpluld.models.cpu.dense_inference import Folds, folded_once
from mmpluld.models.roi_heads import LesionRoIHead
from mmpluld.progress import track
from mmpluld.registry import build_model
from mmpluld.structures import CTVolume, Finding, predicted_boxes, to_array

__all__ = ["VolumeDetector"]


class VolumeDetector:
    """A trained 2.5D detector that is run over every slice of a volume's grid.

    The volume is examined on a regular grid along z, whose gap is that of the config's ``LoadSliceStack`` (2 mm in
    the papers; its native rules keep the slices of thicker scans), through the config's own test pipeline. A model
    that asks for the slice interval is told the scan's own. Where the pipeline cuts away the air around the body
    (``CropBody``), all slices are cut alike, to the box that holds the body on each of them. The 2D boxes are linked
    into 3D boxes and mapped back to whole slices of the scan. Memory beyond the volume and the 2D boxes does not grow
    with the number of slices. Threads may share a detector; it examines one volume at a time.

    Args:
        config: A loaded config of the zoo.
        model: Weights that belong to its model, or the model itself, built and on its device.
        settings: The rules of linking and of findings; None takes :meth:`DetectionSettings.from_config`.
        device: ``cpu``, ``cuda`` or ``cuda:N``, for weights.
        precision: ``bf16`` runs the network in mixed precision.
        batch_size: Grid slices examined at once.
        tag_names: Names of the tags that the model predicts; None numbers them.
        share: Let stacks share the features of images that are the same, where the backbone can (``LensDenseNet``).
            The findings are the same without.
        rescorer: False-positive reduction, whose scores decide what is a finding; None: the detector's own do.

    Raises:
        InputError: If a setting is not allowed, or the weights are unreadable or of another model.
    """

    def __init__(
        self,
        config: Config,
        model: str | os.PathLike[str] | nn.Module,
        settings: DetectionSettings | None = None,
        device: str = "cpu",
        precision: Precision = "fp32",
        batch_size: int = 1,
        tag_names: Sequence[str] | None = None,
        share: bool = True,
        rescorer: Rescorer | None = None,
    ) -> None:
        check_precision(precision)
        check_batch_size(batch_size)
        rescored = rescorer is not None
        self.settings = (
            DetectionSettings.from_config(config, rescored) if settings is None else settings.checked(rescored)
        )
        self.rescorer = rescorer
        self.precision = precision
        self.batch_size = batch_size
        init_default_scope(config.get("default_scope", "mmpluld"))
        self.stacks = StackLoader(inference_pipeline(config))
        if isinstance(model, nn.Module):
            self.model = model
            self.device = next(model.parameters()).device
        else:
            self.device = checked_device(device)
            self.model = build_model(config)
            load_weights(self.model, model)
            self.model.to(self.device)
        # Of teacher and student, one answers.
        self.model = getattr(self.model, "tested", self.model)
        keep_boxes_exact(self.model)
        self.model.eval()
        self.tag_names = self._checked_tags(tag_names)
        self.share = share and self.stacks.slicewise and shares_images(getattr(self.model, "backbone", self.model))
        self._busy = Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_busy"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _busy=Lock())

    def detect(self, volume: CTVolume) -> list[Finding]:
        """Detect lesions in a volume.

        Returns:
            The findings, best score first.

        Raises:
            InputError: If the volume covers fewer grid slices than the model looks at together.
        """
        grid = self.grid(volume)
        return [
            Finding.from_canonical(
                volume,
                lesion.found.box.tolist(),
                lesion.found.score,
                lesion.found.key_slice,
                lesion.found.key_box.tolist(),
                lesion.recist,
                lesion.tags,
                lesion.mask,
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
        found: list[Lesion3D] = []
        for grid in self.grids(source, first_slice, num_slices, name):
            found += self._detect_on(grid, name)
        found.sort(key=Lesion3D.rank)
        return found[: self.settings.max_boxes]

    def grids(self, source: SliceSource, first_slice: int, num_slices: int, name: str) -> list[GridSliceSource]:
        """The grids on which a part of a series is examined, one for each uninterrupted run of its slices.

        Args:
            source, first_slice, num_slices, name: See :meth:`detect_slices`.

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
        gap = self.stacks.loader.gap_mm(interval)
        return [GridSliceSource(source, gap, run) for run in np.split(slices, np.flatnonzero(np.diff(slices) > 1) + 1)]

    def grid(self, volume: CTVolume) -> GridSliceSource:
        """The grid on which a volume is examined.

        Raises:
            InputError: If it has fewer slices than the model looks at together.
        """
        depth, interval = volume.shape[0], volume.spacing_mm[0]
        gap, needed = self.stacks.loader.gap_mm(interval), self.stacks.loader.num_slices
        source = GridSliceSource(VolumeSliceSource(volume), gap)
        found = len(source.indices)
        if found < needed:
            raise InputError(
                f"{volume.source}: {counted(depth, 'slice')} {interval:.4g} mm apart make {counted(found, 'position')} "
                f"{gap:.4g} mm apart; the model needs at least {needed}, give a scan that "
                f"covers {(needed - 1) * gap:.4g} mm or more"
            )
        return source

    def examine(self, grid: GridSliceSource, name: str) -> Iterator[SliceBoxes]:
        """The 2D boxes of the model on every slice of a grid, as it gives them; ``name`` is for messages."""
        shared = SharedFeatures(self.model.backbone, self.batch_size) if self.share else None
        count = len(grid.indices)
        body = body_box(map(grid.read, range(count))) if self.stacks.crops else None
        samples = (_sample(grid, index, name, body) for index in range(count))
        batches = iter(lambda: list(islice(samples, self.batch_size)), [])
        recent, folds = self.stacks.recent(), Folds()
        try:
            for batch in track(batches, "detecting", total=-(-count // self.batch_size)):
                data = pseudo_collate([self.stacks.load(sample, recent) for sample in batch])
                yield from self._run(data, [self.stacks.plan(sample) for sample in batch], shared, folds)
        finally:
            self.stacks.forget()

    def history(self, volume: CTVolume) -> tuple[str, ...]:
        """What :meth:`detect` does to a volume, in words, for records."""
        grid = self.grid(volume).grid
        origin = "which are the scan's own slices"
        if grid.gap_mm != grid.interval_mm:
            origin = f"interpolated linearly from {grid.num_slices} slices {grid.interval_mm:.4g} mm apart"
        cut = ", cut to the box around the body" if self.stacks.crops else ""
        return (
            f"examined at {grid.num_grid_slices} positions {grid.gap_mm:.4g} mm apart, {origin}{cut}, {self.precision}",
            *self.rules_in_words(),
        )

    def rules_in_words(self) -> tuple[str, ...]:
        """How boxes are made into findings, for records: :attr:`settings` and false-positive reduction."""
        return (self.settings.describe(), *(() if self.rescorer is None else (str(self.rescorer.line),)))

    def _detect_on(self, grid: GridSliceSource, name: str) -> list[Lesion3D]:
        """Detections on a grid, in slice numbers of the series."""
        with self._busy:  # transforms and network keep what belongs to the slice at hand
            if self.rescorer is None:
                return link_lesions(self.examine(grid, name), grid, self.settings, self.tag_names)
            # Thresholds are for the new scores.
            every = replace(self.settings, score_thr=self.settings.link_score_thr, max_boxes=None)
            found = link_lesions(self.examine(grid, name), grid, every, self.tag_names)
            return self.rescorer.rescored(found, grid.source, grid.slices, self.settings, name)

    @torch.inference_mode()
    def _run(
        self, data: dict[str, Any], plans: list[StackPlan], shared: SharedFeatures | None, folds: Folds
    ) -> list[SliceBoxes]:
        with (
            folded_once(folds),
            self._masks_of_findings(),
            torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"),
        ):
            if shared is None:
                results = self.model.test_step(data)
            else:
                data = self.model.data_preprocessor(data, False)
                data["inputs"] = shared.features(data["inputs"], plans)
                results = self.model(**data, mode="predict")
        return [_slice_boxes(result) for result in results]

    def _masks_of_findings(self) -> AbstractContextManager[None]:
        """Masks are looked at on key slices, whose boxes score as much as their finding or more."""
        head = getattr(self.model, "roi_head", None)
        if not isinstance(head, LesionRoIHead):
            return nullcontext()
        return head.masks_from(self.settings.score_thr if self.rescorer is None else self.settings.link_score_thr)

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


def _slice_boxes(result: Any) -> SliceBoxes:
    """What a data sample holds after the network has run."""
    found = result.pred_instances
    return SliceBoxes(
        predicted_boxes(result),
        to_array(found.scores),
        found.mask_probs.cpu().numpy() if "mask_probs" in found else None,
        to_array(found.tag_scores) if "tag_scores" in found else None,
        found.expert.cpu().numpy() if "expert" in found else None,
        to_array(found.fused_scores) if "fused_scores" in found else None,
    )


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
