"""Proposals on the volumes of an annotation file, in one process or many: what ``mmpluld propose`` calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import nn

from mmpluld.datasets import CTLesionDataset
from mmpluld.datasets.folds import volumes_of_fold
from mmpluld.datasets.named_concat import dataset_settings
from mmpluld.engine.checkpoint import load_checkpoint_safely, meta_of, put_weights
from mmpluld.engine.config_digest import config_digest
from mmpluld.engine.device import checked_device, chosen_device
from mmpluld.engine.run import prepare_config, sole_writer
from mmpluld.engine.seen_patients import TRAINED
from mmpluld.errors import InputError, counted, name_some
from mmpluld.inference.grid_source import GridSliceSource
from mmpluld.inference.lesions_3d import SliceBoxes
from mmpluld.inference.running import Precision
from mmpluld.inference.settings import DetectionSettings, reduction_of_test
from mmpluld.inference.volume_detector import VolumeDetector
from mmpluld.inference.volumes import Examined, join, lacking_shards, load_volumes, share_out
from mmpluld.inputs import file_size, sha256_of
from mmpluld.io.proposals import ProposalHeader, ProposalStore, VolumeProposals
from mmpluld.io.slice_sources import open_source
from mmpluld.models.dense_heads import PerDatasetHead
from mmpluld.models.detectors import PerDatasetDetector
from mmpluld.models.roi_heads import ExpertBBoxHead
from mmpluld.postprocess import number_tracklets
from mmpluld.progress import note, track
from mmpluld.registry import DATASETS, build_model
from mmpluld.structures import AnnotationSet, VolumeRecord
from mmpluld.typing import IntArray, StrPath
from mmpluld.zoo.download import local_checkpoint

__all__ = ["keep_all_boxes", "propose", "propose_volume"]

Fold = tuple[int, int]

_LINKING = ("link_score_thr", "iou_thr", "max_gap", "link_order")


def propose(
    config: StrPath,
    checkpoint: StrPath,
    out: StrPath,
    ann_file: StrPath | None = None,
    data_root: StrPath | None = None,
    fold: Fold | None = None,
    fold_seed: int = 0,
    device: str = "auto",
    precision: Precision = "fp32",
    batch_size: int = 1,
    twin: bool = False,
    cfg_options: Sequence[str] | None = None,
    launcher: str = "none",
    local_rank: int = 0,
    **settings: Any,
) -> Examined:
    """Examine every volume of an annotation file and keep all boxes of all experts, with the tracklets of those that
    survive the fusion.

    A volume that has a whole shard in ``out`` is not examined again, so that a call that was cut off is repeated. The
    volumes are shared out among the processes, which do not wait for one another at the end.

    Args:
        config: Path, or name of a config of the zoo.
        checkpoint: Weights that belong to its model: a path, a web address, or ``zoo:NAME``.
        out: Folder of the proposals, new or of the same config, weights, annotation file and settings.
        ann_file: Annotation file; None takes that of the config's first training dataset.
        data_root: Folder that the volumes' paths start from; None takes that dataset's.
        fold: ``(k, K)`` takes only the volumes of the patients of fold k of K.
        fold_seed: Of the dealing of patients, see :func:`~mmpluld.datasets.folds.fold_of_patients`.
        device: ``cpu``, ``cuda``, ``cuda:N``, or ``auto``: a GPU where there is one, each process its own.
        precision, batch_size: See :class:`~mmpluld.inference.VolumeDetector`.
        twin: Take the config's miniature.
        cfg_options: Changes to the config as "key.sub=value" strings.
        launcher: none | pytorch | slurm | mpi.
        local_rank: Rank on this machine, as the launchers pass it.
        **settings: Changes to the rules of linking that the config carries: ``link_score_thr``, ``iou_thr``,
            ``max_gap``, ``link_order``.

    Raises:
        InputError: If an input is missing, unreadable or does not fit, ``out`` holds proposals of something else, or
            the weights have seen patients of the fold, or were trained on a part of the patients and have seen some.
    """
    cfg = prepare_config(config, None, cfg_options, launcher, local_rank, twin)
    init_default_scope(cfg.get("default_scope", "mmpluld"))
    # Proposals are linked from their own threshold on, whatever score the config's findings have.
    rescored = bool(reduction_of_test(cfg))
    rules = DetectionSettings.from_config(cfg, rescored, **{**settings, "score_thr": 1.0})
    weights = local_checkpoint(checkpoint)
    dataset = _training_set(cfg, config)
    path = Path(dataset.ann_file if ann_file is None else ann_file)
    root = Path(dataset.data_prefix["img_path"] if data_root is None else data_root)
    file_size(weights, "weights: a file, a web address, or zoo:NAME")
    file_size(path, "an annotation file")
    digests = sha256_of(weights), sha256_of(path)  # before they are read, so that a change meanwhile is seen
    annotations = load_volumes(path)
    part = None if fold is None else (*fold, fold_seed)
    volumes = volumes_of_fold(annotations.volumes, part)
    read = load_checkpoint_safely(weights)
    told = _refuse_trained_on(meta_of(read), weights, annotations.dataset["name"], volumes, part)
    model = build_model(cfg)
    put_weights(model, read, weights)
    del read  # with the optimizer's moments it is several times the model's size
    with sole_writer(out, launcher):
        alone = join(cfg, launcher)
        place = checked_device(chosen_device(device))
        detector = VolumeDetector(cfg, model.to(place), rules, precision=precision, batch_size=batch_size)
        experts = keep_all_boxes(detector.model) or (_trained_on(dataset, path, annotations),)
        header = _header(cfg, weights, path, digests, experts, rules, precision, part)
        store = ProposalStore.create(out, header)
        first, wanted, mine = share_out(lambda: lacking_shards(store, volumes), leave=alone)
        if first and fold is not None and not told:
            k, K = fold
            note(f"{weights}: does not tell whom it was trained on; make sure that it has not seen fold {k}/{K}")
        by_id = {volume.id: volume for volume in volumes}
        for name in track(mine, "volumes") if first else mine:
            store.save(propose_volume(detector, by_id[name], root))
    return Examined(store.folder, len(volumes), len(volumes) - len(wanted), len(mine))


def _header(
    cfg: Config,
    weights: Path,
    annotations: Path,
    digests: tuple[str, str],
    experts: tuple[str, ...],
    rules: DetectionSettings,
    precision: Precision,
    fold: tuple[int, int, int] | None,
) -> ProposalHeader:
    """What the proposals are of."""
    return ProposalHeader(
        config=Path(cfg.filename).stem,
        config_sha256=config_digest(cfg),
        checkpoint=weights.name,
        checkpoint_sha256=digests[0],
        annotations=annotations.name,
        annotations_sha256=digests[1],
        experts=experts,
        settings={name: value for name, value in asdict(rules).items() if name in _LINKING},
        precision=precision,
        fold=fold,
    )


def propose_volume(detector: VolumeDetector, volume: VolumeRecord, root: StrPath) -> VolumeProposals:
    """Every box that a detector finds in a volume, and the tracklets.

    Args:
        detector: Its settings say how boxes are linked. With :func:`keep_all_boxes`, boxes that the fusion suppresses
            are among them.
        volume: The volume, examined whole between its first slice and its last.
        root: Folder that its path starts from.

    Raises:
        InputError: If it cannot be read.
    """
    source = open_source(volume, root)
    name = f"volume {volume.id}"
    grids = detector.grids(source, volume.first_slice, volume.num_slices, name)
    rows: list[tuple[npt.NDArray[Any], ...]] = []
    count = 0
    for run, grid in enumerate(grids):
        found = [_sorted(item) for item in detector.examine(grid, name)]
        numbers = _tracklets(found, detector.settings)
        scan_slices = grid.grid.slices_to_scan(grid.indices) + int(grid.slices[0])
        for position, (item, number) in enumerate(zip(found, numbers, strict=True)):
            places = (np.full(len(number), value) for value in (run, position, scan_slices[position]))
            expert = np.zeros(len(number), np.int64) if item.expert is None else item.expert
            rows.append((item.boxes, item.scores, expert, *places, np.where(number < 0, -1, number + count)))
        count += max((int(number.max(initial=-1)) for number in numbers), default=-1) + 1
    columns = (np.concatenate(column) for column in zip(*rows, strict=True))
    return VolumeProposals(volume.id, grids[0].grid.gap_mm, grids[0].grid.interval_mm, _runs(grids), *columns)


def keep_all_boxes(model: nn.Module) -> tuple[str, ...]:
    """Let a detector return every expert's boxes, with the scores that the fusion leaves them.

    Args:
        model: The detector. Of one without experts the boxes stay as they are.

    Returns:
        Names of the experts, in the order of their numbers; none of a detector without.
    """
    second_stage = getattr(getattr(model, "roi_head", None), "bbox_head", None)
    only_stage = getattr(model, "bbox_head", None)
    if isinstance(model, PerDatasetDetector):
        model.unfused = True
        return tuple(model.datasets)
    if isinstance(second_stage, ExpertBBoxHead):
        model.roi_head.test_cfg["unfused"] = True
        return tuple(second_stage.datasets)
    if isinstance(only_stage, PerDatasetHead) and only_stage.test_cfg is not None:
        only_stage.test_cfg["unfused"] = True
        return tuple(only_stage.datasets)
    return ()


def _sorted(found: SliceBoxes) -> SliceBoxes:
    """The boxes with an area in the precision of the files, by expert, then by falling score."""
    found = found._replace(boxes=found.boxes.astype(np.float32).astype(np.float64))
    keys = (*found.boxes.T[::-1], -found.scores, *(() if found.expert is None else (found.expert,)))
    order = np.lexsort(keys)
    return found.chosen(order).above(0.0)


def _tracklets(found: Sequence[SliceBoxes], settings: DetectionSettings) -> list[IntArray]:
    """For each slice the number of each box's tracklet in the run, or -1."""
    scores = [item.scores if item.fused_scores is None else item.fused_scores for item in found]
    linked = [values >= settings.link_score_thr for values in scores]
    numbers = number_tracklets(
        [item.boxes[rows] for item, rows in zip(found, linked, strict=True)],
        [values[rows] for values, rows in zip(scores, linked, strict=True)],
        settings.iou_thr,
        settings.max_gap,
        settings.link_order,
    )
    result = []
    for rows, some in zip(linked, numbers, strict=True):
        whole = np.full(len(rows), -1, dtype=np.int64)
        whole[rows] = some
        result.append(whole)
    return result


