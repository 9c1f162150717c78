"""Sampling by lesion, with a proportion of slices without lesions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sized
from dataclasses import dataclass
from itertools import chain

import torch
from mmengine.dist import get_dist_info, sync_random_seed
from torch.utils.data import ConcatDataset, Sampler

from mmpluld.datasets.candidates import CandidateDataset
from mmpluld.datasets.ct_lesion import CTLesionDataset
from mmpluld.errors import InputError, did_you_mean
from mmpluld.registry import DATA_SAMPLERS

__all__ = ["LesionSampler"]


_INTERLEAVE = ("shuffled", "even")


@dataclass(frozen=True)
class _Part:
    """What the sampler knows of one dataset: indices in the whole of the samples."""

    name: str
    groups: list[torch.Tensor]  # of each lesion, the samples that show it; see one_per_lesion
    positives: torch.Tensor
    negatives: torch.Tensor
    num_negatives: int  # in an epoch


@DATA_SAMPLERS.register_module()
class LesionSampler(Sampler[int]):
    """Draw samples with lesions and samples without in a fixed proportion, shuffled, anew every epoch.

    What is drawn depends on seed and epoch alone (:meth:`set_epoch`), not on workers or on how many there
    are, and is split over the processes of a distributed run. With ``one_per_lesion`` and a positive ratio of
    2 this is the sampling of LENS (sec. VI-B): every 3D lesion on one slice of its own per epoch, two slices
    with lesions for each without.

    With ``batch_size`` the samples come in runs of one dataset: those that all processes draw for one step, that is
    ``batch_size`` of each in the order of their ranks, are of one dataset. W processes draw together what one draws
    with W times their batch size. A dataset that does not fill its last run repeats its first samples.

    With ``only`` a detector of one dataset takes as many steps as one of all, and with ``lengths`` a detector of mined
    labels sees lesions as often, of each dataset, as one of the annotated ones: what tells steps and data apart.

    Args:
        dataset: A :class:`CTLesionDataset` or a :class:`CandidateDataset`, or several in a ``ConcatDataset``, which
            all get the proportions below.
        one_per_lesion: Draw one random slice for every lesion, but a slice that is the only one of several lesions, as
            key slices are, once for all of them; otherwise every slice with a lesion, once.
        positive_ratio: Slices with lesions per slice without. Slices without are drawn without repetition as
            long as there are enough of them. None: no slices without lesions.
        batch_size: That of the data loader, for batches of one dataset. None: batches mix the datasets.
        interleave: Order of the runs, which the paper leaves open. ``shuffled``: at random. ``even``: those of each
            dataset as evenly over the epoch as its number allows.
        only: Name of one of the datasets, as in its annotation file: the epoch is as long as with all of them, and has
            samples of this one alone, round and round.
        lengths: Name of a dataset -> its samples with lesions in an epoch, of all processes, drawn round and round;
            slices without come on top, in their proportion. Of the others as many as there are, see above.
        seed: The same in all processes; None draws one and shares it.

    Raises:
        InputError: The dataset is of another class, one shows no lesion, or a setting is not allowed.
    """

    def __init__(
        self,
        dataset: Sized,
        one_per_lesion: bool = False,
        positive_ratio: float | None = None,
        batch_size: int | None = None,
        interleave: str = "shuffled",
        only: str | None = None,
        lengths: Mapping[str, int] | None = None,
        seed: int | None = None,
    ) -> None:
        if positive_ratio is not None and not (math.isfinite(positive_ratio) and positive_ratio > 0):
            raise InputError(f"LesionSampler: positive_ratio is {positive_ratio}; allowed is a positive number or None")
        if batch_size is not None and batch_size < 1:
            raise InputError(f"LesionSampler: batch_size is {batch_size}; allowed is the data loader's, or None")
        if interleave not in _INTERLEAVE:
            raise InputError(f"LesionSampler: interleave is {interleave!r}; allowed are {', '.join(_INTERLEAVE)}")
        self.rank, self.world_size = get_dist_info()
        self.one_per_lesion = one_per_lesion
        self.batch_size = batch_size
        self.interleave = interleave
        self.only = only
        self.seed = sync_random_seed() if seed is None else seed
        self.epoch = 0
        self._parts = _parts(dataset, one_per_lesion, positive_ratio)
        self.lengths = dict(lengths or {})
        names = [part.name for part in self._parts]
        for name, value in self.lengths.items():
            if name not in names:
                hint = did_you_mean(name, names, f"one of {', '.join(names)}")
                raise InputError(f"LesionSampler: lengths has {name!r}, which is none of the datasets{hint}")
            if value < 1:
                raise InputError(f"LesionSampler: the length of {name} is {value}; allowed is 1 or more")
        sizes = [self._size(part) for part in self._parts]
        if batch_size is None:
            self.num_samples = math.ceil(sum(sizes) / self.world_size)
        else:
            self.num_samples = batch_size * sum(math.ceil(size / (batch_size * self.world_size)) for size in sizes)
        if only is not None and only not in names:
            hint = did_you_mean(only, names, f"one of {', '.join(names)}")
            raise InputError(f"LesionSampler: only is {only!r}, which is none of the datasets{hint}")

    def __iter__(self) -> Iterator[int]:
        """Iterate the indices of this process."""
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        if self.only is not None:
            return iter(self._alone(generator)[:, self.rank].flatten().tolist())
        return iter(self._together(generator).tolist())

    def _together(self, generator: torch.Generator) -> torch.Tensor:
        """What this process draws of all datasets."""
        drawn = [self._draw(part, generator) for part in self._parts]
        if self.batch_size is not None:
            runs = self._runs(drawn, generator)
            return runs[:, self.rank].flatten()
        mixed = torch.cat(drawn)
        mixed = mixed[torch.randperm(len(mixed), generator=generator)]
        # Every process gets the same number: the first samples come again where they do not divide.
        mixed = _filled(mixed, math.ceil(len(mixed) / self.world_size) * self.world_size)
        return mixed[self.rank :: self.world_size]

    def _alone(self, generator: torch.Generator) -> torch.Tensor:
        """(runs, processes, batch size or 1) of the one dataset, which is shuffled anew each time round."""
        parts = [part for part in self._parts if part.name == self.only]
        wanted = self.num_samples * self.world_size
        count = math.ceil(wanted / sum(map(self._size, parts)))
        rounds = [torch.cat([self._draw(part, generator) for part in parts]) for _ in range(count)]
        order = torch.cat([drawn[torch.randperm(len(drawn), generator=generator)] for drawn in rounds])
        return order[:wanted].view(-1, self.world_size, self.batch_size or 1)

    def _runs(self, drawn: list[torch.Tensor], generator: torch.Generator) -> torch.Tensor:
        """(steps, processes, batch size) in the order of the epoch."""
        size = self.batch_size * self.world_size
        runs, places = [], []
        for part in drawn:
            shuffled = part[torch.randperm(len(part), generator=generator)]
            count = math.ceil(len(part) / size)
            runs.append(_filled(shuffled, count * size).view(count, self.world_size, self.batch_size))
            places.append((torch.arange(count) + 0.5) / count)
        joined = torch.cat(runs)
        if self.interleave == "even":
            return joined[torch.cat(places).argsort(stable=True)]
        return joined[torch.randperm(len(joined), generator=generator)]

    def _size(self, part: _Part) -> int:
        """Samples of a dataset in an epoch."""
        return sum(self._counts(part))

    def _counts(self, part: _Part) -> tuple[int, int]:
        """Samples of a dataset in an epoch, with lesions and without."""
        once = len(part.groups) if self.one_per_lesion else len(part.positives)
        wanted = self.lengths.get(part.name, once)
        return wanted, round(part.num_negatives * wanted / once)

    def _draw(self, part: _Part, generator: torch.Generator) -> torch.Tensor:
        """The samples of an epoch, first the ones with lesions."""
        wanted, without = self._counts(part)
        negatives = _some(part.negatives, without, generator)
        positives = self._draw_positives(part, generator)
        if part.name in self.lengths:
            rounds = [positives, *(self._draw_positives(part, generator) for _ in range(wanted // len(positives)))]
            positives = torch.cat([drawn[torch.randperm(len(drawn), generator=generator)] for drawn in rounds])[:wanted]
        return torch.cat([positives, negatives])

    def _draw_positives(self, part: _Part, generator: torch.Generator) -> torch.Tensor:
        if not self.one_per_lesion:
            return part.positives
        sizes = torch.tensor([len(group) for group in part.groups])
        picks = (torch.rand(len(sizes), generator=generator, dtype=torch.float64) * sizes).long()
        return torch.stack([group[pick] for group, pick in zip(part.groups, picks.tolist(), strict=True)])

    def __len__(self) -> int:
        """Number of samples of this process in an epoch."""
        return int(self.num_samples)

    def set_epoch(self, epoch: int) -> None:
        """Tell the epoch; mmengine's runner does."""
        self.epoch = epoch


