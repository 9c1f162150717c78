"""Processes of a run that share work out, met before the network's libraries are loaded where there is one alone."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import TypeVar

from mmpluld.compat.processes import PATIENCE_S, check_launcher
from mmpluld.errors import InputError

__all__ = ["Processes"]

T = TypeVar("T")


class Processes:
    """The processes of a run.

    Args:
        rank: Number of this process, from 0.
        count: How many there are.
        leaves: Whether they part when :meth:`part` says so, as those do that met for this work alone.
    """

    def __init__(self, rank: int = 0, count: int = 1, leaves: bool = False) -> None:
        self.rank, self.count, self.leaves = rank, count, leaves

    @classmethod
    def started(cls, launcher: str, local_rank: int = 0) -> Processes:
        """The processes that a launcher started; they meet here, unless they have met already.

        Args:
            launcher: none | pytorch | slurm | mpi.
            local_rank: Rank on this machine, as the launchers pass it.

        Raises:
            InputError: ``launcher`` is not what started this process.
        """
        check_launcher(launcher)
        if launcher == "none":
            return cls()
        import torch
        from mmengine.dist import get_rank, get_world_size, init_dist

        os.environ.setdefault("LOCAL_RANK", str(local_rank))
        alone = not torch.distributed.is_initialized()
        if alone and launcher == "pytorch" and not torch.cuda.is_available():
            torch.distributed.init_process_group(backend="gloo", timeout=timedelta(seconds=PATIENCE_S))
        elif alone:
            init_dist(launcher, timeout=PATIENCE_S)
        return cls(get_rank(), get_world_size(), leaves=alone)

    def told_by_first(self, work: Callable[[], T]) -> T:
        """What ``work`` gives in the first process, for all.

        Raises:
            InputError: It was raised in the first process; then it is in all.
        """
        if self.count == 1:
            return work()
        from mmengine.dist import broadcast_object_list

        box: list[T | InputError | None] = [None]
        raised: Exception | None = None
        if self.rank == 0:
            try:
                box = [work()]
            except Exception as error:
                raised = error
                box = [InputError(str(error))]
        broadcast_object_list(box)
        if raised is not None:
            raise raised
        if isinstance(box[0], InputError):
            raise box[0]
        return box[0]  # type: ignore[return-value]  # what the first process gave

    def check_same(self, settings: Mapping[str, object]) -> None:
        """Refuse processes that would do different things, as machines with command lines or files of their own.

        Raises:
            InputError: In all processes, if one's settings are others than those of the first.
        """
        if self.count == 1:
            return
        from mmengine.dist import all_gather_object

        first, *others = all_gather_object(dict(settings))
        for rank, asked in enumerate(others, 1):
            for name, value in first.items():
                if asked.get(name) != value:
                    raise InputError(
                        f"process {rank} was started with {name} {asked.get(name)!r}, process 0 with {value!r}; start "
                        "all with the same options and files"
                    )

    def part(self) -> None:
        """Meet no more: whoever is last may be hours behind, which no meeting at the end would survive."""
        if self.leaves:
            import torch

            torch.distributed.destroy_process_group()
