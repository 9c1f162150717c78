"""The reliability plot: of findings with a score, the share that is a lesion."""

from __future__ import annotations

from mmpluld.evaluation.operating_points import OperatingPoints
from mmpluld.typing import StrPath
from mmpluld.visualization.figures import COLOURS, figure_at, tidy

__all__ = ["plot_reliability"]


def plot_reliability(points: OperatingPoints, path: StrPath) -> None:
    """Plot precision by score with its 95 % interval, and how many findings have such a score.

    Args:
        points: What to plot.
        path: Picture to write, .png, .svg or .pdf.

    Raises:
        InputError: If the suffix is unknown.
    """
    bins = [item for item in points.calibration if item.precision is not None and item.mean_score is not None]
    with figure_at(path, (4.8, 5.2)) as figure:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        upper.plot([0, 1], [0, 1], color="#8896a5", linestyle="--", linewidth=1, label="score = share")
        scores = [item.mean_score for item in bins]
        upper.plot(scores, [item.precision for item in bins], color=COLOURS[0], marker="o", label="measured")
        for item in bins:
            if item.interval is not None:
                upper.plot([item.mean_score] * 2, item.interval, color=COLOURS[0], alpha=0.4, linewidth=3)
        upper.set_xlim(0, 1)
        upper.set_ylim(0, 1)
        upper.set_ylabel("Share that is a lesion")
        upper.legend(frameon=False, loc="upper left")
        title = f"{points.num_images} validation {points.per}s, {points.num_patients} patients ({points.protocol})"
        upper.set_title(title, fontsize=9, loc="left")
        lower.bar(
            [(item.low + item.high) / 2 for item in points.calibration],
            [item.count for item in points.calibration],
            width=0.09,
            color=COLOURS[5],
        )
        if any(item.count for item in points.calibration):
            lower.set_yscale("log")
        lower.set_ylabel("Findings")
        lower.set_xlabel("Score")
        for axes in (upper, lower):
            tidy(axes)
