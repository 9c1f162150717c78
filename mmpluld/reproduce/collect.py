"""What the finished runs of a table say: means and intervals per row, differences per pair."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmpluld.errors import counted
from mmpluld.evaluation.functional import get_protocol, match_detections
from mmpluld.evaluation.pairing import Truth, load_truth, pair_images
from mmpluld.progress import track
from mmpluld.reproduce.runner import Run
from mmpluld.reproduce.stats import Difference, Sample, paired_difference, sample_detector, t_interval
from mmpluld.reproduce.tables import Row, Table
from mmpluld.structures import DetectionSet
from mmpluld.typing import FloatArray

__all__ = ["PairResult", "RowResult", "Summary", "collect"]


@dataclass(frozen=True)
class RowResult:
    """One row over its finished seeds.

    Attributes:
        row: Which row.
        seeds: Finished ones.
        values: (n, L + 1) sensitivity per seed, the headline average last.
        mean, low, high: (L + 1,) with the interval over seeds; NaN without seeds, ends NaN with one.
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
    """Comparison of two rows on the seeds that both have.

    Attributes:
        first, second: Which rows.
        difference: Between them; None if they cannot be compared.
        reason: Why not, in words.
    """

    first: Row
    second: Row
    difference: Difference | None
    reason: str = ""


@dataclass(frozen=True)
class Summary:
    """Everything a report shows.

    Attributes:
        table: Which table.
        levels: Mean false positives per image or volume.
        headline: Positions of the headline levels.
        per: ``image`` or ``volume``.
        rows, pairs: In the table's order.
        test_set: One sentence on what was tested; empty without any finished run.
    """

    table: Table
    levels: tuple[float, ...]
    headline: tuple[int, ...]
    per: str
    rows: tuple[RowResult, ...]
    pairs: tuple[PairResult, ...]
    test_set: str


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
    truths: dict[Path, Truth] = {}
    samples: dict[tuple[str, int], Sample] = {}
    counts: set[str] = set()
    for run in track(done, "comparing"):
        if run.truth not in truths:
            truths[run.truth] = load_truth(run.truth, protocol)
        pairing = pair_images(truths[run.truth], DetectionSet.load(run.detections), protocol)
        matches = match_detections(pairing.detections, pairing.scores, pairing.truth, protocol, ignored=pairing.ignored)
        samples[run.row.key, run.seed] = sample_detector(matches, pairing.patients, protocol, resamples=resamples)
        counts.add(_count(matches.num_images, protocol.per, len(pairing.lesions), pairing.patients))
    rows = tuple(_row_result(row, runs, samples, len(protocol.levels)) for row in table.rows)
    found = {item.row.key: item for item in rows}
    pairs = tuple(_pair_result(found[first], found[second], samples) for first, second in table.pairs)
    return Summary(
        table,
        protocol.levels,
        tuple(protocol.headline_index),
        protocol.per,
        rows,
        pairs,
        "; ".join(sorted(counts)),
    )


def _count(images: int, per: str, lesions: int, patients: Sequence[Hashable]) -> str:
    where, count = "key slice" if per == "image" else "volume", len(set(patients))
    alone = " (no pair is compared, a bootstrap over patients needs at least 2)" if count < 2 else ""
    return f"{counted(lesions, 'lesion')} on {counted(images, where)} of {counted(count, 'patient')}{alone}"


def _row_result(row: Row, runs: Sequence[Run], samples: dict[tuple[str, int], Sample], levels: int) -> RowResult:
    own = {seed: sample.observed for (key, seed), sample in sorted(samples.items()) if key == row.key}
    failed = sum(run.state == "failed" for run in runs if run.row.key == row.key)
    nothing = np.full(levels + 1, np.nan)
    if not own:
        return RowResult(row, (), np.zeros((0, levels + 1)), nothing, nothing, nothing, failed)
    values = np.array(list(own.values()))
    return RowResult(row, tuple(own), values, *t_interval(values), failed)


def _pair_result(first: RowResult, second: RowResult, samples: dict[tuple[str, int], Sample]) -> PairResult:
    one, two = first.row, second.row
    shared = sorted(set(first.seeds) & set(second.seeds))
    if lacking := [f"{item.row.label} {item.state}" for item in (first, second) if not item.seeds]:
        return PairResult(one, two, None, ", ".join(lacking))
    if not shared:
        return PairResult(one, two, None, "no seed that both have finished")
    if samples[one.key, shared[0]].num_patients < 2:
        return PairResult(one, two, None, "one test patient alone, a bootstrap over patients needs at least 2")
    difference = paired_difference(
        [samples[one.key, seed] for seed in shared], [samples[two.key, seed] for seed in shared]
    )
    return PairResult(one, two, difference)
