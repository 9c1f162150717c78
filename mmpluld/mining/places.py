"""Where lesions and tracklets lie in the space in which they are matched."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from mmpluld.errors import InputError, counted
from mmpluld.io.embeddings import EmbeddingStore, VolumeEmbeddings
from mmpluld.mining.pool import ProposalPool
from mmpluld.postprocess.scan_tracklets import ScanTracklet
from mmpluld.structures import Box2D, LesionRecord, VolumeRecord, key_box
from mmpluld.typing import FloatArray

__all__ = ["EmbeddedPlaces", "LesionPlaces"]


class LesionPlaces:
    """Places in the volume: the centre of the middle box as shares of width, height and length.

    It takes no account of the field of view, of the patient's posture, nor of which part of the body the volume shows:
    a baseline that embeddings must beat.
    """

    def lesions(self, volume: VolumeRecord, lesions: Sequence[LesionRecord]) -> FloatArray:
        """(n, C) points of annotated lesions of a volume, each of its :func:`~mmpluld.structures.key_box`."""
        return np.array([_position(volume, *key_box(lesion)) for lesion in lesions]).reshape(-1, 3)

    def tracklets(self, volume: VolumeRecord, tracklets: Sequence[ScanTracklet], proposals: ProposalPool) -> FloatArray:
        """(n, C) points of tracklets of a volume, each of its middle slice."""
        return np.array([_position(volume, *tracklet.centre) for tracklet in tracklets]).reshape(-1, 3)


def _position(volume: VolumeRecord, number: int, box: Box2D) -> tuple[float, float, float]:
    height, width = volume.shape_yx
    x1, y1, x2, y2 = box
    z = (number - volume.first_slice + 0.5) / volume.num_slices
    return (x1 + x2) / 2 / width, (y1 + y2) / 2 / height, z


class EmbeddedPlaces(LesionPlaces):
    """Embeddings on disk.

    Args:
        stores: At least one; a volume's are in that which was made of its proposals.
        digests: SHA-256 of the mined annotation file and of those that it was mined from.
        box_score: Score with which the tracklets begin and end.

    Raises:
        InputError: A store is of another annotation file or of tracklets with other ends, or two were made with
            different networks.
    """

    def __init__(self, stores: Sequence[EmbeddingStore], digests: Iterable[str], box_score: float = 0.0) -> None:
        known = set(digests)
        for store in stores:
            if store.header.proposals and store.header.box_score != box_score:
                raise InputError(
                    f"{store.folder}: embeddings of tracklets that begin and end with a score of "
                    f"{store.header.box_score:g}, now {box_score:g}, so that their middles are others; run `mmpluld "
                    f"embed --box-score {box_score:g}`"
                )
            if store.header.annotations not in known:
                raise InputError(
                    f"{store.folder}: embeddings of another annotation file; run `mmpluld embed` on the one that is "
                    "mined"
                )
            if _network(store) != _network(stores[0]):
                raise InputError(
                    f"{store.folder}: embeddings of another network than {stores[0].folder}; distances between two "
                    "mean nothing, embed all with one"
                )
        self._volumes = {store.folder: frozenset(store.volumes) for store in stores}
        self._stores = {store.header.proposals: store for store in stores}
        self._any = stores[0]

    def lesions(self, volume: VolumeRecord, lesions: Sequence[LesionRecord]) -> FloatArray:
        """See :class:`LesionPlaces`.

        Raises:
            InputError: A lesion has no embedding.
        """
        wanted = [lesion.id for lesion in lesions]
        for store in self._stores.values():
            if volume.id in self._volumes[store.folder]:
                return _rows(store, store.load(volume.id), wanted, "lesion")
        raise InputError(f"{self._any.folder}: no embeddings of volume '{volume.id}'; run `mmpluld embed` again")

    def tracklets(self, volume: VolumeRecord, tracklets: Sequence[ScanTracklet], proposals: ProposalPool) -> FloatArray:
        """See :class:`LesionPlaces`.

        Raises:
            InputError: There are no embeddings of these proposals, or of earlier ones, or not of a tracklet.
        """
        (digest,) = proposals.header_digests(volume.id)
        if digest not in self._stores:
            raise InputError(
                f"{self._any.folder}: embeddings of other proposals than those of volume '{volume.id}'; run "
                "`mmpluld embed` on these"
            )
        store = self._stores[digest]
        embeddings = store.load(volume.id)
        if [embeddings.proposals_sha256] != proposals.shard_digests(volume.id):
            raise InputError(
                f"{store.folder}: the proposals of volume '{volume.id}' were made anew since its tracklets were "
                "embedded; run `mmpluld embed` again, which mends this"
            )
        return _rows(store, embeddings, [tracklet.number for tracklet in tracklets], "tracklet")


def _rows(store: EmbeddingStore, embeddings: VolumeEmbeddings, wanted: Sequence[int], kind: str) -> FloatArray:
    """The vectors of some lesions or tracklets, in their order."""
    numbers, vectors = (
        (embeddings.lesion_ids, embeddings.lesions)
        if kind == "lesion"
        else (embeddings.tracklets, embeddings.tracklet_vectors)
    )
    rows = {number: row for row, number in enumerate(numbers.tolist())}
    missing = [number for number in wanted if number not in rows]
    if missing:
        raise InputError(
            f"{store.folder}: volume '{embeddings.volume}' lacks the embedding of {counted(len(missing), kind)} "
            f"({missing[0]}); run `mmpluld embed` again"
        )
    return np.asarray(vectors[[rows[number] for number in wanted]], dtype=np.float64).reshape(
        len(wanted), vectors.shape[1]
    )


def _network(store: EmbeddingStore) -> tuple[str, str]:
    """Weights, and how they are asked."""
    return store.header.checkpoint, store.header.config_sha256
