"""Embeddings of lesions and tracklets on disk: a header and one file of arrays a volume.

``DIR/embeddings.json`` (schema ``mmpluld.embeddings/2``) says what they were made with and of; the arrays of a volume
are in ``DIR/volumes/<quoted id>.npz``.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmpluld.atomic import atomic_write_text
from mmpluld.errors import InputError
from mmpluld.io.shards import note_version, read_shard, shard_volumes, write_shard
from mmpluld.structures.text_files import read_json
from mmpluld.typing import IntArray, StrPath
from mmpluld.version import __version__

__all__ = ["EmbeddingHeader", "EmbeddingStore", "VolumeEmbeddings"]

Vectors = npt.NDArray[np.float32]

_SCHEMA = "mmpluld.embeddings/2"
_HEADER = "embeddings.json"
_WHAT = "a folder that `mmpluld embed` wrote"
_REMEDY = "write it again with `mmpluld embed`"
_WORDS = {
    "config_sha256": "an embedder of settings",
    "checkpoint": "weights",
    "size": "length",
}


@dataclass(frozen=True)
class EmbeddingHeader:
    """What embeddings were made with and of.

    Attributes:
        config: Name of the embedder's config.
        config_sha256: Of those of its values that decide a vector.
        checkpoint: SHA-256 of its weights.
        annotations: SHA-256 of the annotation file whose lesions were embedded.
        proposals: SHA-256 of the header of the proposal store whose tracklets were embedded; empty without one.
        size: C, numbers of a vector.
        box_score: Tracklets begin and end with a box that scores at least this.
    """

    config: str
    config_sha256: str
    checkpoint: str
    annotations: str
    proposals: str
    size: int
    box_score: float = 0.0


@dataclass(frozen=True)
class VolumeEmbeddings:
    """Embeddings of one volume; all vectors have length 1.

    Attributes:
        volume: Id of the volume.
        lesion_ids: (A,) int64, ``LesionRecord.id`` of the lesions with a key slice.
        lesions: (A, C) float32, each on its key slice.
        tracklets: (T,) int64, numbers of the volume's tracklets in the proposal store, ascending.
        tracklet_vectors: (T, C) float32, each on its centre slice.
        proposals_sha256: Of the volume's shard of proposals, in which alone these numbers mean these tracklets; empty
            without one.
    """

    volume: str
    lesion_ids: IntArray
    lesions: Vectors
    tracklets: IntArray
    tracklet_vectors: Vectors
    proposals_sha256: str = ""


class EmbeddingStore:
    """Embeddings on disk.

    Args:
        folder: What ``mmpluld embed`` wrote.

    Raises:
        InputError: There is no such store, or its header is damaged.
    """

    def __init__(self, folder: StrPath) -> None:
        self.folder = Path(folder)
        self.header = _read_header(self.folder / _HEADER)

    @classmethod
    def create(cls, folder: StrPath, header: EmbeddingHeader) -> EmbeddingStore:
        """Begin a store, or go on with one of the same header.

        Raises:
            InputError: The folder holds embeddings made with or of something else.
        """
        path = Path(folder) / _HEADER
        if path.exists():
            found = _read_header(path)
            for field in fields(header):
                old, new = getattr(found, field.name), getattr(header, field.name)
                if old != new and field.name != "config":  # a name, beside the SHA-256 of what it stands for
                    raise InputError(
                        f"{path}: these embeddings are of {_WORDS.get(field.name, field.name)} {_short(old)}, not "
                        f"{_short(new)}; give another folder (`mmpluld mine --embeddings` takes several)"
                    )
            note_version(path, read_json(path, _WHAT))
        else:
            text = json.dumps({"schema": _SCHEMA, **asdict(header), "version": __version__}, indent=1)
            atomic_write_text(path, text + "\n")
        return cls(folder)

    @property
    def volumes(self) -> list[str]:
        """Ids of the volumes that are done, sorted."""
        return shard_volumes(self.folder)

    def load(self, volume: str) -> VolumeEmbeddings:
        """The embeddings of a volume.

        Raises:
            InputError: It is not done, its file is damaged, or a vector is not of length 1.
        """
        size = self.header.size
        arrays: dict[str, Any] = read_shard(
            self.folder,
            volume,
            {
                "lesion_ids": ("int64", ("A",)),
                "lesions": ("float32", ("A", size)),
                "tracklets": ("int64", ("T",)),
                "tracklet_vectors": ("float32", ("T", size)),
                "proposals_sha256": ("str", ()),
            },
            _REMEDY,
        )
        digest = str(arrays.pop("proposals_sha256"))
        found = VolumeEmbeddings(volume, **arrays, proposals_sha256=digest)
        _check_lengths(f"{self.folder}: volume {volume}", found)
        return found

    def save(self, embeddings: VolumeEmbeddings) -> None:
        """Write the embeddings of a volume, whole or not at all.

        Raises:
            InputError: They do not fit together, or the file cannot be written.
        """
        found = embeddings
        size = self.header.size
        shapes = (found.lesions.shape, found.tracklet_vectors.shape)
        if shapes != ((len(found.lesion_ids), size), (len(found.tracklets), size)):
            raise InputError(
                f"volume {found.volume}: vectors of shapes {shapes}; needed are {size} numbers for each of "
                f"{len(found.lesion_ids)} lesions and {len(found.tracklets)} tracklets"
            )
        _check_lengths(f"volume {found.volume}", found)
        arrays: dict[str, npt.NDArray[Any]] = {
            "lesion_ids": np.asarray(found.lesion_ids, np.int64),
            "lesions": np.asarray(found.lesions, np.float32),
            "tracklets": np.asarray(found.tracklets, np.int64),
            "tracklet_vectors": np.asarray(found.tracklet_vectors, np.float32),
            "proposals_sha256": np.array(found.proposals_sha256),
        }
        write_shard(self.folder, found.volume, arrays)


def _read_header(path: Path) -> EmbeddingHeader:
    data = read_json(path, _WHAT)
    kinds = {"config": str, "config_sha256": str, "checkpoint": str, "annotations": str, "proposals": str, "size": int}
    if not isinstance(data, dict) or data.get("schema") != _SCHEMA:
        found = data.get("schema") if isinstance(data, dict) else None
        raise InputError(f"{path}: schema is {found!r}; allowed is '{_SCHEMA}', {_REMEDY} into another folder")
    wrong = [key for key, kind in kinds.items() if not isinstance(data.get(key), kind)]
    if wrong or data["size"] < 1:
        raise InputError(f"{path}: has no {wrong[0] if wrong else 'size from 1'}; {_REMEDY}")
    box_score = data.get("box_score")
    if not isinstance(box_score, int | float) or not 0 <= box_score <= 1:
        raise InputError(f"{path}: box_score is {box_score!r}; allowed is 0 to 1, {_REMEDY}")
    return EmbeddingHeader(**{key: data[key] for key in kinds}, box_score=float(box_score))


def _check_lengths(where: str, found: VolumeEmbeddings) -> None:
    for name, vectors in (("lesions", found.lesions), ("tracklets", found.tracklet_vectors)):
        lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
        if not (np.abs(lengths - 1) < 1e-3).all():
            raise InputError(f"{where}: vectors of its {name} are not of length 1; {_REMEDY}")


def _short(value: object) -> str:
    text = str(value)
    return repr(text if len(text) < 64 else text[:16])
