"""Embeddings of lesions and tracklets, in one process or many: what ``mmpluld embed`` calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import init_default_scope

from mmpluld.datasets.folds import proposed_volumes
from mmpluld.datasets.steps import pipeline_steps
from mmpluld.engine.checkpoint import load_checkpoint_safely, load_weights, meta_of, put_weights
from mmpluld.engine.config_digest import config_digest
from mmpluld.engine.device import checked_device, chosen_device
from mmpluld.engine.run import prepare_config, sole_writer
from mmpluld.engine.seen_patients import NUMBERED
from mmpluld.errors import InputError, counted, name_some
from mmpluld.inference.volumes import Examined, join, lacking_shards, share_out
from mmpluld.inputs import file_size, sha256_of
from mmpluld.io.embeddings import EmbeddingHeader, EmbeddingStore, Vectors, VolumeEmbeddings
from mmpluld.io.proposals import ProposalStore, VolumeProposals
from mmpluld.io.slice_sources import SliceSource, open_source
from mmpluld.models.embedders import LesionEmbedder
from mmpluld.postprocess.scan_tracklets import scan_tracklets
from mmpluld.progress import note, track
from mmpluld.registry import TRANSFORMS, build_model
from mmpluld.structures import AnnotationSet, Box2D, LesionRecord, VolumeRecord, clipped_box, key_box
from mmpluld.typing import StrPath
from mmpluld.zoo.download import local_checkpoint

__all__ = ["VolumeEmbedder", "embed", "tracklet_centres"]


def embed(
    config: StrPath,
    checkpoint: StrPath,
    annotations: StrPath,
    data_root: StrPath,
    out: StrPath,
    proposals: StrPath | None = None,
    box_score: float = 0.0,
    device: str = "auto",
    batch_size: int = 32,
    twin: bool = False,
    cfg_options: Sequence[str] | None = None,
    launcher: str = "none",
    local_rank: int = 0,
) -> Examined:
    """Embed every lesion of an annotation file on its key slice, and every tracklet of a proposal store on its centre.

    A volume that has a whole file in ``out`` is not embedded again, so that a call that was cut off is repeated. The
    volumes are shared out among the processes, which do not wait for one another at the end.

    Args:
        config: Path, or name of a config of the zoo whose model is an embedder.
        checkpoint: Weights that belong to it: a path, a web address, or ``zoo:NAME``.
        annotations: Annotation file; lesions to be ignored are left out.
        data_root: Folder that the volumes' paths start from.
        out: Folder of the embeddings, new or of the same weights and files.
        proposals: What ``mmpluld propose`` made of the volumes; those of a fold restrict the volumes to the fold's.
            None embeds the lesions alone.
        box_score: Tracklets begin and end with a box that scores at least this, as they will be mined; without such a
            box they are not embedded.
        device: ``cpu``, ``cuda``, ``cuda:N``, or ``auto``: a GPU where there is one, each process its own.
        batch_size: Slices at once.
        twin: Take the config's miniature.
        cfg_options: Changes to the config as "key.sub=value" strings.
        launcher: none | pytorch | slurm | mpi.
        local_rank: Rank on this machine, as the launchers pass it.

    Raises:
        InputError: An input is missing, unreadable or does not fit, ``out`` holds embeddings of something else, or the
            weights learnt from the numbers of lesions of a patient that is to be embedded.
    """
    cfg = prepare_config(config, None, cfg_options, launcher, local_rank, twin)
    init_default_scope(cfg.get("default_scope", "mmpluld"))
    weights = local_checkpoint(checkpoint)
    file_size(weights, "weights: a file, a web address, or zoo:NAME")
    file_size(Path(annotations), "an annotation file")
    digests = sha256_of(weights), sha256_of(annotations)  # before they are read, so that a change meanwhile is seen
    content = AnnotationSet.load(annotations)
    store = None if proposals is None else ProposalStore(proposals)
    volumes = content.volumes if store is None else proposed_volumes(store, content.volumes, annotations)
    model = _embedder(cfg)
    read = load_checkpoint_safely(weights)
    told = check_patients(meta_of(read), weights, volumes, annotations)
    put_weights(model, read, weights)
    del read  # with the optimizer's moments it is several times the model's size
    with sole_writer(out, launcher):
        alone = join(cfg, launcher)
        embedder = VolumeEmbedder(cfg, model.to(checked_device(chosen_device(device))), batch_size=batch_size)
        done = EmbeddingStore.create(out, _header(cfg, digests, store, embedder.size, box_score))
        first, wanted, mine = share_out(lambda: _lacking(done, store, volumes), leave=alone)
        if first and not told:
            note(
                f"{weights}: does not tell whose lesions had numbers in its training; make sure that none of these had"
            )
        lesions, by_id = content.lesions_by_volume(), {volume.id: volume for volume in volumes}
        for name in track(mine, "volumes") if first else mine:
            source = open_source(by_id[name], data_root)
            digest = _shard_digest(store, name)  # first: of proposals that are made anew meanwhile it is outdated
            shard = None if store is None else store.load(name)
            found = embed_volume(embedder, by_id[name], source, lesions[name], shard, box_score)
            done.save(replace(found, proposals_sha256=digest))
    return Examined(done.folder, len(volumes), len(volumes) - len(wanted), len(mine))


def _lacking(done: EmbeddingStore, store: ProposalStore | None, volumes: Sequence[VolumeRecord]) -> list[str]:
    """Ids of the volumes to be embedded: those without a whole file, and those whose proposals were made anew."""
    return lacking_shards(done, volumes, lambda found: found.proposals_sha256 == _shard_digest(store, found.volume))


def _shard_digest(store: ProposalStore | None, volume: str) -> str:
    """SHA-256 of a volume's proposals; empty without a store."""
    return "" if store is None else sha256_of(store.path(volume))


