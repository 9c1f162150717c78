"""Small series of two patients, and proposals on them that are written down by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest

from mmpluld.inputs import sha256_of
from mmpluld.io.embeddings import EmbeddingHeader, EmbeddingStore, VolumeEmbeddings
from mmpluld.io.proposals import ProposalHeader, ProposalStore, VolumeProposals
from mmpluld.io.shards import shard_path
from mmpluld.mining.pool import ProposalPool
from mmpluld.structures import AnnotationSet, LesionRecord, VolumeRecord

EXPERTS = ("deeplesion", "lits", "luna16")

# grid position, box, score, expert, tracklet
Row = tuple[int, tuple[float, float, float, float], float, str, int]


def _volume(name: str, interval: float = 2.0, num_slices: int = 10, first_slice: int = 11) -> VolumeRecord:
    patient, study, series = name.split("_")
    return VolumeRecord(
        name, patient, study, series, {"kind": "png16", "path": name}, first_slice, num_slices, (100, 200),
        (interval, 1.0, 1.0),
    )  # fmt: skip


def _proposals(volume: VolumeRecord, rows: Iterable[Row]) -> VolumeProposals:
    from mmpluld.postprocess import GridMap

    rows = list(rows)
    grid = GridMap(volume.num_slices, volume.spacing_mm[0])
    places = np.array([row[0] for row in rows], dtype=np.int64)
    return VolumeProposals(
        volume.id, 2.0, volume.spacing_mm[0], np.array([[volume.first_slice, volume.num_slices]]),
        boxes=np.array([row[1] for row in rows], dtype=np.float64).reshape(-1, 4),
        scores=np.array([row[2] for row in rows], dtype=np.float64),
        expert=np.array([EXPERTS.index(row[3]) for row in rows], dtype=np.int64),
        run=np.zeros(len(rows), dtype=np.int64), grid=places,
        slice=volume.first_slice + grid.slices_to_scan(places),
        tracklet=np.array([row[4] for row in rows], dtype=np.int64),
    )  # fmt: skip


@pytest.fixture
def volume() -> Callable[..., VolumeRecord]:
    """``volume("patient_study_series", interval=2.0, num_slices=10, first_slice=11)``, of 100 x 200 pixels."""
    return _volume


@pytest.fixture
def annotated() -> Callable[..., AnnotationSet]:
    """``annotated([volumes], [lesions])`` of the dataset ``deeplesion``."""

    def make(volumes: list[VolumeRecord], lesions: list[LesionRecord]) -> AnnotationSet:
        return AnnotationSet({"name": "deeplesion", "label_scope": "universal-partial"}, volumes, lesions)

    return make


@pytest.fixture
def lesion() -> Callable[..., LesionRecord]:
    """``lesion(id, volume, slice, box)``: annotated on one slice."""

    def make(number: int, volume: str, index: int, box: tuple[float, ...], **more) -> LesionRecord:
        x1, y1, x2, y2 = box
        fields = {"key_slice": index, "type": "liver", **more}
        return LesionRecord(number, volume, (x1, y1, float(index), x2, y2, index + 1.0), **fields)

    return make


@pytest.fixture
def store(tmp_path) -> Callable[..., ProposalStore]:
    """``store([(volume, rows)], sha="", name="proposals")``: proposals on disk."""

    def make(found: list[tuple[VolumeRecord, list[Row]]], sha: str = "", name: str = "proposals") -> ProposalStore:
        header = ProposalHeader("c", "0", "w.pth", name, "train.json", sha, EXPERTS, {"iou_thr": 0.5})
        made = ProposalStore.create(tmp_path / name, header)
        for volume, rows in found:
            made.save(_proposals(volume, rows))
        return made

    return make


@pytest.fixture
def pool(store) -> Callable[..., ProposalPool]:
    """``pool((volume, rows), ...)``: proposals to mine."""

    def make(*found: tuple[VolumeRecord, list[Row]]) -> ProposalPool:
        return ProposalPool([store(list(found))])

    return make


@pytest.fixture
def embeddings(tmp_path) -> Callable[..., EmbeddingStore]:
    """``embeddings({volume: (lesions, tracklets)}, annotations_sha, proposals_sha)``: angles in degrees by number."""

    def make(
        found: dict[str, tuple[dict[int, float], dict[int, float]]], annotations: str = "", proposals: str = ""
    ) -> EmbeddingStore:
        made = EmbeddingStore.create(tmp_path / "embeddings", EmbeddingHeader("c", "d", "w", annotations, proposals, 2))
        for name, (lesions, tracklets) in found.items():
            shard = shard_path(tmp_path / "proposals", name)
            made.save(
                VolumeEmbeddings(
                    name, np.array(list(lesions), np.int64), _unit(lesions.values()),
                    np.array(list(tracklets), np.int64), _unit(tracklets.values()),
                    sha256_of(shard) if shard.exists() else "",
                )
            )  # fmt: skip
        return made

    return make


def _unit(degrees: Iterable[float]) -> np.ndarray:
    angles = np.radians(np.array(list(degrees)))
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32).reshape(-1, 2)


@pytest.fixture
def saved(tmp_path) -> Callable[[AnnotationSet], Path]:
    """Write annotations to ``train.json`` and return its path."""

    def save(annotations: AnnotationSet, name: str = "train.json") -> Path:
        annotations.save(tmp_path / name)
        return tmp_path / name

    return save
