"""Sampling by lesion, with a proportion of slices without lesions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sized
from itertools import chain

import torch
from mmengine.dist import get_dist_info, sync_random_seed
from torch.utils.data import ConcatDataset, Sampler

from mmpluld.datasets.ct_lesion import CTLesionDataset
from mmpluld.errors import InputError
from mmpluld.registry import DATA_SAMPLERS

__all__ = ["LesionSampler"]


@DATA_SAMPLERS.register_module()
class LesionSampler(Sampler[int]):
    """Draw samples with lesions and samples without in a fixed proportion, shuffled, anew every epoch.

    What is drawn depends on seed and epoch alone (:meth:`set_epoch`), not on workers or on how many there
    are, and is split over the processes of a distributed run. With ``one_per_lesion`` and a positive ratio of
    2 this is the sampling of LENS (sec. VI-B): every 3D lesion on one slice of its own per epoch, two slices
    with lesions for each without.

    Args:
        dataset: A :class:`CTLesionDataset`, or several in a ``ConcatDataset``.
        one_per_lesion: Draw one random slice for every lesion; otherwise every slice with a lesion, once.
        positive_ratio: Slices with lesions per slice without. Slices without are drawn without repetition as
            long as there are enough of them. None: no slices without lesions.
        seed: The same in all processes; None draws one and shares it.

    Raises:
        InputError: The dataset is of another class or shows no lesion, or the ratio is not positive.
    """

    def __init__(
        self,
        dataset: Sized,
        one_per_lesion: bool = False,
        positive_ratio: float | None = None,
        seed: int | None = None,
    ) -> None:
        if positive_ratio is not None and not (math.isfinite(positive_ratio) and positive_ratio > 0):
            raise InputError(f"LesionSampler: positive_ratio is {positive_ratio}; allowed is a positive number or None")
        self.rank, self.world_size = get_dist_info()
        self.one_per_lesion = one_per_lesion
        self.seed = sync_random_seed() if seed is None else seed
        self.epoch = 0
        groups, negatives = _groups(dataset)
        if not groups:
            raise InputError("LesionSampler: no sample of the dataset shows a lesion; use mmengine's DefaultSampler")
        self._groups = [torch.tensor(group) for group in groups]
        self._positives = torch.tensor(sorted(set(chain.from_iterable(groups))))
        self._negatives = torch.tensor(negatives, dtype=torch.int64)
        num_positives = len(self._groups) if one_per_lesion else len(self._positives)
        wanted = round(num_positives / positive_ratio) if positive_ratio is not None and negatives else 0
        self.num_negatives = wanted
        self.num_samples = math.ceil((num_positives + wanted) / self.world_size)

    def __iter__(self) -> Iterator[int]:
        """Iterate the indices of this process."""
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        positives = self._draw_positives(generator)
        drawn = torch.cat([positives, _draw(self._negatives, self.num_negatives, generator)])
        drawn = drawn[torch.randperm(len(drawn), generator=generator)]
        # Every process gets the same number: the first samples come again where they do not divide.
        total = self.num_samples * self.world_size
        drawn = drawn.repeat(math.ceil(total / len(drawn)))[:total]
        return iter(drawn[self.rank :: self.world_size].tolist())

    def _draw_positives(self, generator: torch.Generator) -> torch.Tensor:
        if not self.one_per_lesion:
            return self._positives
        sizes = torch.tensor([len(group) for group in self._groups])
        picks = (torch.rand(len(sizes), generator=generator, dtype=torch.float64) * sizes).long()
        return torch.stack([group[pick] for group, pick in zip(self._groups, picks.tolist(), strict=True)])

    def __len__(self) -> int:
        """Number of samples of this process in an epoch."""
        return self.num_samples

    def set_epoch(self, epoch: int) -> None:
        """Tell the epoch; mmengine's runner does."""
        self.epoch = epoch


def _draw(indices: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
    """``count`` of ``indices`` at random, going round anew once all were drawn."""
    rounds = [
        indices[torch.randperm(len(indices), generator=generator)]
        for _ in range(math.ceil(count / max(len(indices), 1)))
    ]
    return torch.cat([indices[:0], *rounds])[:count]


def _groups(dataset: Sized) -> tuple[list[list[int]], list[int]]:
    """Sample indices of every lesion, and of the samples without, over all parts of the dataset."""
    parts = dataset.datasets if isinstance(dataset, ConcatDataset) else [dataset]
    groups: list[list[int]] = []
    negatives: list[int] = []
    start = 0
    for part in parts:
        if not isinstance(part, CTLesionDataset):
            raise InputError(
                f"LesionSampler: dataset is a {type(part).__name__}; allowed are CTLesionDataset and "
                "ConcatDataset of those"
            )
        by_lesion, without = part.sample_groups()
        groups += [[start + index for index in group] for group in by_lesion.values()]
        negatives += [start + index for index in without]
        start += len(part)
    return groups, negatives