def _header(
    cfg: Config, digests: tuple[str, str], store: ProposalStore | None, size: int, box_score: float
) -> EmbeddingHeader:
    """What the embeddings are of."""
    return EmbeddingHeader(
        config=Path(cfg.filename).stem,
        config_sha256=config_digest(cfg),
        checkpoint=digests[0],
        annotations=digests[1],
        proposals="" if store is None else sha256_of(store.folder / "proposals.json"),
        size=size,
        box_score=box_score,
    )


class VolumeEmbedder:
    """A trained embedder that is asked for vectors of boxes on slices of a volume.

    Args:
        config: A loaded config whose model is a :class:`~mmpluld.models.embedders.LesionEmbedder`; its test pipeline
            cuts the patches.
        model: Weights that belong to its model, or the model itself, built and on its device.
        device: ``cpu``, ``cuda`` or ``cuda:N``, for weights.
        batch_size: Slices at once.

    Raises:
        InputError: The config is another model's, or the weights are.
    """

    def __init__(
        self, config: Config, model: StrPath | LesionEmbedder, device: str = "cpu", batch_size: int = 32
    ) -> None:
        self.batch_size = batch_size
        if isinstance(model, LesionEmbedder):
            self.model = model
        else:
            where = checked_device(device)
            self.model = _embedder(config)
            load_weights(self.model, model)
            self.model.to(where)
        self.model.eval()
        self.size: int = self.model.embed_channels
        steps = pipeline_steps(config.get("test_dataloader", {}).get("dataset", {}).get("pipeline"))
        self.pipeline = Compose([TRANSFORMS.build(step) for step in steps])

    @torch.inference_mode()
    def vectors(self, volume: VolumeRecord, source: SliceSource, places: Sequence[tuple[int, Box2D]]) -> Vectors:
        """Embeddings of boxes of a volume.

        Args:
            volume: The volume.
            source: Its slices.
            places: Slice number and box (x1, y1, x2, y2) in pixel edges of N places, in any order.

        Returns:
            (N, C) float32, of length 1.

        Raises:
            InputError: A slice is missing or cannot be read, or a box lies outside the image.
        """
        found = np.zeros((len(places), self.size), np.float32)
        rows = sorted(range(len(places)), key=lambda row: places[row][0])
        slices = [list(group) for _, group in groupby(rows, key=lambda row: places[row][0])]
        for start in range(0, len(slices), self.batch_size):
            batch = slices[start : start + self.batch_size]
            samples = [self.pipeline(_sample(volume, source, group, places)) for group in batch]
            for sample in self.model.test_step(pseudo_collate(samples)):
                vectors = sample.pred_instances.embeddings.cpu().numpy()
                found[sample.gt_instances.lesion_ids.cpu().numpy()] = vectors
        return found


