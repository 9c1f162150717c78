"""Detection in whole CT volumes with a detector of the zoo."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import init_default_scope

from mmpluld.datasets.transforms import LoadSliceStack
from mmpluld.engine.checkpoint import load_weights
from mmpluld.errors import InputError
from mmpluld.evaluation.functional import measure_recist
from mmpluld.inference.grid_source import GridSliceSource
from mmpluld.postprocess import Box3D, link_slices, paste_mask, tracklet_to_box3d
from mmpluld.progress import track
from mmpluld.registry import MODELS, TRANSFORMS
from mmpluld.structures import RECIST, CTVolume, Finding

__all__ = ["Precision", "VolumeDetector"]

Precision = Literal["fp32", "bf16"]
FloatArray = npt.NDArray[np.float64]


class VolumeDetector:
    """A trained 2.5D detector that is run over every slice of a volume's grid.

    The volume is examined on a regular grid along z, whose gap is that of the config's ``LoadSliceStack`` (2 mm in
    the papers; its native rules keep the slices of thicker scans), through the config's own test pipeline. A model
    that asks for the slice interval is told the scan's own. The 2D boxes are linked into 3D boxes and mapped back to
    whole slices of the scan. Memory beyond the volume itself does not grow with the number of slices.

    Args:
        config: A loaded config of the zoo.
        checkpoint: Weights that belong to its model.
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        precision: ``bf16`` runs the network in mixed precision.
        score_thr: 2D boxes below this score are dropped before linking, in [0, 1]; so are boxes without area.
        iou_thr: See :func:`mmpluld.postprocess.link_slices`.
        batch_size: Grid slices examined at once.

    Raises:
        InputError: If a setting is not allowed, or the weights are unreadable or of another model.
    """

    def __init__(
        self,
        config: Config,
        checkpoint: str | os.PathLike[str],
        device: str = "cpu",
        precision: Precision = "fp32",
        score_thr: float = 0.3,
        iou_thr: float = 0.5,
        batch_size: int = 1,
    ) -> None:
        _check_settings(precision, score_thr, batch_size)
        self.device = _checked_device(device)
        self.precision = precision
        self.score_thr = score_thr
        self.iou_thr = iou_thr
        self.batch_size = batch_size
        init_default_scope(config.get("default_scope", "mmpluld"))
        self.pipeline = Compose([TRANSFORMS.build(step) for step in _inference_steps(config)])
        self.loader = _slice_loader(self.pipeline, config)
        self.model = MODELS.build(config.model)
        load_weights(self.model, checkpoint)
        self.model.to(self.device).eval()

    def detect(self, volume: CTVolume) -> list[Finding]:
        """Detect lesions in a volume.

        Returns:
            The findings, best score first.

        Raises:
            InputError: If the volume covers fewer grid slices than the model looks at together.
        """
        source = self._grid(volume)
        boxes, scores, masks = [], [], []
        for slice_boxes, slice_scores, slice_masks in self._examine(source):
            has_area = (slice_boxes[:, 2:] > slice_boxes[:, :2]).all(axis=1)
            kept = has_area & (slice_scores >= self.score_thr)
            boxes.append(slice_boxes[kept])
            scores.append(slice_scores[kept])
            masks.append(None if slice_masks is None else slice_masks[kept])
        merged = [tracklet_to_box3d(tracklet) for tracklet in link_slices(boxes, scores, self.iou_thr)]
        merged.sort(key=lambda item: (-item.score, *item.box))
        if not merged:
            return []
        scan_boxes = source.grid.boxes_to_scan([item.box for item in merged])
        key_slices = source.grid.slices_to_scan([item.key_slice for item in merged])
        # The slice nearest to a grid slice can lie just outside a box that was rounded to whole slices.
        key_slices = np.clip(key_slices, scan_boxes[:, 2], scan_boxes[:, 5] - 1).astype(np.int64)
        return [
            Finding.from_canonical(
                volume,
                box.tolist(),
                item.score,
                int(key),
                item.key_box.tolist(),
                _measure(item, boxes[item.key_slice], masks[item.key_slice], volume.spacing_mm[1:]),
            )
            for item, box, key in zip(merged, scan_boxes, key_slices, strict=True)
        ]

    def history(self, volume: CTVolume) -> tuple[str, ...]:
        """What :meth:`detect` does to a volume, in words, for records."""
        grid = self._grid(volume).grid
        origin = "which are the scan's own slices"
        if grid.gap_mm != grid.interval_mm:
            origin = f"interpolated linearly from {grid.num_slices} slices {grid.interval_mm:.4g} mm apart"
        return (
            f"examined at {grid.num_grid_slices} positions {grid.gap_mm:.4g} mm apart, {origin}",
            f"2D boxes scored {self.score_thr:g} or more, linked at IoU above {self.iou_thr:g}, {self.precision}",
        )

    def _grid(self, volume: CTVolume) -> GridSliceSource:
        depth, interval = volume.shape[0], volume.spacing_mm[0]
        gap, needed = self.loader.gap_mm(interval), self.loader.num_slices
        source = GridSliceSource(volume, gap)
        found = len(source.indices)
        if found < needed:
            raise InputError(
                f"{volume.source}: {depth} slice{'s' if depth > 1 else ''} {interval:.4g} mm apart make {found} "
                f"positions {gap:.4g} mm apart; the model needs at least {needed}, give a scan that "
                f"covers {(needed - 1) * gap:.4g} mm or more"
            )
        return source

    def _examine(self, source: GridSliceSource) -> Iterator[tuple[FloatArray, FloatArray, FloatArray | None]]:
        """2D boxes (n, 4) in pixels of the volume, scores (n,), masks over the boxes (n, h, w) of every grid slice."""
        count = len(source.indices)
        samples = (self.pipeline(_sample(source, index)) for index in range(count))
        batches = iter(lambda: list(islice(samples, self.batch_size)), [])
        for batch in track(batches, "detecting", total=-(-count // self.batch_size)):
            yield from self._run(batch)

    @torch.inference_mode()
    def _run(self, batch: list[dict[str, Any]]) -> list[tuple[FloatArray, FloatArray, FloatArray | None]]:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            results = self.model.test_step(pseudo_collate(batch))
        found = [result.pred_instances for result in results]
        return [
            (
                _numpy(item.bboxes).reshape(-1, 4),
                _numpy(item.scores),
                item.mask_probs.cpu().numpy() if "mask_probs" in item else None,
            )
            for item in found
        ]


def _numpy(values: torch.Tensor) -> FloatArray:
    array: FloatArray = values.double().cpu().numpy()
    return array


def _measure(
    found: Box3D, boxes: FloatArray, masks: FloatArray | None, spacing_yx: tuple[float, float]
) -> RECIST | None:
    """Diameters of a finding from the mask of its box on the key slice, whose boxes and masks are given."""
    if masks is None:
        return None
    row = int((boxes == found.key_box).all(axis=1).argmax())
    probs, origin = paste_mask(masks[row], found.key_box)
    return measure_recist(probs, spacing_yx, origin)


def _check_settings(precision: str, score_thr: float, batch_size: int) -> None:
    if precision not in get_args(Precision):
        raise InputError(f"precision is {precision!r}; allowed are {', '.join(get_args(Precision))}")
    if not 0 <= score_thr <= 1:
        raise InputError(f"score_thr is {score_thr}; allowed is 0 to 1")
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; allowed is 1 or more")


def _checked_device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"device is {name!r}; allowed are cpu, cuda and cuda:N") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(
            f"device is {name!r}, but this machine has {torch.cuda.device_count()} CUDA devices that torch can "
            "use; give cpu"
        )
    return device


def _inference_steps(config: Config) -> list[dict[str, Any]]:
    """The test pipeline without the loading of annotations."""
    pipeline = config.get("test_dataloader", {}).get("dataset", {}).get("pipeline", [])
    return [step for step in pipeline if step["type"].rpartition(".")[-1] != "LoadAnnotations"]


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


def _sample(source: GridSliceSource, index: int) -> dict[str, Any]:
    """What the dataset would hand to the pipeline for this grid slice."""
    return {
        "slice_source": source,
        "key_slice": index,
        "img_id": index,
        "volume_id": source.volume.source,
        "slice_interval_mm": source.volume.spacing_mm[0],
    }
