"""Findings as markups of 3D Slicer: one region of interest each."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from mmpluld.atomic import atomic_write_text
from mmpluld.structures import CTVolume, Finding, ScanFindings
from mmpluld.typing import FloatArray, StrPath

__all__ = ["write_markups"]

_SCHEMA = (
    "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/"
    "markups-schema-v1.0.3.json#"
)
_RED = (0.9, 0.1, 0.1)


def write_markups(path: StrPath, found: ScanFindings) -> None:
    """Write one ROI a finding, LPS mm, with its rank and score as label.

    A box lies along the axes of the scan, so in an oblique scan it is turned as the scan is. Slices that are shifted
    against each other (gantry tilt) make it a parallelepiped, which a ROI cannot be; then the ROI, with two axes in the
    slice and one along its normal, encloses it, and the description says so.

    Args:
        path: File to write.
        found: The findings.
    """
    axes = _frame(found.volume)
    regions = [_region(found.volume, finding, rank, axes) for rank, finding in enumerate(found, start=1)]
    atomic_write_text(path, json.dumps({"@schema": _SCHEMA, "markups": regions}, indent=1, allow_nan=False) + "\n")


def _frame(volume: CTVolume) -> FloatArray:
    """(3, 3), columns: unit directions in LPS at right angles, right-handed; two in the slice, one along its normal."""
    along_x, along_y = volume.affine_lps[:3, 0], volume.affine_lps[:3, 1]
    x = along_x / np.linalg.norm(along_x)
    y = along_y - (along_y @ x) * x
    y /= np.linalg.norm(y)
    frame: FloatArray = np.column_stack([x, y, np.cross(x, y)])
    return frame


def _region(volume: CTVolume, finding: Finding, rank: int, axes: FloatArray) -> dict[str, Any]:
    box = np.array(finding.box_canonical).reshape(2, 3)
    centre = volume.points_to_world_lps(box.mean(axis=0) - 0.5)
    edges = axes.T @ volume.affine_lps[:3, :3] * (box[1] - box[0])  # columns: edges of the box along the ROI's axes
    size = np.abs(edges).sum(axis=1)
    tilted = np.abs(edges - np.diag(np.diag(edges))).max() > 1e-3
    parts = [f"score {finding.score:.4f}"]
    if finding.recist is not None:
        parts.append(f"diameters on the key slice {finding.recist.long_mm:.1f} x {finding.recist.short_mm:.1f} mm")
    parts += [f"{name} {score:.2f}" for name, score in finding.tags]
    if tilted:
        parts.append("the slices are tilted: this region encloses the box")
    label = f"{rank}: {finding.score:.2f}"
    position = _rounded(centre)
    return {
        "type": "ROI",
        "name": f"finding {rank}",
        "coordinateSystem": "LPS",
        "coordinateUnits": "mm",
        "locked": True,
        "roiType": "Box",
        "center": position,
        "orientation": _rounded(axes.ravel(), 12),
        "size": _rounded(size),
        "insideOut": False,
        "controlPoints": [{"id": "1", "label": label, "description": "; ".join(parts), "position": position}],
        "display": {
            "visibility": True,
            "propertiesLabelVisibility": True,
            "opacity": 1.0,
            "color": _RED,
            "selectedColor": _RED,
            "fillOpacity": 0.1,
        },
    }


def _rounded(values: FloatArray, digits: int = 6) -> list[float]:
    return [float(value) + 0.0 for value in np.round(values, digits)]
