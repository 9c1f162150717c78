"""Pictures of a table: rows and differences with intervals, or a curve over a setting."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mmpluld.atomic import atomic_path
from mmpluld.reproduce.collect import RowResult, Summary

__all__ = ["plot_summary"]

# Okabe and Ito's colours, told apart by colour-blind readers too.
_BLUE, _RED, _GREY = "#0072b2", "#d55e00", "#6b7680"
_CURVES = (_BLUE, _RED, "#009e73", "#cc79a7")


def plot_summary(summary: Summary, path: Path) -> None:
    """Draw the curve of a table that has an ``x_label``, else its rows beside its differences; .png."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"font.size": 10}):
        if summary.table.x_label:
            figure = Figure(figsize=(7.2, 4.6), dpi=150, layout="constrained")
            several = any(row.line for row in summary.table.rows)
            (_lines if several else _curve)(figure.add_subplot(), summary)
        else:
            height = 1.5 + 0.42 * max(len(summary.rows), len(summary.pairs))
            figure = Figure(figsize=(11.0, height), dpi=150, layout="constrained")
            axes = figure.subplots(1, 2, width_ratios=(1.2, 1)) if summary.pairs else [figure.add_subplot()]
            _rows(axes[0], summary)
            if summary.pairs:
                _differences(axes[1], summary)
        figure.suptitle(summary.table.title, fontsize=11, x=0.01, ha="left")
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format="png")


def _rows(axes: Any, summary: Summary) -> None:
    """Average sensitivity per row: small dots are seeds, the bar is the interval over them."""
    for place, item in enumerate(summary.rows):
        if not item.seeds:
            axes.text(0.02, place, "failed" if item.failed else "not run", va="center", color=_GREY,
                      transform=axes.get_yaxis_transform())  # fmt: skip
            continue
        _bar(axes, place, 100 * item.mean[-1], 100 * item.low[-1], 100 * item.high[-1], _BLUE)
        seeds = 100 * item.values[:, -1]
        axes.plot(seeds, np.full(len(seeds), place + 0.22), ".", color=_BLUE, alpha=0.5, markersize=6)
    _finish(axes, [item.row.label for item in summary.rows])
    _within_percent(axes.get_xlim(), axes.set_xlim)
    axes.set_xlabel("average sensitivity (%), 95 % interval, dots: seeds")


def _differences(axes: Any, summary: Summary) -> None:
    axes.axvline(0, color=_GREY, linewidth=1)
    margin = summary.table.margin
    axes.axvspan(-margin, margin, color=_GREY, alpha=0.12, linewidth=0)
    for place, pair in enumerate(summary.pairs):
        d = pair.difference
        if d is None:
            axes.text(0.02, place, "not compared", va="center", color=_GREY, transform=axes.get_yaxis_transform())
            continue
        _bar(axes, place, 100 * d.value[-1], 100 * d.low[-1], 100 * d.high[-1], _RED)
    _finish(axes, [f"{pair.first.label}\n− {pair.second.label}" for pair in summary.pairs])
    axes.tick_params(axis="y", labelsize=8)
    axes.set_xlabel(f"difference (points), 95 % interval, grey: within {margin:g}")


def _bar(axes: Any, place: float, value: float, low: float, high: float, colour: str) -> None:
    if np.isfinite([low, high]).all():
        axes.plot([low, high], [place, place], color=colour, linewidth=2.2, solid_capstyle="butt")
    axes.plot([value], [place], "o", color=colour, markersize=7)


def _finish(axes: Any, labels: list[str]) -> None:
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.grid(axis="x", color="#dde3e9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _curve(axes: Any, summary: Summary) -> None:
    """Average and lowest level over x with the interval band; rows without x as level lines."""
    points = sorted((item for item in summary.rows if item.row.x is not None and item.seeds), key=_place)
    lines = [item for item in summary.rows if item.row.x is None and item.seeds]
    x = [_place(item) for item in points]
    quantities = ((-1, "average", _BLUE, "o"), (0, f"at {summary.levels[0]:g} FP per {summary.per}", _RED, "s"))
    for index, name, colour, marker in quantities:
        mean, low, high = (
            [100 * values[index] for values in column]
            for column in zip(*((item.mean, item.low, item.high) for item in points), strict=True)
        ) if points else ([], [], [])  # fmt: skip
        axes.plot(x, mean, color=colour, marker=marker, markersize=5, linewidth=1.8, label=name)
        axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
        for item in lines:
            axes.axhline(100 * item.mean[index], color=colour, linestyle="--", linewidth=1.2,
                         label=f"{item.row.label}, {name}")  # fmt: skip
    _finish_curve(axes, summary, "sensitivity", bool(points or lines))


def _lines(axes: Any, summary: Summary) -> None:
    """The average over x, one curve for each ``Row.line``: colours change with the first word, strokes within it."""
    curves: dict[str, list[RowResult]] = {}
    for item in sorted((item for item in summary.rows if item.seeds), key=_place):
        curves.setdefault(item.row.line, []).append(item)
    names = list(dict.fromkeys(row.line for row in summary.table.rows))
    firsts = list(dict.fromkeys(name.split(",")[0] for name in names))
    for name in names:
        points, first = curves.get(name, []), name.split(",")[0]
        within = [other for other in names if other.split(",")[0] == first].index(name)
        mean, low, high = ([100 * getattr(item, end)[-1] for item in points] for end in ("mean", "low", "high"))
        x, colour = [_place(item) for item in points], _CURVES[firsts.index(first) % len(_CURVES)]
        axes.plot(x, mean, color=colour, marker="os^"[within % 3], markersize=5,
                  linestyle=("-", "--", ":")[within % 3], linewidth=1.8, label=name)  # fmt: skip
        axes.fill_between(x, low, high, color=colour, alpha=0.12, linewidth=0)
    _finish_curve(axes, summary, "average sensitivity", bool(curves))


def _finish_curve(axes: Any, summary: Summary, quantity: str, any_run: bool) -> None:
    _within_percent(axes.get_ylim(), axes.set_ylim)
    axes.set_xlabel(summary.table.x_label)
    axes.set_ylabel(f"{quantity} (%), band: 95 % over seeds")
    axes.grid(color="#dde3e9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if any_run:
        axes.legend(loc="best", frameon=False, fontsize=8)
    else:
        axes.text(0.5, 0.5, "not run", ha="center", color=_GREY, transform=axes.transAxes)


def _within_percent(limits: tuple[float, float], change: Callable[..., Any]) -> None:
    """Cut limits that an interval has pushed beyond what a sensitivity can be."""
    change(max(limits[0], -2.0), min(limits[1], 102.0))


def _place(item: RowResult) -> float:
    assert item.row.x is not None
    return item.row.x
