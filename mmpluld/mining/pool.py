"""The proposals that are mined: of one detector, of several that share out the patients, or of several views."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

from mmpluld.datasets.folds import proposed_volumes
from mmpluld.errors import InputError, counted, name_some
from mmpluld.inputs import sha256_of
from mmpluld.io.proposals import ProposalStore, VolumeProposals
from mmpluld.mining.views import average_views
from mmpluld.structures import AnnotationSet, VolumeRecord
from mmpluld.typing import IntArray, StrPath

__all__ = ["ProposalPool", "refuse_left_out", "refuse_other_annotations"]


class ProposalPool:
    """Proposal stores as one.

    A volume may have a shard in one of the stores, as where detectors proposed on the patients that they were not
    trained on, or in several: then they are views of it, whose boxes are averaged
    (:func:`~mmpluld.mining.views.average_views`).

    Args:
        stores: At least one, all with the same experts.

    Attributes:
        experts: Their names, by number.

    Raises:
        InputError: The stores have different experts, or one is given twice.
    """

    def __init__(self, stores: Sequence[ProposalStore]) -> None:
        self.stores = tuple(stores)
        self.experts = stores[0].experts
        for store in stores[1:]:
            if store.experts != self.experts:
                raise InputError(
                    f"{store.folder}: experts are {', '.join(store.experts)}, of {stores[0].folder} "
                    f"{', '.join(self.experts)}; mine proposals of the same experts together"
                )
        folders = [store.folder.resolve() for store in stores]
        if twice := [folder for folder in folders if folders.count(folder) > 1]:
            raise InputError(f"{twice[0]}: is given twice, where several folders are views; give each once")
        self._holders: dict[str, list[ProposalStore]] = {}
        for store in stores:
            for volume in store.volumes:
                self._holders.setdefault(volume, []).append(store)

    def __contains__(self, volume: str) -> bool:
        return volume in self._holders

    def load(self, volume: str, expert: int | None = None) -> VolumeProposals:
        """The proposals of a volume.

        Args:
            volume: Its id.
            expert: Number of the only expert whose boxes are wanted; None: all.

        Raises:
            InputError: There are none, or they are damaged, or views of one volume have different grids.
        """
        views = [store.load(volume) for store in self._holders_of(volume)]
        return average_views(views if expert is None else [view.of_expert(expert) for view in views])

    def runs(self, volume: str) -> IntArray:
        """The slices of a volume that were examined: (R, 2) first slice and number of slices of each run."""
        return self._holders_of(volume)[0].load(volume).runs

    def _holders_of(self, volume: str) -> list[ProposalStore]:
        if volume not in self._holders:
            folders = name_some([str(store.folder) for store in self.stores])
            raise InputError(f"{folders}: no proposals of volume '{volume}'; run `mmpluld propose` again")
        return self._holders[volume]

    @cached_property
    def digests(self) -> dict[Path, str]:
        """SHA-256 of the header of each store, by its folder."""
        return {store.folder: sha256_of(store.folder / "proposals.json") for store in self.stores}

    def header_digests(self, volume: str) -> list[str]:
        """SHA-256 of the headers of the stores that hold a volume."""
        return [self.digests[store.folder] for store in self._holders[volume]]

    def shard_digests(self, volume: str) -> list[str]:
        """SHA-256 of the shards of a volume."""
        return [sha256_of(store.path(volume)) for store in self._holders[volume]]

    def refuse_views(self, strategy: str) -> None:
        """Refuse volumes that several stores hold: their averaged boxes are in no tracklet.

        Raises:
            InputError: There are some.
        """
        several = sorted(volume for volume, stores in self._holders.items() if len(stores) > 1)
        if several:
            raise InputError(
                f"{strategy}: {counted(len(several), 'volume')} ({name_some(several)}) have proposals in several "
                "folders, whose averaged boxes are no tracklets; give one folder for each volume"
            )

    def volumes_of(self, volumes: Iterable[VolumeRecord]) -> list[VolumeRecord]:
        """Those of some volumes that have proposals, in their order."""
        return [volume for volume in volumes if volume.id in self]

    def check(self, annotations: AnnotationSet, digests: Iterable[str], where: str) -> None:
        """Refuse proposals that are not of these annotations, or not of all of their volumes alike.

        Args:
            annotations: What is mined.
            digests: SHA-256 of its file, and of those that it was mined from.
            where: Its name, for messages.

        Raises:
            InputError: They are not.
        """
        refuse_other_annotations(self.stores, digests, where)
        refuse_left_out(self.stores, annotations, where)
        views = {volume.id: len(self._holders[volume.id]) for volume in annotations.volumes}
        most = max(views.values(), default=0)
        if fewer := [name for name, count in views.items() if count < most]:
            folders = name_some([str(store.folder) for store in self.stores])
            raise InputError(
                f"{folders}: {counted(len(fewer), 'volume')} of {where} ({name_some(fewer)}) have fewer views than the "
                "others, whose scores are means over more; give as many of all, those of all folds"
            )


def refuse_left_out(stores: Sequence[ProposalStore], annotations: AnnotationSet, where: StrPath) -> None:
    """Refuse stores that lack volumes of an annotation file: where nothing was examined, nothing would be found.

    Raises:
        InputError: A store was cut off, or they are of folds that leave volumes out.
    """
    covered = {volume.id for store in stores for volume in proposed_volumes(store, annotations.volumes, where)}
    if left := [volume.id for volume in annotations.volumes if volume.id not in covered]:
        raise InputError(
            f"{name_some([str(store.folder) for store in stores])}: of folds that leave out "
            f"{counted(len(left), 'volume')} of {where} ({name_some(left)}); give the proposals of all folds"
        )


def refuse_other_annotations(stores: Iterable[ProposalStore], digests: Iterable[str], where: StrPath) -> None:
    """Refuse proposals of other annotations than a file, or those that it was mined from, with these SHA-256.

    Raises:
        InputError: A store is of others.
    """
    known = set(digests)
    for store in stores:
        if store.header.annotations_sha256 not in known:
            raise InputError(
                f"{store.folder}: proposals of another annotation file, {store.header.annotations} (SHA-256 "
                f"{store.header.annotations_sha256[:8]}), than {where}; give that one or one mined from it, or propose "
                "on this one"
            )
