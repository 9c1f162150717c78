"""The volumes of an annotation file that a network examines whole, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from mmengine.config import Config
from mmengine.dist import get_rank, get_world_size, init_dist

from mmpluld.atomic import remove_abandoned
from mmpluld.errors import InputError, counted, name_some, printable
from mmpluld.inference.sharing import Processes
from mmpluld.io.shards import shard_path
from mmpluld.progress import note
from mmpluld.structures import AnnotationSet, VolumeRecord
from mmpluld.typing import StrPath

__all__ = ["Examined", "join", "lacking_shards", "load_volumes", "share_out"]


@dataclass(frozen=True)
class Examined:
    """What one process did for a store of one file a volume.

    Attributes:
        store: Folder of the store.
        num_volumes: Volumes that belong into it.
        num_found: Those that had a file before.
        num_made: Those that this process examined.
    """

    store: Path
    num_volumes: int
    num_found: int
    num_made: int

    def describe(self, verb: str) -> str:
        """One line on it, with the participle of what was done to the volumes."""
        return (
            f"{printable(str(self.store))}: {counted(self.num_made, 'volume')} of {self.num_volumes} {verb} by this "
            f"process; {self.num_found} were there"
        )


class _Store(Protocol):
    """A store of one file a volume."""

    folder: Path

    @property
    def volumes(self) -> list[str]: ...

    def load(self, volume: str) -> Any: ...


def load_volumes(path: StrPath) -> AnnotationSet:
    """Read an annotation file whose volumes are to be examined.

    Raises:
        InputError: It cannot be read, holds no volume, or one whose slice interval is unknown.
    """
    annotations = AnnotationSet.load(path)
    if not annotations.volumes:
        raise InputError(f"{path}: no volumes to examine; give a file with volumes")
    unknown = [volume.id for volume in annotations.volumes if not volume.spacing_mm[0] > 0]
    if unknown:
        raise InputError(
            f"{path}: the slice interval of {len(unknown)} volumes is unknown ({name_some(unknown)}); 3D detection "
            "needs it, mend spacing_mm or remove the volumes"
        )
    return annotations


def join(config: Config, launcher: str) -> bool:
    """Meet the other processes of the run, unless this one belongs to a group already; True if it does not."""
    alone = not (torch.distributed.is_available() and torch.distributed.is_initialized())
    if alone and launcher != "none":
        init_dist(launcher, **config.get("env_cfg", {}).get("dist_cfg", {}))
    return alone


def lacking_shards(
    store: _Store, volumes: Sequence[VolumeRecord], fits: Callable[[Any], bool] = lambda _: True
) -> list[str]:
    """Ids of the volumes without a whole file, those with most slices first, so that shares come out alike.

    What an interrupted call left half written is removed.

    Args:
        store: Where the files are.
        volumes: Volumes that belong into it.
        fits: Whether what a whole file holds is still what is wanted.
    """
    remove_abandoned(shard_path(store.folder, "").parent)
    there = set(store.volumes)
    lacking = {volume.id for volume in volumes if volume.id not in there}
    damaged = [volume.id for volume in volumes if volume.id not in lacking and not _is_whole(store, volume.id, fits)]
    if damaged:
        note(f"{store.folder}: {counted(len(damaged), 'damaged or outdated shard')}, made anew")
    lacking.update(damaged)
    by_size = sorted(volumes, key=lambda volume: (-volume.num_slices, volume.id))
    return [volume.id for volume in by_size if volume.id in lacking]


def _is_whole(store: _Store, volume: str, fits: Callable[[Any], bool]) -> bool:
    try:
        return fits(store.load(volume))
    except InputError:
        return False


def share_out(lacking: Callable[[], list[str]], leave: bool) -> tuple[bool, list[str], list[str]]:
    """Share volumes out among the processes of a run.

    Args:
        lacking: Names the volumes that are to be examined; the first process asks for all, since the others might ask
            when it writes already.
        leave: The processes part then, for whoever is last may be hours behind, which no meeting at the end would
            survive.

    Returns:
        Whether this process is the first, the volumes to be examined, and this process's share of them.
    """
    together = torch.distributed.is_available() and torch.distributed.is_initialized()
    processes = Processes(get_rank(), get_world_size(), leaves=leave and together)
    wanted = processes.told_by_first(lacking)
    processes.part()
    return processes.rank == 0, wanted, wanted[processes.rank :: processes.count]