def _some(indices: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
    """``count`` of ``indices`` at random, going round anew once all were drawn."""
    rounds = [
        indices[torch.randperm(len(indices), generator=generator)]
        for _ in range(math.ceil(count / max(len(indices), 1)))
    ]
    return torch.cat([indices[:0], *rounds])[:count]


def _filled(samples: torch.Tensor, count: int) -> torch.Tensor:
    """The samples again and again up to ``count``."""
    return samples.repeat(math.ceil(count / len(samples)))[:count]


def _parts(dataset: Sized, one_per_lesion: bool, positive_ratio: float | None) -> list[_Part]:
    """The datasets that ``dataset`` consists of."""
    parts = []
    start = 0
    for source in dataset.datasets if isinstance(dataset, ConcatDataset) else [dataset]:
        if not isinstance(source, (CTLesionDataset, CandidateDataset)):
            raise InputError(
                f"LesionSampler: dataset is a {type(source).__name__}; allowed are CTLesionDataset, CandidateDataset "
                "and ConcatDataset of those"
            )
        by_lesion, negatives = source.sample_groups()
        if not by_lesion:
            raise InputError(
                f"LesionSampler: no sample of {source.ann_file} shows a lesion; leave the dataset out, or use "
                "mmengine's DefaultSampler"
            )
        if isinstance(source, CandidateDataset) and positive_ratio is not None and not negatives:
            raise InputError(
                f"LesionSampler: {source.ann_file} has no false positives, of which the rest of a batch consists; "
                "harvest with a lower --min-score or a higher --theta-fp"
            )
        several = [group for group in by_lesion.values() if len(group) > 1]
        alone = sorted({group[0] for group in by_lesion.values() if len(group) == 1})
        groups = [torch.tensor(group) + start for group in (*several, *([index] for index in alone))]
        positives = torch.tensor(sorted(set(chain.from_iterable(by_lesion.values())))) + start
        shown = len(groups) if one_per_lesion else len(positives)
        wanted = round(shown / positive_ratio) if positive_ratio is not None and negatives else 0
        without = torch.tensor(negatives, dtype=torch.int64) + start
        parts.append(_Part(source.metainfo["dataset"]["name"], groups, positives, without, wanted))
        start += len(source)
    return parts