def embed_volume(
    embedder: VolumeEmbedder,
    volume: VolumeRecord,
    source: SliceSource,
    lesions: Sequence[LesionRecord],
    proposals: VolumeProposals | None,
    box_score: float = 0.0,
) -> VolumeEmbeddings:
    """Embed the lesions and tracklets of a volume; see :func:`embed`."""
    counted_lesions = [lesion for lesion in lesions if not lesion.ignore]
    places = [key_box(lesion) for lesion in counted_lesions]
    centres = {} if proposals is None else tracklet_centres(proposals, box_score)
    vectors = embedder.vectors(volume, source, [*places, *centres.values()])
    return VolumeEmbeddings(
        volume.id,
        np.array([lesion.id for lesion in counted_lesions], np.int64),
        vectors[: len(places)],
        np.array(list(centres), np.int64),
        vectors[len(places) :],
    )


def tracklet_centres(proposals: VolumeProposals, box_score: float = 0.0) -> dict[int, tuple[int, Box2D]]:
    """Slice number and box that stand for each tracklet, by its number, ascending: its ``ScanTracklet.centre``.

    Which box stands for a tracklet the paper leaves open beyond "centre slice". On slices farther apart than the grid
    no 2D box may lie on that slice; the one there is interpolated, as where boxes are mined.

    Args:
        proposals: Of a volume.
        box_score: Tracklets begin and end with a box that scores at least this.
    """
    tracklets = scan_tracklets(proposals, box_score=box_score)
    return {tracklet.number: tracklet.centre for tracklet in sorted(tracklets, key=lambda item: item.number)}


def _embedder(config: Config) -> LesionEmbedder:
    """The model of a config, without its weights.

    Raises:
        InputError: It is no embedder.
    """
    model = build_model(config)
    if not isinstance(model, LesionEmbedder):
        raise InputError(
            f"{config.filename}: its model is {config.model.type}; embedding needs a LesionEmbedder, such as that of "
            "lesanet_vgg16_instances_15e_deeplesion"
        )
    return model


def check_patients(
    meta: Mapping[str, Any], weights: Path, volumes: Sequence[VolumeRecord], annotations: StrPath
) -> bool:
    """Refuse weights that were trained with the numbers of lesions of a patient that is to be embedded.

    Matching marks of those patients would only repeat what the training was told.

    Args:
        meta: What the checkpoint tells of its training.
        weights: The checkpoint, for messages.
        volumes: To be embedded.
        annotations: Where they are from, for messages.

    Returns:
        Whether the weights tell whose lesions had numbers.

    Raises:
        InputError: They were.
    """
    numbered = meta.get(NUMBERED)
    if numbered is None:
        return False
    shared = sorted({*numbered} & {volume.person for volume in volumes})
    if shared:
        raise InputError(
            f"{weights}: was trained with the identities of lesions of {counted(len(shared), 'patient')} of "
            f"{annotations} ({name_some(shared)}); train on numbers of other patients, such as the other folds'"
        )
    return True


def _sample(
    volume: VolumeRecord, source: SliceSource, rows: Sequence[int], places: Sequence[tuple[int, Box2D]]
) -> dict[str, Any]:
    """What the dataset would hand to the pipeline for the places on one slice; their numbers stand for lesions."""
    height, width = source.shape_yx
    instances = []
    for row in rows:
        box = clipped_box(places[row][1], source.shape_yx)
        if box is None:
            raise InputError(
                f"volume {volume.id}: box {list(places[row][1])} on slice {places[row][0]} lies outside the image of "
                f"{width} x {height} pixels; mend the annotation file"
            )
        instances.append({"bbox": list(box), "bbox_label": 0, "ignore_flag": 0, "lesion_id": row})
    key = places[rows[0]][0]
    return {
        "slice_source": source,
        "key_slice": key,
        "img_id": f"{volume.id}/{key}",
        "volume_id": volume.id,
        "patient": volume.person,
        "instances": instances,
    }
