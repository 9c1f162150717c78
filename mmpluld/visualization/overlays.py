"""Pictures of findings for papers and slides: one PNG a finding."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmpluld.structures import CTVolume, Finding
from mmpluld.typing import StrPath
from mmpluld.visualization.drawings import Drawing, key_drawings
from mmpluld.visualization.figures import COLOURS, figure_at
from mmpluld.visualization.labels import Rect
from mmpluld.visualization.pictures import choose_window, window_slice
from mmpluld.visualization.stack import plan_stack

__all__ = ["write_overlays"]

_HEIGHT_IN = 3.4
_FONT = 9
_DPI = 300
_GAP = 0.004  # between the two, as a share of the width
_YELLOW, _GREEN, _BLUE = COLOURS[4], COLOURS[2], COLOURS[5]


def write_overlays(folder: StrPath, volume: CTVolume, findings: Sequence[Finding]) -> list[Path]:
    """Write ``finding-001.png`` and so on: the key slice, cut to the body, and a close-up, side by side.

    Both have the finding's box, that of others on the slice dashed, orientation letters and a scale bar; the close-up
    has the diameters where the finding has them. The window is lung or soft tissue, as in the report. The files hold no
    text but these, no date and no name, and are the same for the same input.

    Args:
        folder: Where the files go; made if it is missing. Files of these names are replaced.
        volume: The scan.
        findings: What was found, in the order of their numbers.

    Returns:
        The files, in the order of the findings.

    Raises:
        InputError: A file cannot be written.
    """
    stack = plan_stack(volume, findings)
    digits = max(3, len(str(len(findings))))
    paths = []
    for rank, finding in enumerate(findings, 1):
        whole, close = key_drawings(rank, volume, findings, stack)
        grey = window_slice(volume.array[finding.key_slice], choose_window(volume, finding))
        _, y_mm, x_mm = volume.spacing_mm
        place = Rect(0, 0, grey.shape[1] * x_mm, grey.shape[0] * y_mm)
        path = Path(folder) / f"finding-{rank:0{digits}d}.png"
        shapes = [max(0.2, min(4.0, drawing.view.width / drawing.view.height)) for drawing in (whole, close)]
        with figure_at(path, (sum(shapes) * _HEIGHT_IN, _HEIGHT_IN), _FONT, _DPI) as figure:
            figure.set_layout_engine("none")  # it is the slowest part, and the places are known
            figure.set_facecolor("black")
            left = 0.0
            for shape, drawing in zip(shapes, (whole, close), strict=True):
                axes = figure.add_axes((left, 0, shape / sum(shapes) - _GAP, 1))
                left += shape / sum(shapes)
                axes.imshow(
                    grey,
                    cmap="gray",
                    vmin=0,
                    vmax=255,
                    extent=(0, place.width, place.height, 0),
                    interpolation="bilinear",
                )
                _draw(axes, drawing)
        paths.append(path)
    return paths


def _draw(axes: Any, drawing: Drawing) -> None:
    """What goes over a picture that lies in millimetres."""
    from matplotlib.patches import Rectangle
    from matplotlib.patheffects import withStroke

    edge = [withStroke(linewidth=2, foreground="black")]
    view = drawing.view
    axes.set(xlim=(view.x, view.right), ylim=(view.bottom, view.y))
    axes.set_axis_off()
    for mark in drawing.marks:
        colour = _YELLOW if mark.main else _BLUE
        axes.add_patch(
            Rectangle(
                (mark.box.x, mark.box.y),
                mark.box.width,
                mark.box.height,
                fill=False,
                edgecolor=colour,
                linewidth=1.4 if mark.main else 0.8,
                linestyle="-" if mark.main else "--",
            )
        )
        if mark.label:
            axes.text(mark.label.x, mark.label.y, str(mark.rank), color=colour, weight="bold", path_effects=edge)
    for x1, y1, x2, y2 in drawing.diameters:
        axes.plot([x1, x2], [y1, y2], color=_GREEN, linewidth=1.2)
    for letter, x, y in zip(drawing.letters, (0.03, 0.97, 0.5, 0.5), (0.5, 0.5, 0.95, 0.05), strict=True):
        axes.text(x, y, letter, color="white", ha="center", va="center", transform=axes.transAxes, path_effects=edge)
    y = view.bottom - 0.04 * view.height
    x = view.x + 0.04 * view.width
    axes.plot([x, x + drawing.bar_mm], [y, y], color="white", linewidth=2, solid_capstyle="butt")
    axes.text(x, y - 0.02 * view.height, f"{drawing.bar_mm} mm", color="white", va="bottom", path_effects=edge)
