"""Whether the phantoms are worth training on: the verdict on what the tables of the gate found.

A miniature can show what a remedy for missing labels does only if missing labels do harm in it. So complete labels must
beat partial ones clearly, before anything else is compared on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from mmpluld.reproduce.collect import ALL_SPECIALTIES, PairResult, Part, Summary

__all__ = ["MIN_ERRORS", "MIN_GAIN", "Condition", "conditions", "verdict"]

MIN_GAIN = 0.05
"""Least gain from complete labels."""
MIN_ERRORS = 3.0
"""Least gain in joint standard errors, of trainings and of patients."""


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
    state: Literal["met", "not met", "inconclusive"]


def conditions(summaries: Sequence[Summary]) -> list[Condition]:
    """Judge the pairs of the gate's tables, in their order."""
    found: list[Condition] = []
    for summary in summaries:
        gain, recovered, *_ = summary.pairs
        found += [_ahead(gain, MIN_GAIN), _recovered(recovered)]
        if summary.table.specialties:
            part = next((part for part in summary.specialties if part.name == ALL_SPECIALTIES), None)
            last = summary.pairs[-1]
            found.append(
                _ahead(part.pairs[-1] if part else replace(last, difference=None, reason="not run"), 0.0, part)
            )
        found.append(_detectable(summary))
    return found


def verdict(found: Sequence[Condition]) -> str:
    """The conditions as a Markdown page, with one line on all."""
    lacking = [item for item in found if item.state != "met"]
    count = f"{len(lacking)} of {len(found)} conditions are not met or inconclusive."
    last = count if lacking else "All conditions are met."
    lines = ["# The gate", "", "Points of the average sensitivity, on the validation patients.", ""]
    lines += ["| | asked | found | |", "|---|---|---|---|"]
    lines += [f"| {item.what} | {item.asked} | {item.found} | {item.state} |" for item in found]
    return "\n".join([*lines, "", last, ""])


def _ahead(pair: PairResult, least: float, part: Part | None = None) -> Condition:
    """The first row must be ahead by at least this, and by some standard errors."""
    what = pair.names + (f", on {part.name}" if part else "")
    asked = f"{MIN_ERRORS:g} joint standard errors" + (f" and {100 * least:g} points" if least else "")
    d = pair.difference
    if d is None or np.isnan(d.se_seeds[-1]):
        return Condition(what, asked, _nothing(pair), "inconclusive")
    value, error = d.value[-1], float(np.hypot(d.se_patients[-1], d.se_seeds[-1]))
    enough = value >= least and value > 0 and value >= MIN_ERRORS * error
    errors = f"{value / error:.1f} standard errors" if error else "no standard error"
    return Condition(what, asked, f"{d.points}, {errors}", "met" if enough else "not met")


def _recovered(pair: PairResult) -> Condition:
    """The first row must be ahead for certain, by however little."""
    asked, d = "above 0", pair.difference
    if d is None or np.isnan(d.se_seeds[-1]):
        return Condition(pair.names, asked, _nothing(pair), "inconclusive")
    state: Literal["met", "not met", "inconclusive"] = "inconclusive" if d.value[-1] > 0 else "not met"
    return Condition(pair.names, asked, d.points, "met" if d.low[-1] > 0 else state)


def _detectable(summary: Summary) -> Condition:
    """With how many seeds a difference of the size that matters is found four times in five."""
    table, noise = summary.table, next(iter(summary.whole.noises), None)
    what, asked = f"{table.name}: a difference of {table.margin:g} points is detectable", "with the seeds there are"
    if noise is None or noise.of_patients is None:
        return Condition(what, asked, "no rows with two seeds to compare", "inconclusive")
    if noise.seeds is None:
        found = f"no number of seeds will do, for lack of patients, whose part is {100 * noise.of_patients:.2f} points"
        return Condition(what, asked, found, "not met")
    done = min(len(row.seeds) for row in summary.rows)
    found = f"{noise.seeds} seeds of each row needed, {done} there"
    return Condition(what, asked, found, "met" if noise.seeds <= done else "not met")


def _nothing(pair: PairResult) -> str:
    return pair.reason if pair.difference is None else "single trainings tell nothing about others"
