"""3D false-positive reduction: a second network looks at each 3D box and takes part in its score.

Source: LENS, sec. IV-D.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, default_collate
from mmengine.registry import init_default_scope
from torch import nn

import mmpluld.registry  # noqa: F401  makes mmdet importable where mmcv has no compiled operators
from mmpluld.datasets.steps import pipeline_steps
from mmpluld.datasets.transforms import LoadPatch
from mmpluld.engine.bundle_config import bundle_config
from mmpluld.engine.checkpoint import (
    bundle_checkpoint,
    load_checkpoint_safely,
    load_weights,
    meta_of,
    put_weights,
    require_own_settings,
    trained_with,
)
from mmpluld.engine.config import FoundConfig, find_config, load_config
from mmpluld.engine.config_check import check_config
from mmpluld.engine.config_digest import config_digest
from mmpluld.engine.device import checked_device
from mmpluld.errors import InputError, did_you_mean
from mmpluld.inference.lesions_3d import Lesion3D
from mmpluld.inference.running import FPRMode, check_batch_size, check_fpr_mode, check_precision
from mmpluld.inference.settings import DetectionSettings
from mmpluld.inputs import sha256_of
from mmpluld.io.patches import run_around
from mmpluld.io.slice_sources import SliceSource, open_source
from mmpluld.models.classifiers import PatchClassifier
from mmpluld.progress import track
from mmpluld.registry import TRANSFORMS, build_model
from mmpluld.structures import AnnotationSet, Detections, DetectionSet, VolumeRecord
from mmpluld.structures.model_line import RescoringLine
from mmpluld.typing import FloatArray, IntArray, StrPath
from mmpluld.zoo.bundle import CONFIG, FPR, Bundle, is_bundle
from mmpluld.zoo.download import local_checkpoint

__all__ = [
    "Rescorer",
    "combined_scores",
    "load_rescorer",
    "reduction_config",
    "rescore_detections",
    "rescorer_of_test",
]

_RECENT_SLICES = 64  # of a series; the patches of neighbouring boxes share slices


def combined_scores(detector: FloatArray, classifier: FloatArray, mode: FPRMode = "average") -> FloatArray:
    """Scores (N,) after false-positive reduction: the mean of both (LENS), or the classifier's ``alone``."""
    return (detector + classifier) / 2 if mode == "average" else classifier


class Rescorer:
    """A trained ``PatchClassifier`` that gives 3D boxes new scores.

    Patches are made by the config's own test pipeline, a batch at a time.

    Args:
        config: A loaded config of a ``PatchClassifier``.
        model: Weights that belong to its model, or the model itself, built and on its device.
        mode: ``average`` or ``alone``, see :func:`combined_scores`.
        device: ``cpu``, ``cuda`` or ``cuda:N``, for weights.
        precision: ``fp32``, or ``bf16`` for mixed precision.
        batch_size: Patches at once.
        name: Of config and weights, for records.

    Raises:
        InputError: If a setting is not allowed, the config is of something else, or the weights are unreadable or of
            another model.
    """

    def __init__(
        self,
        config: Config,
        model: StrPath | nn.Module,
        mode: FPRMode = "average",
        device: str = "cpu",
        precision: str = "fp32",
        batch_size: int = 32,
        name: str = "false-positive reduction",
    ) -> None:
        check_fpr_mode(mode)
        check_precision(precision)
        check_batch_size(batch_size)
        self.mode: FPRMode = mode
        self.precision, self.batch_size, self.name = precision, batch_size, name
        init_default_scope(config.get("default_scope", "mmpluld"))
        steps = pipeline_steps(config.get("test_dataloader", {}).get("dataset", {}).get("pipeline"))
        transforms = [TRANSFORMS.build(step) for step in steps]
        if isinstance(model, nn.Module):
            self.model = model
        else:
            self.model = build_model(config)
        if not isinstance(self.model, PatchClassifier) or not any(isinstance(step, LoadPatch) for step in transforms):
            raise InputError(
                f"{config.filename}: is no config of false-positive reduction (a PatchClassifier, with LoadPatch in "
                "its test pipeline); give one, such as fpr_resnet18_deeplesion"
            )
        if not isinstance(model, nn.Module):
            load_weights(self.model, model)
            self.model.to(checked_device(device))
        self.device = next(self.model.parameters()).device
        self.model.eval()
        self.pipeline = Compose(transforms)

    @property
    def line(self) -> RescoringLine:
        """What is done to scores, for histories."""
        return RescoringLine(self.mode, self.name)

    @torch.inference_mode()
    def scores(self, source: SliceSource, slices: IntArray, boxes: FloatArray, name: str) -> FloatArray:
        """The classifier's scores of 3D boxes, in [0, 1].

        Args:
            source: The series.
            slices: Numbers of consecutive slices of it; no other is looked at.
            boxes: (N, 6) voxel edges, z in slice numbers of the series.
            name: Of the volume, for messages.

        Returns:
            (N,).

        Raises:
            InputError: If the voxel size is not known, or a slice cannot be read.
        """
        if not all(np.isfinite(size) and size > 0 for size in source.spacing_mm):
            raise InputError(
                f"{name}: voxels are {list(source.spacing_mm)} mm; false-positive reduction needs sizes above 0, mend "
                "spacing_mm or go without it"
            )
        recent = _RecentSlices(source)
        shared = {"slice_source": recent, "volume_id": name, "first_slice": int(slices[0]), "num_slices": len(slices)}
        found = np.empty(len(boxes), dtype=np.float64)
        order = np.argsort(boxes[:, 2] + boxes[:, 5], kind="stable")
        for start in range(0, len(order), self.batch_size):
            rows = order[start : start + self.batch_size]
            batch = default_collate([self.pipeline({**shared, "box": boxes[row].tolist()}) for row in rows])
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
                results = self.model.test_step(batch)
            found[rows] = [result["score"] for result in results]
        return found

    def rescored(
        self, lesions: Sequence[Lesion3D], source: SliceSource, slices: IntArray, settings: DetectionSettings, name: str
    ) -> list[Lesion3D]:
        """Detections with their new scores, best first; those below ``score_thr`` or beyond ``max_boxes`` are dropped.

        Args:
            lesions: Detections of consecutive slices, down to ``link_score_thr``.
            source, slices, name: See :meth:`scores`.
            settings: The rules of findings.
        """
        if not lesions:
            return []
        boxes = np.array([lesion.found.box for lesion in lesions])
        before = np.array([lesion.found.score for lesion in lesions])
        scores = combined_scores(before, self.scores(source, slices, boxes, name), self.mode)
        changed = [
            replace(lesion, found=replace(lesion.found, score=score))
            for lesion, score in zip(lesions, scores.tolist(), strict=True)
            if score >= settings.score_thr
        ]
        return sorted(changed, key=Lesion3D.rank)[: settings.max_boxes]


