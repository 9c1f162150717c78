"""How well distances between lesions tell which are one lesion: precision and recall over the limit delta."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mmpluld.typing import BoolArray, FloatArray

__all__ = ["MatchingCurve", "matching_curve"]


@dataclass(frozen=True)
class MatchingCurve:
    """Pairs of lesions with a distance below delta are taken for one lesion; a point for each set of pairs so taken.

    Attributes:
        deltas: (K,) ascending limits, each in the middle between two distances that occur; the last is above all.
        precision: (K,) share of the pairs taken that are one lesion.
        recall: (K,) share of the pairs that are one lesion that are taken.
        num_pairs: Pairs.
        num_same: Pairs that are one lesion.
    """

    deltas: FloatArray
    precision: FloatArray
    recall: FloatArray
    num_pairs: int
    num_same: int

    @property
    def average_precision(self) -> float:
        """Mean precision over the recall, as steps; 0 where no pair is one lesion."""
        return float(np.sum(np.diff(self.recall, prepend=0.0) * self.precision))

    @property
    def best(self) -> int:
        """The point of the largest F-score."""
        total = self.precision + self.recall
        return int(np.argmax(self.precision * self.recall / np.where(total > 0, total, 1)))

    def at_precision(self, least: float) -> int | None:
        """The point of the largest recall whose precision is at least ``least``; None if there is none."""
        enough = np.flatnonzero((self.precision >= least) & (self.recall > 0))
        return int(enough[np.argmax(self.recall[enough])]) if len(enough) else None


def matching_curve(distances: FloatArray, same: BoolArray) -> MatchingCurve:
    """Precision and recall of pairs over delta.

    Args:
        distances: (P,) of pairs of lesions; infinite ones are never taken.
        same: (P,) whether the two are one lesion.
    """
    order = np.argsort(distances, kind="stable")
    found, hits = distances[order], np.cumsum(same[order])
    # Pairs of one distance are taken together.
    last = np.flatnonzero(np.append(found[1:] > found[:-1], True) & np.isfinite(found))
    following = np.append(found[last[1:]], found[last[-1:]] + 1.0)
    return MatchingCurve(
        deltas=(found[last] + following) / 2,
        precision=hits[last] / (last + 1),
        recall=hits[last] / max(int(same.sum()), 1),
        num_pairs=len(found),
        num_same=int(same.sum()),
    )
