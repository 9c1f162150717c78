"""One self-contained HTML page about the findings in a scan.

Pictures are JPEGs inside the page; boxes, letters and scale bars are drawn over them as SVG in millimetres,
so that pixels need not be square. The page loads nothing from elsewhere and runs no script.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from mmpluld.atomic import atomic_write_text
from mmpluld.structures import CTVolume, Finding
from mmpluld.typing import StrPath
from mmpluld.version import __version__
from mmpluld.visualization.pictures import choose_window, jpeg_data_uri, project, window_slice

__all__ = ["render_report", "write_report"]

# A finding's close-up shows at least this much of its surroundings.
_CLOSE_UP_MM = 70.0
_AXIAL = ("R", "L", "A", "P")
_CORONAL = ("R", "L", "S", "I")
_SAGITTAL = ("A", "P", "S", "I")


@dataclass(frozen=True)
class _Rect:
    """A rectangle in millimetres; ``label`` is the finding's rank, ``main`` the figure's own one."""

    x: float
    y: float
    width: float
    height: float
    label: str = ""
    main: bool = True


@dataclass(frozen=True)
class _Figure:
    """What the template needs to draw a picture: the part to show, in millimetres, and what goes on top."""

    image: str
    caption: str
    view: _Rect
    boxes: Sequence[_Rect]
    letters: tuple[str, str, str, str]
    diameters: Sequence[tuple[float, float, float, float]] = ()

    @property
    def bar_mm(self) -> int:
        """Length of the scale bar: the longest round one that takes up to a third of the width."""
        return max((mm for mm in (5, 10, 20, 50, 100, 200) if mm <= self.view.width / 3), default=1)


def write_report(
    path: StrPath,
    volume: CTVolume,
    findings: Sequence[Finding],
    details: Mapping[str, str],
    max_pictures: int = 30,
) -> None:
    """Write the page of :func:`render_report` to ``path``, whole or not at all."""
    atomic_write_text(path, render_report(volume, findings, details, max_pictures))


def render_report(
    volume: CTVolume, findings: Sequence[Finding], details: Mapping[str, str], max_pictures: int = 30
) -> str:
    """Return an HTML page with a table and pictures of the findings in a scan.

    The page holds no date and is the same for the same input.

    Args:
        volume: The scan.
        findings: What was found, in the order to be shown.
        details: What was done, name to text, such as the model and its score threshold.
        max_pictures: Findings beyond this number appear in the table and in the overview only.
    """
    images: dict[str, dict[str, Any]] = {}
    shown = findings[:max_pictures]
    page: str = _template().render(
        version=__version__,
        scan=_describe_scan(volume),
        details=details,
        rows=[_table_row(rank, finding, volume) for rank, finding in enumerate(findings, 1)],
        overview=_overview(volume, findings, images),
        figures=[_finding_figures(rank, volume, findings, images) for rank in range(1, len(shown) + 1)],
        measured=any(finding.recist for finding in findings),
        hidden=len(findings) - len(shown),
        images=images,
        history=volume.history,
    )
    return page


@cache
def _template() -> Any:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mmpluld.visualization", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # Adding 0.0 turns a rounded -0.0 into 0.0.
    environment.filters["mm"] = lambda value: f"{round(value, 1) + 0.0:.1f}"
    environment.filters["short"] = lambda value: f"{value:.2f}".rstrip("0").rstrip(".")
    return environment.get_template("report.html.j2")


def _describe_scan(volume: CTVolume) -> dict[str, Any]:
    depth, height, width = volume.shape
    z, y, x = volume.spacing_mm
    directions = volume.affine_lps[:3, :3] / np.linalg.norm(volume.affine_lps[:3, :3], axis=0)
    tilt = np.degrees(np.arccos(np.clip(np.abs(np.diag(directions)), 0, 1))).max()
    return {
        "name": Path(volume.source).name or volume.source,
        "size": f"{width} × {height} × {depth}",
        "spacing": f"{x:.3g} × {y:.3g} × {z:.3g}",
        "extent": f"{width * x:.0f} × {height * y:.0f} × {depth * z:.0f}",
        "tilt": f"{tilt:.0f}" if tilt > 0.5 else "",
    }


def _table_row(rank: int, finding: Finding, volume: CTVolume) -> dict[str, Any]:
    box = np.array(finding.box_canonical)
    world = np.array(finding.box_world_lps)
    return {
        "rank": rank,
        "score": finding.score,
        "centre": ((world[:3] + world[3:]) / 2).tolist(),
        "size": ((box[3:] - box[:3]) * volume.spacing_mm[::-1]).tolist(),
        "recist": finding.recist,
        "tags": finding.tags,
        "slice": finding.key_slice_source,
        "last_slice": volume.source_shape[finding.source_axis] - 1,
        "axis": "ijk"[finding.source_axis],
    }


def _finding_figures(
    rank: int, volume: CTVolume, findings: Sequence[Finding], images: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """The key slice of one finding and a close-up; a slice that several findings share is stored once."""
    finding = findings[rank - 1]
    _, height, width = volume.shape
    spacing = (volume.spacing_mm[2], volume.spacing_mm[1])
    window = choose_window(volume, finding)
    image = f"slice-{finding.key_slice}-{window.name.replace(' ', '-')}"
    if image not in images:
        picture = window_slice(volume.array[finding.key_slice], window)
        images[image] = _image(picture, width * spacing[0], height * spacing[1])
    boxes = [
        _rect(other.key_box if other is finding else _in_plane(other), spacing, str(number), other is finding)
        for number, other in enumerate(findings, 1)
        if other is finding or other.box_canonical[2] <= finding.key_slice < other.box_canonical[5]
    ]
    boxes.sort(key=lambda box: box.main)
    caption = f"{window.name} window, {window.low_hu:.0f} to {window.high_hu:.0f} HU"
    whole = _Rect(0, 0, width * spacing[0], height * spacing[1])
    return {
        "row": _table_row(rank, finding, volume),
        "whole": _Figure(image, f"Key slice, {caption}", whole, boxes, _AXIAL),
        "close": _Figure(
            image, "Close-up", _close_up(boxes[-1], whole), boxes, _AXIAL, _diameter_lines(finding, spacing)
        ),
    }


def _overview(volume: CTVolume, findings: Sequence[Finding], images: dict[str, dict[str, Any]]) -> list[_Figure]:
    """Projections from the front and from the side with every finding on them."""
    figures = []
    z_mm, y_mm, x_mm = volume.spacing_mm
    coronal, sagittal = project(volume)
    for name, picture, axis, spacing, letters, caption in (
        ("coronal", coronal, 0, x_mm, _CORONAL, "From the front (mean density)"),
        ("sagittal", sagittal, 1, y_mm, _SAGITTAL, "From the side (mean density)"),
    ):
        view = _Rect(0, 0, picture.shape[1] * spacing, picture.shape[0] * z_mm)
        images[name] = _image(picture, view.width, view.height)
        boxes = [
            _rect([finding.box_canonical[i] for i in (axis, 2, axis + 3, 5)], (spacing, z_mm), str(rank))
            for rank, finding in enumerate(findings, 1)
        ]
        figures.append(_Figure(name, caption, view, boxes, letters))
    return figures


def _diameter_lines(finding: Finding, spacing: tuple[float, float]) -> list[tuple[float, float, float, float]]:
    """Both RECIST diameters as x1, y1, x2, y2 in millimetres; none where the model predicts no mask."""
    if finding.recist is None:
        return []
    ends = np.array(finding.recist.ends).reshape(2, 2, 2) * spacing
    return [(x1, y1, x2, y2) for x1, y1, x2, y2 in ends.reshape(2, 4).tolist()]


def _image(picture: Any, width_mm: float, height_mm: float) -> dict[str, Any]:
    return {"uri": jpeg_data_uri(picture), "width": width_mm, "height": height_mm}


def _in_plane(finding: Finding) -> tuple[float, float, float, float]:
    x1, y1, _, x2, y2, _ = finding.box_canonical
    return (x1, y1, x2, y2)


def _rect(box: Sequence[float], spacing: tuple[float, float], label: str, main: bool = True) -> _Rect:
    """A 2D box (x1, y1, x2, y2) in pixel edges -> millimetres from the picture's corner."""
    x1, y1, x2, y2 = box
    return _Rect(x1 * spacing[0], y1 * spacing[1], (x2 - x1) * spacing[0], (y2 - y1) * spacing[1], label, main)


def _close_up(box: _Rect, whole: _Rect) -> _Rect:
    """A square around a box, moved so that it stays within the picture."""
    side = min(max(_CLOSE_UP_MM, 2 * box.width, 2 * box.height), whole.width, whole.height)
    x = np.clip(box.x + box.width / 2 - side / 2, 0, whole.width - side)
    y = np.clip(box.y + box.height / 2 - side / 2, 0, whole.height - side)
    return _Rect(float(x), float(y), side, side)