class _RecentSlices:
    """A series whose slices read last are kept."""

    def __init__(self, source: SliceSource) -> None:
        self.indices, self.spacing_mm, self.shape_yx = source.indices, source.spacing_mm, source.shape_yx
        self.read = lru_cache(_RECENT_SLICES)(source.read)


def load_rescorer(
    checkpoint: StrPath,
    config: StrPath | None = None,
    mode: FPRMode | None = None,
    device: str = "cpu",
    precision: str = "fp32",
) -> Rescorer:
    """Load false-positive reduction.

    Args:
        checkpoint: Its weights: a path, a web address, or ``zoo:NAME``. Of a detector's bundle, its false-positive
            reduction.
        config: Path, or name of a config of the zoo; None takes that of the bundle, or which the weights were trained
            with.
        mode: See :class:`Rescorer`; None takes that of the bundle, or the average.
        device, precision: See :class:`Rescorer`.

    Raises:
        InputError: If an input is missing, unreadable or does not fit, the weights do not tell their config, or that
            has other settings now.
    """
    weights = local_checkpoint(checkpoint)
    if config is None and is_bundle(weights):
        return _bundled(Bundle.open(weights), mode, device, precision)
    found, cfg = reduction_config(config, weights)
    check_config(cfg)
    digests = config_digest(cfg)[:16], sha256_of(weights)[:16]
    name = f"{found.name} (SHA-256 {digests[0]}), weights {weights.name} (SHA-256 {digests[1]})"
    return Rescorer(cfg, weights, mode or "average", device, precision, name=name)


def reduction_config(
    config: StrPath | None, weights: StrPath, checkpoint: Mapping[str, Any] | None = None
) -> tuple[FoundConfig, Config]:
    """The config of false-positive reduction.

    Args:
        config: Path, or name of a config of the zoo; None takes the one that the weights were trained with.
        weights: File of the weights.
        checkpoint: Its content, if it was read already.

    Raises:
        InputError: There is no such config, or the weights do not tell theirs, or that has other settings now.
    """
    if config is not None:
        found = find_config(config)
        return found, load_config(found)
    meta = meta_of(load_checkpoint_safely(weights) if checkpoint is None else checkpoint)
    name = trained_with(meta)
    if not name:
        raise InputError(f"{weights}: does not tell the config of false-positive reduction; name it")
    found = find_config(name)
    cfg = load_config(found)
    require_own_settings(cfg, found.name, meta, weights)
    return found, cfg