def _runs(grids: Sequence[GridSliceSource]) -> IntArray:
    return np.array([(grid.slices[0], len(grid.slices)) for grid in grids], dtype=np.int64).reshape(-1, 2)


def _training_set(cfg: Config, config: StrPath) -> CTLesionDataset:
    """The first dataset that a config trains on, not yet read; that is DeepLesion in the configs of the papers."""
    loader = cfg.get("train_dataloader")
    settings: Mapping[str, Any] = {} if loader is None else dataset_settings(loader["dataset"])[0]
    dataset = DATASETS.build({**settings, "lazy_init": True}) if settings else None
    if not isinstance(dataset, CTLesionDataset):
        raise InputError(
            f"{config}: the first dataset of train_dataloader is {settings.get('type')!r}; proposals need a config "
            "that trains on a CTLesionDataset"
        )
    return dataset


def _refuse_trained_on(
    meta: Mapping[str, Any],
    weights: Path,
    dataset: str,
    volumes: Sequence[VolumeRecord],
    fold: tuple[int, int, int] | None,
) -> bool:
    """Refuse patients whom a detector has seen, where it was trained on a part of them or is to examine a fold.

    Returns:
        Whether the weights tell whom they have seen.

    Raises:
        InputError: There are some.
    """
    trained = meta.get(TRAINED)
    if trained is None:
        return False
    own = trained.get(dataset, {"fold": None, "patients": []})
    seen = sorted({volume.person for volume in volumes} & {*own["patients"]})
    if not seen or fold is None and own["fold"] is None:
        return True
    told = "was trained on, or began with weights that were trained on,"
    cure = "give weights that have not seen them, of a training with fold_part=out"
    if own["fold"] is not None and own["fold"][3] == "out" and fold != tuple(own["fold"][:3]):
        k, K, seed, _ = own["fold"]
        told = f"was trained on all patients but those of fold {k}/{K}, and so on"
        cure = f"give --fold {k}/{K}" + (f" --fold-seed {seed}" if seed else "")
    raise InputError(
        f"{weights}: {told} {counted(len(seen), 'patient')} of those to examine ({name_some(seen)}), where it is surer "
        f"than elsewhere; {cure}"
    )


def _trained_on(dataset: CTLesionDataset, path: Path, annotations: AnnotationSet) -> str:
    """Name of the (first) dataset that a detector without experts was trained on; ``path`` has been read already."""
    if dataset.name:
        return str(dataset.name)
    if path != Path(dataset.ann_file):
        if not Path(dataset.ann_file).is_file():
            raise InputError(
                f"{dataset.ann_file}: no such annotation file; a detector without experts goes by the name of the "
                "dataset it was trained on, so say where that is, as with --cfg-options data_root=FOLDER"
            )
        annotations = AnnotationSet.load(dataset.ann_file)
    return str(annotations.dataset["name"])
