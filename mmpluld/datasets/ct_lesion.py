"""The dataset class of this package: slices of CT volumes with the lesions that cross them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dataset import BaseDataset, force_full_init

from mmpluld.errors import InputError, nearest
from mmpluld.evaluation.functional import recist_lengths
from mmpluld.io.slice_sources import open_source
from mmpluld.registry import DATASETS
from mmpluld.structures import AnnotationSet, LesionRecord, VolumeRecord

__all__ = ["CTLesionDataset"]

_POLICIES = ("key_slices", "lesion_slices", "all_slices")


@DATASETS.register_module()
class CTLesionDataset(BaseDataset):
    """Slices of the volumes of one annotation file (schema ``mmpluld.annotations/1``).

    A sample is one key slice; its boxes are the x-y extents of all lesions whose z range holds the slice,
    clipped to the image. Which slices are samples is the sampling policy:

    - ``key_slices``: every slice that the dataset's own mark of a lesion lies on (DeepLesion: one per mark);
    - ``lesion_slices``: every existing slice of every lesion, for 3D boxes;
    - ``all_slices``: every existing slice, with or without lesions.

    Lesions to be ignored add no slices under the first two policies, but are on the samples they cross,
    flagged. How often a sample is drawn in an epoch is up to the sampler: with
    :class:`~mmpluld.datasets.samplers.LesionSampler`, ``lesion_slices`` gives one random slice per lesion and
    epoch, and ``all_slices`` any proportion of slices with and without lesions.

    Keys of a sample: ``img_id`` ("VOLUME/SLICE"), ``volume_id``, ``key_slice``, ``patient``, ``source`` (kind
    and absolute path), ``first_slice``, ``spacing_mm`` (z, y, x), ``slice_interval_mm``, ``height``,
    ``width``, ``instances`` (``bbox`` as pixel edges x1, y1, x2, y2; ``bbox_label`` 0; ``ignore_flag``;
    ``lesion_id``; ``mask`` as COCO run lengths, empty where it is unknown or the slice is not the lesion's key slice),
    ``recist_mm`` (long and short diameter of every lesion that counts, in the order of ``instances``; NaN where
    unknown), ``sample_idx``.

    Args:
        ann_file: Annotation file, absolute or relative to ``data_root``.
        data_root: Folder that the volumes' paths start from.
        pipeline: Transforms.
        sampling: ``dict(policy=...)``.
        filter_cfg: ``dict(filter_empty_gt=True)`` drops samples without a lesion that counts (training only).
        **kwargs: Further arguments of mmengine's BaseDataset.

    Raises:
        InputError: The annotation file is missing or faulty, a setting is unknown, or the training pipeline loads
            masks and no lesion has one.
    """

    METAINFO = {"classes": ("lesion",), "palette": [(220, 20, 60)]}

    def __init__(
        self,
        ann_file: str,
        data_root: str = "",
        pipeline: list[dict[str, Any] | Callable[..., Any]] | None = None,
        sampling: dict[str, Any] | None = None,
        filter_cfg: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        sampling = dict(sampling or {"policy": "key_slices"})
        self.policy = _choice("sampling policy", sampling.pop("policy", "key_slices"), _POLICIES)
        for name in sampling:
            _choice("key of sampling", name, ("policy",))
        for name in filter_cfg or {}:
            _choice("key of filter_cfg", name, ("filter_empty_gt",))
        super().__init__(
            ann_file=ann_file, data_root=data_root, pipeline=pipeline or [], filter_cfg=filter_cfg, **kwargs
        )

    def load_data_list(self) -> list[dict[str, Any]]:
        """Read the annotation file and lay out its samples in file order, slices ascending."""
        if not Path(self.ann_file).is_file():
            raise InputError(
                f"{self.ann_file}: no such annotation file; write it with `mmpluld convert deeplesion "
                f"{self.data_root or 'ROOT'}`, or make synthetic data with `mmpluld phantom`"
            )
        annotations = AnnotationSet.load(self.ann_file)
        self._metainfo["dataset"] = annotations.dataset
        wants_masks = any(getattr(step, "with_mask", False) for step in self.pipeline.transforms)
        if wants_masks and not self.test_mode and not any(lesion.mask for lesion in annotations.lesions):
            raise InputError(
                f"{self.ann_file}: none of its {len(annotations.lesions)} lesions has a mask, but the pipeline loads "
                f"masks; write them with `mmpluld convert deeplesion {self.data_root or 'ROOT'} --masks exact "
                "--overwrite`, or train a detector without mask head and with_mask=False"
            )
        lesions = annotations.lesions_by_volume()
        return [sample for volume in annotations.volumes for sample in self._samples(volume, lesions[volume.id])]

    def _samples(self, volume: VolumeRecord, lesions: list[LesionRecord]) -> Iterator[dict[str, Any]]:
        """The samples of one volume."""
        source = volume.source | {"path": str(Path(self.data_root or ".", volume.source["path"]).absolute())}
        shared = {
            "volume_id": volume.id,
            "patient": volume.patient,
            "source": source,
            "first_slice": volume.first_slice,
            "spacing_mm": tuple(volume.spacing_mm),
            "slice_interval_mm": volume.spacing_mm[0],
            "height": volume.shape_yx[0],
            "width": volume.shape_yx[1],
        }
        instances = [(lesion, _instance(lesion, volume.shape_yx)) for lesion in lesions]
        for index in self._slices(volume, lesions):
            crossing = [(lesion, item) for lesion, item in instances if item and lesion.box[2] <= index < lesion.box[5]]
            counted = [lesion for lesion, _ in crossing if not lesion.ignore]
            yield {
                "img_id": f"{volume.id}/{index:03d}",
                "key_slice": index,
                **shared,
                "instances": [item | {"mask": _mask(lesion, index, volume)} for lesion, item in crossing],
                "recist_mm": [_recist_mm(lesion, index, volume) for lesion in counted],
            }

    def _slices(self, volume: VolumeRecord, lesions: list[LesionRecord]) -> list[int]:
        """Slice numbers that are samples, ascending."""
        counted = [lesion for lesion in lesions if not lesion.ignore]
        if self.policy == "key_slices":
            return sorted({lesion.key_slice for lesion in counted if lesion.key_slice is not None})
        if self.policy == "lesion_slices" and not counted:
            return []
        existing = open_source(volume, self.data_root or ".").indices
        if self.policy == "all_slices":
            return existing.tolist()
        inside = np.zeros(len(existing), dtype=bool)
        for lesion in counted:
            inside |= (existing >= lesion.box[2]) & (existing < lesion.box[5])
        return existing[inside].tolist()

    def filter_data(self) -> list[dict[str, Any]]:
        """Drop the samples without a lesion that counts, if ``filter_empty_gt`` is set; never in test mode.

        Raises:
            InputError: No sample is left.
        """
        kept: list[dict[str, Any]] = self.data_list
        if not self.test_mode and (self.filter_cfg or {}).get("filter_empty_gt", False):
            kept = [sample for sample in kept if _lesion_ids(sample)]
        if not kept:
            raise InputError(
                f"{self.ann_file}: no samples with sampling policy {self.policy!r}; give a file with lesions"
                + ("" if self.policy == "all_slices" else ", or take policy 'all_slices'")
            )
        return kept

    @force_full_init
    def sample_groups(self) -> tuple[dict[int, list[int]], list[int]]:
        """Return the sample indices that show each lesion that counts, by lesion id, and those that show none."""
        by_lesion: dict[int, list[int]] = {}
        negatives: list[int] = []
        for index in range(len(self)):
            ids = _lesion_ids(self.get_data_info(index))
            for lesion in ids:
                by_lesion.setdefault(lesion, []).append(index)
            if not ids:
                negatives.append(index)
        return by_lesion, negatives

    def get_cat_ids(self, idx: int) -> list[int]:
        """Class ids of the boxes of a sample, for mmengine's dataset wrappers."""
        return [item["bbox_label"] for item in self.get_data_info(idx)["instances"]]


def _instance(lesion: LesionRecord, shape_yx: tuple[int, int]) -> dict[str, Any] | None:
    """The 2D box of a lesion in mmdet's form; None if nothing of it is inside the image."""
    height, width = shape_yx
    x1, y1, _, x2, y2, _ = lesion.box
    x1, x2 = max(x1, 0.0), min(x2, float(width))
    y1, y2 = max(y1, 0.0), min(y2, float(height))
    if x2 <= x1 or y2 <= y1:
        return None
    return {
        "bbox": [x1, y1, x2, y2],
        "bbox_label": 0,
        "ignore_flag": int(lesion.ignore),
        "lesion_id": lesion.id,
    }


def _mask(lesion: LesionRecord, index: int, volume: VolumeRecord) -> dict[str, Any]:
    """Run lengths of a lesion on a slice; those of an empty mask where it is unknown."""
    if lesion.mask is not None and lesion.key_slice == index:
        return lesion.mask
    height, width = volume.shape_yx
    return {"size": [height, width], "counts": [height * width]}


def _recist_mm(lesion: LesionRecord, index: int, volume: VolumeRecord) -> tuple[float, float]:
    """Marked long and short diameter of a lesion on a slice."""
    if lesion.recist is None or lesion.key_slice != index:
        return (float("nan"), float("nan"))
    return recist_lengths(lesion.recist, volume.spacing_mm[1:])


def _lesion_ids(sample: dict[str, Any]) -> list[int]:
    return [item["lesion_id"] for item in sample["instances"] if not item["ignore_flag"]]


def _choice(what: str, value: Any, allowed: tuple[str, ...]) -> str:
    """Return ``value`` if it is allowed."""
    if value in allowed:
        return str(value)
    close = nearest(str(value), allowed)
    hint = f"; did you mean {close!r}?" if close else ""
    raise InputError(f"CTLesionDataset: unknown {what} {value!r}; allowed: {', '.join(allowed)}{hint}")
