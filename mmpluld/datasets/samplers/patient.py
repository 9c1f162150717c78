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

    So a batch holds whole patients, but for the first and the last of it. The patients are shared out among the
    processes of a distributed run; those that get fewer samples begin again with their first.

    Args:
        dataset: A ``CTLesionDataset``.
        views: How often each sample is drawn, in a row; pipelines that change samples at random make them views of one
            lesion.
        seed: The same in all processes; None draws one and shares it.

    Raises:
        InputError: ``views`` is below 1, or there are fewer patients than processes.
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
        if len(groups) < self.world_size:
            raise InputError(f"PatientSampler: {len(groups)} patients for {self.world_size} processes; start fewer")
        self._groups = [torch.tensor(group) for group in groups.values()]
        self.num_samples = math.ceil(len(dataset) / self.world_size) * views

    def __iter__(self) -> Iterator[int]:
        """Iterate the indices of this process."""
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        order = torch.randperm(len(self._groups), generator=generator).tolist()
        shuffled = [group[torch.randperm(len(group), generator=generator)] for group in self._groups]
        own = torch.cat([shuffled[place] for place in order[self.rank :: self.world_size]]).repeat_interleave(
            self.views
        )
        return iter(own.repeat(math.ceil(self.num_samples / len(own)))[: self.num_samples].tolist())

    def __len__(self) -> int:
        """Number of samples of this process in an epoch."""
        return int(self.num_samples)

    def set_epoch(self, epoch: int) -> None:
        """Tell the epoch; mmengine's runner does."""
        self.epoch = epoch