def _bundled(bundle: Bundle, mode: FPRMode | None, device: str, precision: str) -> Rescorer:
    """That of a detector's bundle, else the one that a bundle is."""
    part = FPR if FPR + CONFIG in bundle.members else ""
    cfg = bundle_config(bundle, part)
    init_default_scope(cfg.get("default_scope", "mmpluld"))
    model = build_model(cfg)
    put_weights(model, bundle_checkpoint(bundle, part), bundle.path)
    name = f"{bundle.name}{', false-positive reduction' if part else ''}, bundle {bundle.path.name}"
    name += f" (SHA-256 {sha256_of(bundle.path)[:16]})"
    mode = mode or bundle.provenance.get("fpr_mode", "average")
    return Rescorer(cfg, model.to(checked_device(device)), mode, precision=precision, name=name)


def rescorer_of_test(given: Mapping[str, Any], device: str, precision: str) -> Rescorer:
    """False-positive reduction as a config of a detector has it under ``test_cfg.fpr``.

    Args:
        given: ``checkpoint``, and if need be ``config`` and ``mode``, see :func:`load_rescorer`.
        device, precision: See :class:`Rescorer`.

    Raises:
        InputError: As :func:`load_rescorer`, or a key is unknown or missing.
    """
    known = ("checkpoint", "config", "mode")
    for key in given:
        if key not in known:
            hint = did_you_mean(key, known, f"known are {', '.join(known)}")
            raise InputError(f"test_cfg.fpr.{key}: nothing reads it{hint}")
    if not given.get("checkpoint"):
        raise InputError("test_cfg.fpr has no checkpoint; give the weights of false-positive reduction")
    return load_rescorer(given["checkpoint"], given.get("config"), given.get("mode"), device, precision)


def rescore_detections(
    detections: StrPath, annotations: StrPath, data_root: StrPath, rescorer: Rescorer
) -> DetectionSet:
    """Give the findings of a detection record new scores.

    Args:
        detections: Record of whole volumes, as ``mmpluld test`` writes it.
        annotations: Annotation file with these volumes.
        data_root: Folder that their paths start from.
        rescorer: Gives the scores.

    Returns:
        The same findings, of each volume best first.

    Raises:
        InputError: If a file cannot be read, was rescored already, a volume is not in the annotation file or counts
            something else, or its slices cannot be read.
    """
    records = DetectionSet.load(detections)
    volumes = {volume.id: volume for volume in AnnotationSet.load(annotations).volumes}
    for name, found in records.volumes.items():
        if name not in volumes:
            hint = did_you_mean(name, volumes, "give the annotation file of the test")
            raise InputError(f"{detections}: volume '{name}' is not in {annotations}{hint}")
        if found.frame not in (None, volumes[name].frame):
            raise InputError(
                f"{detections}: boxes of volume '{name}' are in {found.frame}, its annotations in "
                f"{volumes[name].frame}; give a record of `mmpluld test`, or detect with --fpr"
            )
        if found.scores is None:
            raise InputError(f"{detections}: volume '{name}' has no scores; give detections, not a ground truth")
        if RescoringLine.find(found.history, f"{detections}, volume '{name}'") is not None:
            raise InputError(
                f"{detections}: the scores of volume '{name}' are of false-positive reduction already; give the record "
                "made without it"
            )
    return DetectionSet(
        {
            name: _rescored(found, volumes[name], data_root, rescorer)
            for name, found in track(list(records.volumes.items()), "volumes")
        }
    )


def _rescored(found: Detections, volume: VolumeRecord, root: StrPath, rescorer: Rescorer) -> Detections:
    assert found.scores is not None
    source = open_source(volume, root)
    name = f"volume {volume.id}"
    middles = found.boxes[:, [2, 5]].mean(axis=1)
    runs = [run_around(source.indices, z, volume.first_slice, volume.num_slices) for z in middles]
    if not all(map(len, runs)):
        raise InputError(f"{name}: none of its slices is there; check the data root")
    starts = np.array([run[0] for run in runs], dtype=np.int64)
    own = np.empty(len(runs), dtype=np.float64)
    for start in np.unique(starts):
        rows = np.flatnonzero(starts == start)
        own[rows] = rescorer.scores(source, runs[rows[0]], found.boxes[rows], name)
    scores = combined_scores(found.scores, own, rescorer.mode)
    order = np.lexsort((*found.boxes.T[::-1], -scores))
    parts = {
        field: getattr(found, field)[order]
        for field in ("boxes", "world_lps", "key_slices", "diameters_mm")
        if getattr(found, field) is not None
    }
    tags = None if found.tags is None else tuple(found.tags[index] for index in order)
    history = (*(found.history or ()), str(rescorer.line))
    return replace(found, **parts, scores=scores[order], tags=tags, history=history)
