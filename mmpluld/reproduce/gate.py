"""Whether the phantoms are worth training on: the verdict on what the tables of the gate found.

A miniature can show what a remedy for missing labels does only if missing labels do harm in it. So complete labels must
beat partial ones clearly, before anything else is compared on it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mmpluld.reproduce.collect import PairResult, Summary
from mmpluld.reproduce.stats import Difference

__all__ = ["DETECTABLE", "MIN_ERRORS", "MIN_GAIN", "Condition", "conditions", "verdict"]

MIN_GAIN = 0.05
"""Least gain from complete labels."""
MIN_ERRORS = 3.0
"""Least gain in joint standard errors, of trainings and of patients."""
DETECTABLE = 0.02
"""Difference of two rows that must be found four times in five."""


@dataclass(frozen=True)
class Condition:
    """One thing that is asked of the phantoms.

    Attributes:
        what: Which difference.
        asked: What it must be.
        found: What it is.
        state: Whether that is enough.
    """

    what: str
    asked: str
    found: str
    state: Literal["met", "not met", "cannot be told"]


def conditions(summaries: Sequence[Summary]) -> list[Condition]:
    """Judge the pairs of the gate's tables, in their order."""
    found: list[Condition] = []
    for summary in summaries:
        gain, recovered, _, *others = summary.pairs
        found += [_ahead(gain, MIN_GAIN), _recovered(recovered), *(_ahead(pair, 0.0) for pair in others)]
        found += [_detectable(pair) for pair in (gain, *others)]
    return found


def verdict(found: Sequence[Condition]) -> str:
    """The conditions as a Markdown page, with one line on all."""
    lacking = [item for item in found if item.state != "met"]
    last = "All conditions are met." if not lacking else f"{len(lacking)} of {len(found)} conditions are not met."
    lines = ["# The gate", "", "Points of the average sensitivity, on the validation patients.", ""]
    lines += ["| | asked | found | |", "|---|---|---|---|"]
    lines += [f"| {item.what} | {item.asked} | {item.found} | {item.state} |" for item in found]
    return "\n".join([*lines, "", last, ""])


def _ahead(pair: PairResult, least: float) -> Condition:
    """The first row must be ahead by at least this, and by some standard errors."""
    asked = f"{MIN_ERRORS:g} joint standard errors" + (f" and {100 * least:g} points" if least else "")
    d = pair.difference
    if d is None or _seeds(d) < 2:
        return Condition(_names(pair), asked, _nothing(pair), "cannot be told")
    value, error = d.value[-1], _error(d)
    enough = value >= least and value > 0 and value >= MIN_ERRORS * error
    errors = f"{value / error:.1f} standard errors" if error else "no standard error"
    return Condition(_names(pair), asked, f"{_points(d)}, {errors}", "met" if enough else "not met")


def _recovered(pair: PairResult) -> Condition:
    """The first row must be ahead for certain, by however little."""
    asked, d = "above 0", pair.difference
    if d is None or _seeds(d) < 2:
        return Condition(_names(pair), asked, _nothing(pair), "cannot be told")
    state: Literal["met", "not met", "cannot be told"] = "cannot be told" if d.value[-1] > 0 else "not met"
    return Condition(_names(pair), asked, _points(d), "met" if d.low[-1] > 0 else state)


def _detectable(pair: PairResult) -> Condition:
    """How small a difference would be found, and with how many seeds one of the size that matters."""
    what, asked = f"detectable: {_names(pair)}", f"at most {100 * DETECTABLE:g} points"
    d = pair.difference
    if d is None or _seeds(d) < 2:
        return Condition(what, asked, _nothing(pair), "cannot be told")
    found, enough = f"{100 * d.detectable[-1]:.1f} points with {_seeds(d)} seeds", d.detectable[-1] <= DETECTABLE
    return Condition(what, asked, found if enough else f"{found}; {_wanted(d)}", "met" if enough else "not met")


def _wanted(d: Difference) -> str:
    """How many seeds would do, if the standard errors are as they seem."""
    # A repetition finds 2.8 standard errors four times in five, with many degrees of freedom.
    left = (DETECTABLE / 2.8) ** 2 - d.se_patients[-1] ** 2
    if left <= 0:
        return f"no number of seeds does, the patients' part alone is {280 * d.se_patients[-1]:.1f}"
    return f"about {max(2, math.ceil(_seeds(d) * d.se_seeds[-1] ** 2 / left))} seeds do"


def _names(pair: PairResult) -> str:
    return f"{pair.first.label} − {pair.second.label}"


def _nothing(pair: PairResult) -> str:
    return pair.reason if pair.difference is None else "one seed tells nothing about others"


def _points(d: Difference) -> str:
    return f"{100 * d.value[-1]:+.2f} ({100 * d.low[-1]:+.2f} to {100 * d.high[-1]:+.2f})"


def _error(d: Difference) -> float:
    return float(np.hypot(d.se_patients[-1], d.se_seeds[-1]))


def _seeds(d: Difference) -> int:
    return int(np.min(d.seeds))
