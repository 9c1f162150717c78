"""The dataset class of this package: slices of CT volumes with the lesions that cross them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dataset import BaseDataset, force_full_init

from mmpluld.compat.memory import uncollected
from mmpluld.datasets.folds import fold_of_patients
from mmpluld.datasets.slice_pictures import picture_address
from mmpluld.datasets.steps import pipeline_steps
from mmpluld.errors import InputError, did_you_mean
from mmpluld.io.slice_sources import open_source, source_path
from mmpluld.registry import DATASETS
from mmpluld.structures import (
    AnnotationSet,
    Box2D,
    LesionRecord,
    VolumeRecord,
    boxes_between,
    boxes_by_slice,
    clipped_box,
    recist_lengths,
)

__all__ = ["CTLesionDataset"]

_POLICIES = ("key_slices", "lesion_slices", "all_slices")
_UNCERTAIN = ("ignore", "truth")
_FOLD_PARTS = ("in", "out")
_PHANTOMS = ("luna16", "lits", "nih-ln", "deeplesion")
_CONVERTERS = (*_PHANTOMS, "boxes")


@DATASETS.register_module()
class CTLesionDataset(BaseDataset):
    """Slices of the volumes of one annotation file (schema ``mmpluld.annotations/1``).

    A sample is one key slice; its boxes are those of all lesions on that slice, clipped to the image: the box that
    ``attributes["slice_boxes"]`` of a lesion has for the slice, else the x-y extent of a lesion whose z range holds
    the slice's centre. Which slices are samples is the sampling policy:

    - ``key_slices``: every slice that the dataset's own mark of a lesion lies on (DeepLesion: one per mark);
    - ``lesion_slices``: every existing slice of every lesion, for 3D boxes;
    - ``all_slices``: every existing slice, with or without lesions.

    Lesions to be ignored add no slices under the first two policies, but are on the samples they cross, flagged; nor do
    lesions that lie outside the image there. Where a lesion has boxes on some of its slices alone, as when every second
    was marked, it is to be ignored on those between, about where it must be. A slice without lesions is a negative
    under ``all_slices`` alone, so the other two suit datasets whose unlabelled slices may hold lesions. How often a
    sample is drawn in an epoch is up to the sampler: with :class:`~mmpluld.datasets.samplers.LesionSampler`,
    ``lesion_slices`` gives one random slice per lesion and epoch, and ``all_slices`` any proportion of slices with and
    without lesions.

    Keys of a sample: ``dataset`` (its name), ``img_id`` ("VOLUME/SLICE"), ``img_path`` (a
    :func:`~mmpluld.datasets.slice_pictures.picture_address`), ``volume_id``, ``key_slice``, ``patient`` (where none is
    named, what stands for the volume), ``source`` (kind and absolute path), ``first_slice``, ``spacing_mm`` (z, y, x),
    ``slice_interval_mm``, ``height``, ``width``, ``instances`` (``bbox`` as pixel edges x1, y1, x2, y2; ``bbox_label``
    0; ``ignore_flag``; ``lesion_id``; ``key_slice``, the lesion's own, or None; ``tags``, numbers of the header's
    terms, and ``uncertain_tags``, those of them that are doubtful, or None; ``identity``, number of the lesion within
    its patient, or None; ``mask`` as COCO run lengths, empty where it is unknown or the slice is not the lesion's key
    slice), ``recist_mm`` (long and short diameter of every lesion that counts, in the order of ``instances``; NaN where
    unknown), ``body_context`` (z in the body, sex, 1 for male, and age / 100; NaN where unknown), ``sample_idx``.

    Args:
        ann_file: Annotation file, absolute or relative to ``data_root``.
        data_root: Folder of the data; the volumes' paths start from it, or from its sub-folder
            ``data_prefix=dict(img_path="SUBFOLDER")``.
        pipeline: Transforms, by name or as a list, see :func:`~mmpluld.datasets.steps.pipeline_steps`.
        sampling: ``dict(policy=...)``.
        name: Name of the dataset in the samples; None takes the annotation file's.
        slice_boxes: False takes the extent of the whole lesion on each of its slices.
        uncertain: ``ignore`` flags lesions to be ignored; ``truth`` makes them ordinary ground truth (Table V of LENS).
        fraction: Share of the patients to keep, in (0, 1], at least one; a smaller share is part of a larger one.
        fraction_seed: Of the choice of patients.
        fold: ``(k, K)`` keeps a part of the patients, who are dealt to K folds: those of fold k, from 0, or the others.
        fold_part: ``in``: the patients of fold k; ``out``: those of all other folds.
        fold_seed: Of the dealing, see :func:`~mmpluld.datasets.folds.fold_of_patients`.
        skip_unreadable: In training, draw another sample in place of one that cannot be read; ``unreadable`` names
            those met so far, in all data workers, and a run from a config logs them after each epoch. A test reads all.
        filter_cfg: ``dict(filter_empty_gt=True)`` drops samples without a lesion that counts (training only).
        **kwargs: Further arguments of mmengine's BaseDataset.

    Attributes:
        patients: Those kept, sorted, once the annotation file is read.
        annotated_as: The dataset's name in that file, whatever ``name`` is.

    Raises:
        InputError: The annotation file is missing or faulty, a setting is unknown, the training pipeline loads masks
            and no lesion has one, or ``all_slices`` are wanted of mined annotations and no strategy looked at them.
    """

    METAINFO = {"classes": ("lesion",), "palette": [(220, 20, 60)]}

    def __init__(
        self,
        ann_file: str,
        data_root: str = "",
        pipeline: Mapping[str, Any] | Sequence[dict[str, Any] | Callable[..., Any]] | None = None,
        sampling: dict[str, Any] | None = None,
        name: str | None = None,
        slice_boxes: bool = True,
        uncertain: str = "ignore",
        fraction: float = 1.0,
        fraction_seed: int = 0,
        fold: Sequence[int] | None = None,
        fold_part: str = "in",
        fold_seed: int = 0,
        skip_unreadable: bool = False,
        filter_cfg: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if not isinstance(sampling, (Mapping, type(None))):
            allowed = f"dict(policy=...), the policy one of {', '.join(_POLICIES)}"
            raise InputError(f"CTLesionDataset: sampling is {sampling!r}; allowed is {allowed}")
        sampling = dict(sampling or {"policy": "key_slices"})
        self.policy = _choice("sampling policy", sampling.pop("policy", "key_slices"), _POLICIES)
        for key in sampling:
            _choice("key of sampling", key, ("policy",))
        for key in filter_cfg or {}:
            _choice("key of filter_cfg", key, ("filter_empty_gt",))
        for key in kwargs.get("data_prefix", {}):
            _choice("key of data_prefix", key, ("img_path",))
        if not 0 < fraction <= 1:
            raise InputError(f"CTLesionDataset: fraction is {fraction}; allowed is above 0 up to 1, 1 for all patients")
        self.name = name
        self.slice_boxes = slice_boxes
        self.uncertain = _choice("way with uncertain lesions", uncertain, _UNCERTAIN)
        self.fraction, self.fraction_seed = fraction, fraction_seed
        pair = isinstance(fold, (list, tuple)) and len(fold) == 2 and all(isinstance(number, int) for number in fold)
        if fold is not None and not pair:
            raise InputError(f"CTLesionDataset: fold is {fold!r}; allowed is (k, K), number of a fold and of all folds")
        self.fold, self.fold_seed = fold, fold_seed
        self.fold_part = _choice("part of a fold", fold_part, _FOLD_PARTS)
        self.skip_unreadable = skip_unreadable
        self._doubtful: set[int] = set()  # lesions that the file ignores and that are taken for ordinary ones
        self._lost: list[str] = []  # volumes
        self._failed: torch.Tensor | None = None  # 1 for a sample
        super().__init__(
            ann_file=ann_file,
            data_root=data_root,
            pipeline=pipeline_steps(pipeline),
            filter_cfg=filter_cfg,
            **kwargs,
        )

    @uncollected()
    def load_data_list(self) -> list[dict[str, Any]]:
        """Read the annotation file and lay out its samples in file order, slices ascending."""
        self.require_file()
        annotations = AnnotationSet.load(self.ann_file)
        self.annotated_as = str(annotations.dataset["name"])
        annotations.dataset["name"] = self.name or self.annotated_as
        self._metainfo["dataset"] = annotations.dataset
        if self.policy == "all_slices":
            self._refuse_unexamined(annotations)
        if self.uncertain == "truth":
            self._doubtful = {lesion.id for lesion in annotations.lesions if lesion.ignore}
            for lesion in annotations.lesions:
                lesion.ignore = False
        wants_masks = any(getattr(step, "with_mask", False) for step in self.pipeline.transforms)
        if wants_masks and not self.test_mode and not any(lesion.mask for lesion in annotations.lesions):
            raise InputError(
                f"{self.ann_file}: none of its {len(annotations.lesions)} lesions has a mask, but the pipeline loads "
                f"masks; write them with `mmpluld convert deeplesion {self._root} --masks exact "
                "--overwrite`, or train a detector without mask head and with_mask=False"
            )
        lesions = annotations.lesions_by_volume()
        volumes = self._chosen(annotations.volumes)
        self.patients = sorted({volume.person for volume in volumes})
        data: list[dict[str, Any]] = []
        for volume in volumes:
            try:
                data += self._samples(volume, lesions[volume.id])
            except InputError:
                if not self.skip_unreadable or self.test_mode:
                    raise
                self._lost.append(f"{volume.id} (the whole volume)")
        return data

    def _refuse_unexamined(self, annotations: AnnotationSet) -> None:
        """Refuse every slice of mined annotations if none of the strategies looked at those without a lesion.

        Raises:
            InputError: Lesions there would be background.
        """
        rounds = annotations.dataset.get("mined")
        rounds = [old for old in rounds if isinstance(old, dict)] if isinstance(rounds, list) else []
        # Files of early versions do not tell.
        told = [old.get("every_slice", True) for old in rounds]
        if told and not any(told):
            raise InputError(
                f"{self.ann_file}: no strategy that it was mined by looked at slices without a lesion, and lesions "
                "there would be learned as background; mine with `--strategies ... unlabeled`, too, or set "
                'sampling.policy="lesion_slices"'
            )

    def require_file(self) -> None:
        """Refuse an annotation file that is not there, with the commands that write it.

        Raises:
            InputError: It is not.
        """
        if not Path(self.ann_file).is_file():
            raise InputError(f"{self.ann_file}: no such annotation file; {self._how_to_get(self._root)}")

    @property
    def _root(self) -> str:
        """Folder of the data, for messages."""
        return str(self.data_prefix["img_path"]).rstrip("/") or "ROOT"

    def _how_to_get(self, root: str) -> str:
        """The commands that write the annotation file, as far as its path tells."""
        converter, folder, file = self._converter(), Path(root), Path(self.ann_file)
        if file.stem.endswith("_mined"):
            marked = file.with_stem(file.stem.removesuffix("_mined"))
            return f"mine it with `mmpluld mine {marked} PROPOSALS --strategies ... --out {file}`"
        if "phantom" in folder.parent.name and folder.name in _PHANTOMS:
            return f"make the data with `mmpluld phantom lens {folder.parent}`"
        if folder.name == "phantom-starter":
            return f"make the data with `mmpluld phantom starter {root}`"
        if folder.name == "phantom-organs":
            return f"make the data with `mmpluld phantom organs {root}`"
        if "phantom" in folder.name and converter in _PHANTOMS:
            return f"make the data with `mmpluld phantom {converter} {root} && mmpluld convert {converter} {root}`"
        if "phantom" in folder.name:
            return f"make the data with `mmpluld phantom twins {root}`"
        return (
            f"write it with `mmpluld convert {converter} {root}`, or try `--twin` on synthetic data (`mmpluld phantom "
            "twins data/phantom`; for several datasets `mmpluld phantom lens data/phantom-lens`)"
        )

    def _converter(self) -> str:
        """The converter that would write the annotation file, as far as its path tells."""
        path = Path(self.ann_file)
        if path.stem.startswith("manual_"):
            return "deeplesion-3d"
        words = "/".join(f"-{part}-" for part in path.parts).lower().replace("_", "-")
        return next((kind for kind in _CONVERTERS if f"-{kind}-" in words), f"KIND (one of {', '.join(_CONVERTERS)})")

    def _chosen(self, volumes: list[VolumeRecord]) -> list[VolumeRecord]:
        """The volumes of a random share of the patients, or of a part of the folds, in file order."""
        if self.fold is not None:
            fold, total = self.fold
            inside = fold_of_patients((volume.person for volume in volumes), fold, total, self.fold_seed)
            volumes = [volume for volume in volumes if (volume.person in inside) == (self.fold_part == "in")]
        if self.fraction == 1:
            return volumes
        patients = sorted({volume.person for volume in volumes})
        order = np.random.default_rng(self.fraction_seed).permutation(len(patients))
        kept = {patients[index] for index in order[: max(1, round(self.fraction * len(patients)))]}
        return [volume for volume in volumes if volume.person in kept]

    def _samples(self, volume: VolumeRecord, lesions: list[LesionRecord]) -> Iterator[dict[str, Any]]:
        """The samples of one volume."""
        root = Path(self.data_prefix["img_path"])
        source = volume.source | {"path": str(source_path(volume, root).absolute())}
        shared = {
            "dataset": self._metainfo["dataset"]["name"],
            "volume_id": volume.id,
            "patient": volume.person,
            "source": source,
            "first_slice": volume.first_slice,
            "spacing_mm": tuple(volume.spacing_mm),
            "slice_interval_mm": volume.spacing_mm[0],
            "height": volume.shape_yx[0],
            "width": volume.shape_yx[1],
        }
        cuts = [(lesion, self._cuts(lesion)) for lesion in lesions]
        gaps = [(lesion, boxes_between(boxes)) for lesion, boxes in cuts]
        for index in self._slices(volume, cuts):
            found = [(lesion, _instance(lesion, boxes[index], volume)) for lesion, boxes in cuts if index in boxes]
            crossing = [(lesion, item) for lesion, item in found if item is not None]
            found = [(lesion, _instance(lesion, boxes[index], volume)) for lesion, boxes in gaps if index in boxes]
            unmarked = [(lesion, item | {"ignore_flag": 1}) for lesion, item in found if item is not None]
            counted = [lesion for lesion, _ in crossing if not lesion.ignore]
            if not counted and self.policy != "all_slices":
                continue
            yield {
                "img_id": f"{volume.id}/{index:03d}",
                "img_path": picture_address(source, volume.first_slice, index, volume.id),
                "key_slice": index,
                **shared,
                "instances": [item | {"mask": _mask(lesion, index, volume)} for lesion, item in crossing + unmarked],
                "recist_mm": [_recist_mm(lesion, index, volume) for lesion in counted],
                "body_context": _body_context(counted),
            }

    def _cuts(self, lesion: LesionRecord) -> dict[int, Box2D]:
        """The lesion's 2D box on each of its slices."""
        return boxes_by_slice(lesion, self.slice_boxes)

    def _slices(self, volume: VolumeRecord, cuts: list[tuple[LesionRecord, dict[int, Box2D]]]) -> list[int]:
        """Slice numbers that are samples, ascending."""
        counted = [(lesion, boxes) for lesion, boxes in cuts if not lesion.ignore]
        if self.policy == "key_slices":
            return sorted({lesion.key_slice for lesion, _ in counted if lesion.key_slice is not None})
        if self.policy == "lesion_slices" and not counted:
            return []
        # A folder of slices can hold several volumes of an annotation file, each a part of the series.
        within = range(volume.first_slice, volume.first_slice + volume.num_slices)
        existing = [
            index for index in open_source(volume, self.data_prefix["img_path"]).indices.tolist() if index in within
        ]
        if self.policy == "all_slices":
            return existing
        inside = set().union(*(boxes for _, boxes in counted))
        return [index for index in existing if index in inside]

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

    def full_init(self) -> None:
        """Lay out the samples; data workers, which get copies of the dataset, share the marks of unreadable ones."""
        super().full_init()
        if self.skip_unreadable and self._failed is None and not self.test_mode:
            self._failed = torch.zeros(len(self), dtype=torch.uint8).share_memory_()

    def prepare_data(self, idx: int) -> Any:
        """The sample that the pipeline makes; None, for another one to be drawn, if it is to be skipped.

        Raises:
            InputError: It cannot be read.
        """
        try:
            return super().prepare_data(idx)
        except InputError as error:
            if self._failed is None:
                raise
            self._failed[idx] = 1
            if bool(self._failed.all()):
                raise InputError(f"{self.ann_file}: none of its {len(self)} samples can be read: {error}") from error
            return None

    @property
    def unreadable(self) -> list[str]:
        """The volumes and samples that ``skip_unreadable`` has skipped so far, in this process and its data workers."""
        failed = [] if self._failed is None else self._failed.nonzero().flatten().tolist()
        return self._lost + [str(self.get_data_info(index)["img_id"]) for index in failed]

    @force_full_init
    def sample_groups(self) -> tuple[dict[int, list[int]], list[int]]:
        """Return the sample indices that show each lesion that counts, by lesion id, and the negatives.

        Negatives are the samples that show none, under the policy ``all_slices``; otherwise there are none. What the
        file ignores does not count, even where ``uncertain="truth"`` makes it ground truth of a sample: labels change
        then, and what is drawn does not.
        """
        by_lesion: dict[int, list[int]] = {}
        negatives: list[int] = []
        for index in range(len(self)):
            ids = [number for number in _lesion_ids(self.get_data_info(index)) if number not in self._doubtful]
            for lesion in ids:
                by_lesion.setdefault(lesion, []).append(index)
            if not ids and self.policy == "all_slices":
                negatives.append(index)
        return by_lesion, negatives

    def get_cat_ids(self, idx: int) -> list[int]:
        """Class ids of the boxes of a sample, for mmengine's dataset wrappers."""
        return [item["bbox_label"] for item in self.get_data_info(idx)["instances"]]


