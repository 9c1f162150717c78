"""Key slices of findings with their boxes, as a figure for notebooks and papers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mmpluld.errors import InputError
from mmpluld.structures import CTVolume, Finding
from mmpluld.visualization.figures import COLOURS
from mmpluld.visualization.pictures import choose_window, window_slice

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_findings"]

_COLUMNS = 3
_INCHES = 3.4


def plot_findings(volume: CTVolume, findings: Sequence[Finding], most: int = 6) -> Figure:
    """Draw the key slice of each finding, in the window that shows it, with its box and the others there.

    Args:
        volume: The scan.
        findings: Best first; numbered from 1.
        most: Findings to draw.

    Returns:
        A matplotlib figure, which nothing has shown; ``figure.savefig(path)`` writes it.

    Raises:
        InputError: If ``most`` is below 1.
    """
    from matplotlib.figure import Figure

    if most < 1:
        raise InputError(f"{most} findings to draw; allowed is 1 or more")
    shown = findings[:most]
    columns = min(_COLUMNS, max(len(shown), 1))
    rows = max(-(-len(shown) // columns), 1)
    figure = Figure(figsize=(_INCHES * columns, (_INCHES + 0.3) * rows), dpi=100, layout="constrained")
    places = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in places:
        axes.set_axis_off()
    for rank, (axes, finding) in enumerate(zip(places, shown, strict=False), 1):
        _draw(axes, volume, findings, rank, finding)
    if not shown:
        places[0].set_title("no findings", fontsize=9)
    return figure


def _draw(axes: Any, volume: CTVolume, findings: Sequence[Finding], rank: int, finding: Finding) -> None:
    window = choose_window(volume, finding)
    _, y_mm, x_mm = volume.spacing_mm
    height, width = volume.shape[1:]
    picture = window_slice(volume.array[finding.key_slice], window)
    # Pixel edges are whole numbers, as in boxes.
    axes.imshow(picture, cmap="gray", vmin=0, vmax=255, extent=(0, width, height, 0), aspect=y_mm / x_mm)
    for number, other in enumerate(findings, 1):
        if other is finding or other.box_canonical[2] <= finding.key_slice < other.box_canonical[5]:
            _box(axes, number, other, other is finding)
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.set_title(f"{rank}: score {finding.score:.2f}, slice {finding.key_slice_source}, {window.name}", fontsize=8)


def _box(axes: Any, number: int, finding: Finding, main: bool) -> None:
    from matplotlib.patches import Rectangle

    x1, y1, x2, y2 = finding.key_box if main else [finding.box_canonical[place] for place in (0, 1, 3, 4)]
    colour = COLOURS[4] if main else COLOURS[5]
    axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=colour, linewidth=1.2))
    axes.text(x1, y1, str(number), color=colour, fontsize=9, weight="bold", ha="right", va="bottom", clip_on=True)
