"""The volumes of an annotation file that a network examines whole, one after the other."""

from __future__ import annotations

from collections.abc import Callable

import torch
from mmengine.dist import broadcast_object_list, get_rank, get_world_size

from mmpluld.errors import InputError, name_some
from mmpluld.structures import AnnotationSet
from mmpluld.typing import StrPath

__all__ = ["load_volumes", "share_out"]


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
    rank, count = get_rank(), get_world_size()
    box = [lacking() if rank == 0 else []]
    broadcast_object_list(box)
    if leave and torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    return rank == 0, box[0], box[0][rank::count]