def _instance(lesion: LesionRecord, box: Box2D, volume: VolumeRecord) -> dict[str, Any] | None:
    """A 2D box of a lesion in mmdet's form; None if nothing of it is inside the image."""
    clipped = clipped_box(box, volume.shape_yx)
    if clipped is None:
        return None
    return {
        "bbox": list(clipped),
        "bbox_label": 0,
        "ignore_flag": int(lesion.ignore),
        "lesion_id": lesion.id,
        "key_slice": lesion.key_slice,
        "tags": lesion.attributes.get("tags"),
        "uncertain_tags": lesion.attributes.get("uncertain_tags"),
        "identity": lesion.attributes.get("lesion"),
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


def _body_context(lesions: list[LesionRecord]) -> tuple[float, float, float]:
    """Position of the slice in the body, sex (1 male, 0 female) and age / 100, NaN where DeepLesion does not tell."""
    known = lesions[0].attributes if lesions else {}
    z = (known.get("normalized_location") or [None] * 3)[2]
    age = known.get("age")
    return (
        float("nan") if z is None else float(z),
        {"M": 1.0, "F": 0.0}.get(known.get("gender"), float("nan")),  # type: ignore[arg-type]
        age / 100 if age else float("nan"),
    )


def _lesion_ids(sample: dict[str, Any]) -> list[int]:
    return [item["lesion_id"] for item in sample["instances"] if not item["ignore_flag"]]


def _choice(what: str, value: Any, allowed: tuple[str, ...]) -> str:
    """Return ``value`` if it is allowed."""
    if value in allowed:
        return str(value)
    hint = did_you_mean(value, allowed)
    raise InputError(f"CTLesionDataset: unknown {what} {value!r}; allowed: {', '.join(allowed)}{hint}")
