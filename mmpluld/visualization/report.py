"""One self-contained HTML page about the findings in a scan.

It loads nothing from elsewhere. Without JavaScript it is a table and the pictures of the key slices; with it, a viewer
of all slices around each finding, whose HU it holds in the form of :mod:`mmpluld.visualization.stack`.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from mmpluld.atomic import atomic_path
from mmpluld.structures import CTVolume, Finding
from mmpluld.typing import StrPath
from mmpluld.version import __version__
from mmpluld.visualization.drawings import PLANES, diameter_lines, key_drawings, overview
from mmpluld.visualization.pictures import WINDOWS, choose_window
from mmpluld.visualization.stack import KNOTS, Stack, neighbourhood, plan_stack

__all__ = ["render_report", "write_report"]


# Pictures of key slices are for print and for readers without JavaScript, and a page with all would be heavy.
_MAX_PICTURES = 30


def write_report(path: StrPath, volume: CTVolume, findings: Sequence[Finding], details: Mapping[str, str]) -> None:
    """Write the page of :func:`render_report` to ``path``, whole or not at all, slice by slice."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as stream:
        stream.writelines(_pieces(volume, findings, details))


def render_report(volume: CTVolume, findings: Sequence[Finding], details: Mapping[str, str]) -> str:
    """Return an HTML page with a table, a viewer and pictures of the findings in a scan.

    The page holds no date and is the same for the same input. Findings beyond the 30th are in the table, the viewer and
    the overview, but have no picture of their key slice.

    Args:
        volume: The scan.
        findings: What was found, in the order to be shown.
        details: What was done, name to text, such as the model and its score threshold.
    """
    return "".join(_pieces(volume, findings, details))


def _pieces(volume: CTVolume, findings: Sequence[Finding], details: Mapping[str, str]) -> Iterator[str]:
    images: dict[str, dict[str, Any]] = {}
    stack = plan_stack(volume, findings)
    ranks = range(1, min(len(findings), _MAX_PICTURES) + 1)
    template, style, script = _template()
    rows = [_table_row(rank, finding, volume) for rank, finding in enumerate(findings, 1)]
    pieces: Iterator[str] = template.generate(
        version=__version__,
        style=style,
        script=script,
        digests={name: _digest(text) for name, text in (("style", style), ("script", script))},
        scan=_describe_scan(volume),
        details=details,
        rows=rows,
        overview=overview(volume, findings, images),
        figures=[(rows[rank - 1], key_drawings(rank, volume, findings, stack, images)) for rank in ranks],
        measured=any(finding.recist for finding in findings),
        tagged=any(finding.tags for finding in findings),
        hidden=len(findings) - len(ranks),
        images=images,
        windows=WINDOWS,
        data=_json(_data(volume, findings, stack)),
        slices=stack.pictures(volume),
        history=volume.history,
    )
    return pieces


@cache
def _template() -> tuple[Any, Any, Any]:
    """The page, its style and its script."""
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mmpluld.visualization", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # Adding 0.0 turns a rounded -0.0 into 0.0.
    environment.filters["mm"] = lambda value: f"{round(value, 1) + 0.0:.1f}"
    environment.filters["short"] = _short
    environment.filters["volume"] = lambda ml: f"{ml:.1f}" if ml >= 1 else f"{ml:.3f}"
    folder = resources.files("mmpluld.visualization") / "templates"
    style, script = (Markup((folder / f"report.{end}").read_text("utf-8")) for end in ("css", "js"))
    return environment.get_template("report.html.j2"), style, script


def _short(value: float) -> str:
    return f"{round(value, 2) + 0.0:.2f}".rstrip("0").rstrip(".")


def _digest(text: str) -> str:
    """What the page's policy calls a text by, so that no other style or script is obeyed."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


def _json(value: Any) -> Any:
    """JSON that can stand in a script element, whatever the names in it hold: ASCII without <, > and &."""
    from markupsafe import Markup

    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)


def _data(volume: CTVolume, findings: Sequence[Finding], stack: Stack) -> dict[str, Any]:
    """What the viewer needs; lengths in millimetres from the scan's corner, axes in the order x, y, z."""
    spacing = volume.spacing_mm[::-1]
    origin = [stack.x[0] * spacing[0], stack.y[0] * spacing[1], 0.0]
    size = [*stack.size, volume.shape[0]]
    step = [
        (stack.x[1] - stack.x[0]) * spacing[0] / size[0],
        (stack.y[1] - stack.y[0]) * spacing[1] / size[1],
        spacing[2],
    ]
    file_axes = [
        {"name": "ijk"[abs(axis) - 1], "flip": axis < 0, "size": volume.source_shape[abs(axis) - 1], "mm": mm}
        for axis, mm in zip(volume.source_axes, spacing, strict=True)
    ]
    return {
        "origin": [round(value, 6) for value in origin],
        "step": [round(value, 6) for value in step],
        "size": size,
        "axes": file_axes,
        "knots": KNOTS,
        "windows": [[window.name, window.low_hu, window.high_hu] for window in WINDOWS],
        "letters": PLANES,
        "findings": [_finding_data(volume, finding, spacing) for finding in findings],
    }


def _finding_data(volume: CTVolume, finding: Finding, spacing: Sequence[float]) -> dict[str, Any]:
    in_plane = (spacing[0], spacing[1])
    lengths = np.array([*spacing, *spacing])
    return {
        "box": np.round(np.array(finding.box_canonical) * lengths, 3).tolist(),
        "near": neighbourhood(volume, finding),
        "key": finding.key_slice,
        "keyBox": np.round(np.array(finding.key_box) * [*in_plane, *in_plane], 3).tolist(),
        "lines": np.round(diameter_lines(finding, in_plane), 3).tolist(),
        "window": WINDOWS.index(choose_window(volume, finding)),
    }


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
    size = (box[3:] - box[:3]) * volume.spacing_mm[::-1]
    return {
        "rank": rank,
        "score": finding.score,
        "centre": ((world[:3] + world[3:]) / 2).tolist(),
        "size": size.tolist(),
        "volume_ml": float(size.prod()) / 1000,
        "recist": finding.recist,
        "tags": finding.tags,
        "slice": finding.key_slice_source,
        "last_slice": volume.source_shape[finding.source_axis] - 1,
        "axis": "ijk"[finding.source_axis],
    }
