"""What the finished runs of a table say: means and intervals per row, differences per pair."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, compress
from pathlib import Path

import numpy as np

from mmpluld.errors import InputError, counted
from mmpluld.evaluation.functional import FROCProtocol, get_protocol, match_detections
from mmpluld.evaluation.pairing import Truth, load_truth, pair_images
from mmpluld.progress import track
from mmpluld.reproduce.runner import Run
from mmpluld.reproduce.stats import (
    Difference,
    Pool,
    Sample,
    Spread,
    compare,
    mean_interval,
    pool_runs,
    sample_detector,
    seeds_needed,
)
from mmpluld.reproduce.tables import Row, Table
from mmpluld.structures import DetectionSet
from mmpluld.structures.text_files import read_object
from mmpluld.typing import FloatArray

__all__ = ["ALL_SPECIALTIES", "Noise", "PairResult", "Part", "RowResult", "Summary", "collect"]

ALL_SPECIALTIES = "all specialties"
_NEGATIVES = ("rpn", "rpn_centre", "roi", "roi_centre")

Samples = dict[tuple[str, int], Sample]  # by key of the row and seed


@dataclass(frozen=True)
class RowResult:
    """One row over its finished seeds.

    Attributes:
        row: Which row.
        seeds: Finished ones.
        values: (n, L + 1) sensitivity per seed, the headline average last.
        mean, low, high: (L + 1,) with the interval over seeds; NaN without seeds, ends NaN if no row has two.
        failed: How many seeds failed.
    """

    row: Row
    seeds: tuple[int, ...]
    values: FloatArray
    mean: FloatArray
    low: FloatArray
    high: FloatArray
    failed: int

    @property
    def state(self) -> str:
        """``done`` for some seed; if for none, ``failed`` or ``not run``."""
        return "done" if self.seeds else "failed" if self.failed else "not run"


@dataclass(frozen=True)
class PairResult:
    """Comparison of two rows.

    Attributes:
        first, second: Which rows.
        difference: Between them; None if they cannot be compared.
        reason: Why not, in words.
    """

    first: Row
    second: Row
    difference: Difference | None
    reason: str = ""

    @property
    def names(self) -> str:
        """Both rows, as a subtraction."""
        return f"{self.first.label} − {self.second.label}"


@dataclass(frozen=True)
class Noise:
    """How far averages differ by chance, as fractions.

    Attributes:
        tested: Rows on the same lesions, whose differences these are.
        of_run: Standard deviation of a run, pooled over rows.
        freedom: Its degrees of freedom.
        rows: How many rows the pool has.
        loud: Rows that were left out of the pool, with the larger standard deviation that they keep.
        quiet: Rows that were left out of the pool, with their smaller one, in whose place they have the pool's.
        of_patients: Standard error of a difference from the patients, the median over the pairs; None without pairs.
        seeds: Of each row, to detect the table's margin; None if no number will do, or without pairs.
    """

    tested: tuple[Row, ...]
    of_run: float
    freedom: float
    rows: int
    loud: tuple[tuple[Row, float], ...]
    quiet: tuple[tuple[Row, float], ...]
    of_patients: float | None
    seeds: int | None


@dataclass(frozen=True)
class Part:
    """Rows and pairs on all lesions of the test, or on those of a specialty.

    Attributes:
        name: Empty for all lesions.
        test_set: What was tested, in words; empty without any finished run.
        rows, pairs: In the table's order.
        noises: One for each set of lesions that rows are tested on; without those of which no row has two seeds.
    """

    name: str
    test_set: str
    rows: tuple[RowResult, ...]
    pairs: tuple[PairResult, ...]
    noises: tuple[Noise, ...]


@dataclass(frozen=True)
class Summary:
    """Everything a report shows.

    Attributes:
        table: Which table.
        levels: Mean false positives per image or volume.
        headline: Positions of the headline levels.
        per: ``image`` or ``volume``.
        whole: On all lesions.
        specialties: On those of each specialty that the test set has lesions of.
        negatives: By key of a row, shares of its sampled negatives that touch an unmarked lesion: the mean over the
            seeds that tell it, by the part of the detector.
        versions: Of mmpluld, with which the runs were made.
    """

    table: Table
    levels: tuple[float, ...]
    headline: tuple[int, ...]
    per: str
    whole: Part
    specialties: tuple[Part, ...]
    negatives: dict[str, dict[str, float]]
    versions: tuple[str, ...] = ()

    @property
    def rows(self) -> tuple[RowResult, ...]:
        """On all lesions."""
        return self.whole.rows

    @property
    def pairs(self) -> tuple[PairResult, ...]:
        """On all lesions."""
        return self.whole.pairs

    @property
    def test_set(self) -> str:
        """What was tested, in words; empty without any finished run."""
        return self.whole.test_set


def collect(table: Table, runs: Sequence[Run], resamples: int = 1000) -> Summary:
    """Evaluate the detections of all finished runs.

    Args:
        table: Which rows and pairs.
        runs: Runs of these rows, in any state.
        resamples: Draws of test patients.

    Raises:
        InputError: If a finished run's files are unusable.
    """
    protocol = get_protocol(table.protocol)
    done = [run for run in runs if run.state == "done"]
    names = ("", *_groups(table))
    truths: dict[Path, Truth] = {}
    samples: dict[str, Samples] = {name: {} for name in names}
    counts: dict[str, set[str]] = {name: set() for name in names}
    for run in track(done, "comparing"):
        if run.truth not in truths:
            truths[run.truth] = load_truth(run.truth, protocol)
        for name, (sample, count) in _evaluate(table, run, truths[run.truth], protocol, resamples).items():
            samples[name][run.row.key, run.seed] = sample
            counts[name].add(count)
    parts = [
        _part(table, runs, name, samples[name], "; ".join(sorted(counts[name])))
        for name in names
        if not name or any(sample.num_patients for sample in samples[name].values())
    ]
    return Summary(
        table,
        protocol.levels,
        tuple(protocol.headline_index),
        protocol.per,
        parts[0],
        tuple(parts[1:]),
        _negatives(done),
        tuple(sorted({str(result["version"]) for run in done if (result := run.result())})),
    )


def _groups(table: Table) -> Mapping[str, tuple[str, ...]]:
    """Lesion types of each specialty, and of all together if there are several."""
    if len(table.specialties) < 2:
        return table.specialties
    return {**table.specialties, ALL_SPECIALTIES: tuple(chain(*table.specialties.values()))}


def _evaluate(
    table: Table, run: Run, truth: Truth, protocol: FROCProtocol, resamples: int
) -> dict[str, tuple[Sample, str]]:
    """Samples of a run on all lesions and on each specialty, and what was tested."""
    pairing = pair_images(truth, DetectionSet.load(run.detections), protocol)
    matches = match_detections(pairing.detections, pairing.scores, pairing.truth, protocol, ignored=pairing.ignored)
    groups = _groups(table)
    chosen = [[lesion.type in kinds for lesion in pairing.lesions] for kinds in groups.values()]
    found = sample_detector(matches, pairing.patients, protocol, groups=chosen, resamples=resamples)
    texts = [_count(matches.num_images, protocol.per, len(pairing.lesions), pairing.patients)]
    texts += [
        f"{counted(sum(lesions), 'lesion')} of {counted(sample.num_patients, 'patient')}"
        for lesions, sample in zip(chosen, found[1:], strict=True)
    ]
    return dict(zip(("", *groups), zip(found, texts, strict=True), strict=True))


def _count(images: int, per: str, lesions: int, patients: Sequence[Hashable]) -> str:
    where, count = "key slice" if per == "image" else "volume", len(set(patients))
    alone = " (no pair is compared, a bootstrap over patients needs at least 2)" if count < 2 else ""
    return f"{counted(lesions, 'lesion')} on {counted(images, where)} of {counted(count, 'patient')}{alone}"


def _part(table: Table, runs: Sequence[Run], name: str, samples: Samples, test_set: str) -> Part:
    seeds = {row.key: tuple(sorted(seed for key, seed in samples if key == row.key)) for row in table.rows}
    tested_on = {run.row.key: run.truth for run in runs}
    groups: dict[Path | None, list[Row]] = {}
    for row in table.rows:
        groups.setdefault(tested_on.get(row.key), []).append(row)
    pools = [_pooled(rows, seeds, samples) for rows in groups.values() if any(seeds[row.key] for row in rows)]
    spreads = {key: spread for pooled in pools for key, spread in pooled.spreads.items()}
    rows = tuple(_row_result(table, row, runs, seeds[row.key], samples, spreads) for row in table.rows)
    found = {item.row.key: item for item in rows}
    pairs = tuple(_pair_result(table, found[first], found[second], samples, spreads) for first, second in table.pairs)
    noises = (_noise(table, pooled, pairs, samples) for pooled in pools)
    return Part(name, test_set, rows, pairs, tuple(noise for noise in noises if noise is not None))


@dataclass(frozen=True)
class _Pooled:
    """Rows that are tested on the same lesions: how far a run scatters depends on these."""

    rows: Sequence[Row]
    pool: Pool

    @property
    def spreads(self) -> dict[str, Spread]:
        """What holds for each row, by its key."""
        return {row.key: self.pool.row(index) for index, row in enumerate(self.rows)}


def _pooled(rows: Sequence[Row], seeds: Mapping[str, tuple[int, ...]], samples: Samples) -> _Pooled:
    by_row = [[samples[row.key, seed] for seed in seeds[row.key]] for row in rows]
    # A row on the training of another of them is none of its own.
    trained = {row.key for row in rows if seeds[row.key]}
    return _Pooled(rows, pool_runs(by_row, [row.training not in trained - {row.key} for row in rows]))


def _row_result(
    table: Table,
    row: Row,
    runs: Sequence[Run],
    seeds: tuple[int, ...],
    samples: Samples,
    spreads: Mapping[str, Spread],
) -> RowResult:
    failed = sum(run.state == "failed" for run in runs if run.row.key == row.key)
    if not seeds:
        levels = len(get_protocol(table.protocol).levels)
        nothing = np.full(levels + 1, np.nan)
        return RowResult(row, (), np.zeros((0, levels + 1)), nothing, nothing, nothing, failed)
    values = np.array([samples[row.key, seed].observed for seed in seeds])
    return RowResult(row, seeds, values, *mean_interval(values, spreads[row.key]), failed)


def _pair_result(
    table: Table, first: RowResult, second: RowResult, samples: Samples, spreads: Mapping[str, Spread]
) -> PairResult:
    one, two = first.row, second.row
    if lacking := [f"{item.row.label} {item.state}" for item in (first, second) if not item.seeds]:
        return PairResult(one, two, None, ", ".join(lacking))
    seeds = first.seeds, second.seeds
    same = one.training == two.training
    if same:
        shared = tuple(sorted(set(first.seeds) & set(second.seeds)))
        seeds = shared, shared
        if not shared:
            return PairResult(one, two, None, "no seed that both have finished")
    ours, theirs = ([samples[row.key, seed] for seed in own] for row, own in zip((one, two), seeds, strict=True))
    if ours[0].num_patients < 2:
        return PairResult(one, two, None, "one test patient alone, a bootstrap over patients needs at least 2")
    of_rows = spreads[one.key], spreads[two.key]
    return PairResult(one, two, compare(ours, theirs, of_rows, table.margin / 100, same_trainings=same))


def _noise(table: Table, pooled: _Pooled, pairs: Sequence[PairResult], samples: Samples) -> Noise | None:
    pool, keys = pooled.pool, [row.key for row in pooled.rows]
    variance, freedom = float(pool.variance[-1]), float(pool.freedom[-1])
    if not freedom:
        return None
    rows = int(pool.counted[:, -1].sum())
    deviations = [(row, float(np.sqrt(own.variance[-1]))) for row, own in zip(pooled.rows, pool.own, strict=True)]
    odd, louder = pool.odd[:, -1], pool.louder[:, -1]
    differences = [pair.difference for pair in pairs if pair.difference is not None and pair.first.key in keys]
    of_patients = [d.se_patients[-1] ** 2 for d in differences if not d.paired]
    alone = float(np.median(of_patients)) if of_patients else None
    patients = max(sample.num_patients for (key, _), sample in samples.items() if key in keys)
    needed = None if alone is None else seeds_needed(table.margin / 100, variance, alone, patients, rows)
    return Noise(
        tested=tuple(pooled.rows),
        of_run=variance**0.5,
        freedom=freedom,
        rows=rows,
        loud=tuple(compress(deviations, odd & louder)),
        quiet=tuple(compress(deviations, odd & ~louder)),
        of_patients=None if alone is None else alone**0.5,
        seeds=needed,
    )


def _negatives(done: Sequence[Run]) -> dict[str, dict[str, float]]:
    """Means over seeds of what the trainings measured of their negatives."""
    found: dict[str, dict[str, list[float]]] = {}
    for run in done:
        trained = run
        while trained.trainer is not None:
            trained = trained.trainer
        path = trained.folder / "negatives.json"
        if not path.is_file():
            continue
        told = read_object(path, "the shares as the training wrote them, or remove the file", ())
        for name in (name for name in _NEGATIVES if name in told):
            share = told[name]
            if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
                raise InputError(
                    f"{path}: {name!r} is {share!r}; a share is a number in [0, 1], remove the file to go on"
                )
            found.setdefault(run.row.key, {}).setdefault(name, []).append(float(share))
    return {key: {name: float(np.mean(shares)) for name, shares in told.items()} for key, told in found.items()}
