"""Sampling by patient, for losses that compare lesions of one patient."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sized

import torch
from mmengine.dist import get_dist_info, sync_random_seed
from torch.utils.data import Sampler

from mmpluld.errors import InputError
from mmpluld.registry import DATA_SAMPLERS

__all__ = ["PatientSampler"]


@DATA_SAMPLERS.register_module()
class PatientSampler(Sampler[int]):
    """Draw every sample, those of a patient one after the other, the patients in a new order each epoch.

    So a batch holds whole patients, but for the first and the last of it. In a distributed run each process has as
    long a stretch of that order; the last one's goes on with the first samples where the number does not divide.

    Args:
        dataset: A ``CTLesionDataset``.
        views: How often each sample is drawn, in a row; pipelines that change samples at random make them views of one
            lesion.
        seed: The same in all processes; None draws one and shares it.

    Raises:
        InputError: ``views`` is below 1.
    """

    def __init__(self, dataset: Sized, views: int = 1, seed: int | None = None) -> None:
        if views < 1:
            raise InputError(f"PatientSampler: views is {views}; allowed are whole numbers from 1")
        self.rank, self.world_size = get_dist_info()
        self.views = views
        self.seed = sync_random_seed() if seed is None else seed
        self.epoch = 0
        groups: dict[str, list[int]] = {}
        for index in range(len(dataset)):
            groups.setdefault(dataset.get_data_info(index)["patient"], []).append(index)  # type: ignore[attr-defined]
        self._groups = [torch.tensor(group) for group in groups.values()]
        # The same in each epoch, by which mmengine's loop and schedules count their steps.
        self._share = math.ceil(len(dataset) / self.world_size)

    def __iter__(self) -> Iterator[int]:
        """Iterate the indices of this process."""
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        order = torch.randperm(len(self._groups), generator=generator).tolist()
        shuffled = [group[torch.randperm(len(group), generator=generator)] for group in self._groups]
        drawn = torch.cat([shuffled[place] for place in order])
        own = torch.arange(self.rank * self._share, (self.rank + 1) * self._share) % len(drawn)
        return iter(drawn[own].repeat_interleave(self.views).tolist())

    def __len__(self) -> int:
        """Number of samples of this process in an epoch."""
        return int(self._share * self.views)

    def set_epoch(self, epoch: int) -> None:
        """Tell the epoch; mmengine's runner does."""
        self.epoch = epoch
