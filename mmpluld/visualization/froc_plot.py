"""FROC plots of evaluation results."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mmpluld.atomic import atomic_path
from mmpluld.errors import InputError
from mmpluld.typing import StrPath

__all__ = ["plot_froc"]

_SUFFIXES = (".png", ".svg", ".pdf")
# Okabe and Ito's colours, told apart by colour-blind readers too; in the order of best contrast on white.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
_MARKERS = "osD^vPX"


def plot_froc(results: Mapping[str, Mapping[str, Any]], path: StrPath) -> None:
    """Plot the sensitivity at each false-positive level, with its interval where one was computed.

    Args:
        results: Label to result of :func:`mmpluld.evaluation.evaluate.evaluate_files`; all of one protocol.
        path: Picture to write, .png, .svg or .pdf.

    Raises:
        InputError: If there is nothing to plot, the results are of different protocols, or the suffix is unknown.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    target = Path(path)
    if target.suffix.lower() not in _SUFFIXES:
        raise InputError(f"{target}: cannot plot to '{target.suffix}'; allowed are {', '.join(_SUFFIXES)}")
    protocols = sorted({result["protocol"] for result in results.values()})
    if len(protocols) != 1:
        raise InputError(
            f"{target}: results of protocols {', '.join(protocols) or '(none)'} cannot share a plot; give one or "
            "more of the same protocol"
        )
    # A fixed salt instead of a random one makes equal plots equal files.
    with rc_context({"svg.hashsalt": "mmpluld", "font.size": 10}):
        figure = Figure(figsize=(6.4, 4.4), dpi=150, layout="constrained")
        axes = figure.add_subplot()
        for number, (label, result) in enumerate(results.items()):
            _draw(axes, label, result, _COLOURS[number % len(_COLOURS)], _MARKERS[number % len(_MARKERS)])
        _decorate(axes, next(iter(results.values())))
        with atomic_path(target) as temporary:
            figure.savefig(temporary, format=target.suffix[1:].lower(), metadata=_no_date(target.suffix.lower()))


def _draw(axes: Any, label: str, result: Mapping[str, Any], colour: str, marker: str) -> None:
    levels = result["levels"]
    text = f"{label} (average {100 * result['average']:.1f})"
    percent = 100 * np.array(result["sensitivity"], dtype=float)
    axes.plot(levels, percent, color=colour, marker=marker, markersize=5, linewidth=1.8, label=text, clip_on=False)
    if "interval" in result:
        low, high = 100 * np.array(result["interval"]["sensitivity"], dtype=float).T
        axes.fill_between(levels, low, high, color=colour, alpha=0.15, linewidth=0)


def _decorate(axes: Any, result: Mapping[str, Any]) -> None:
    levels = result["levels"]
    axes.set_xscale("log", base=2)
    axes.set_xticks(levels, [_fraction(level) for level in levels])
    axes.minorticks_off()
    axes.set_xlim(levels[0], levels[-1])
    axes.set_ylim(0, 100)
    axes.set_xlabel(f"False positives per {result['per']}")
    axes.set_ylabel("Sensitivity (%)")
    axes.set_title(f"{result['protocol']}, {result['num_lesions']} lesions", fontsize=10, loc="left")
    axes.grid(color="#dde3e9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="best", frameon=False)


def _fraction(level: float) -> str:
    """0.125 -> 1/8, 4.0 -> 4."""
    return f"{level:g}" if level >= 1 else f"1/{1 / level:g}"


def _no_date(suffix: str) -> dict[str, None]:
    """Metadata that keeps the date out of the file."""
    return {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(suffix, {})
