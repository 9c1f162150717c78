"""A figure of a phantom: axial slices in two windows, a coronal view, marked and unmarked lesions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mmpluld.atomic import atomic_path
from mmpluld.phantom.case import PhantomSeries, make_phantom
from mmpluld.typing import StrPath

__all__ = ["save_picture"]

_WINDOWS = {"soft tissue": (-160.0, 240.0), "lung": (-1350.0, 150.0), "bone": (-500.0, 1300.0)}
_MARKED, _UNMARKED = "#39d353", "#ffb000"
_PANELS = (  # share of the scan's height, window
    (0.17, "lung"),
    (0.24, "soft tissue"),
    (0.44, "soft tissue"),
    (0.53, "soft tissue"),
    (0.86, "soft tissue"),
)


def save_picture(path: StrPath, seed: int = 3, size: int = 256, **settings: Any) -> Path:
    """Draw a whole-torso phantom; boxes of marked lesions are solid, of unmarked ones dashed.

    Args:
        path: PNG file to write.
        seed: Seed of the phantom.
        size: Rows and columns of its slices.
        settings: Further fields of `PhantomSpec`.

    Raises:
        InputError: If a setting is unknown or outside its range.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    torso = {"size": size, "regions": ("torso",), "intervals_mm": (5.0,), "max_slices": 140}
    case = make_phantom(seed, **(settings | torso))
    series = case.series[0]
    figure = Figure(figsize=(9.6, 5.6), dpi=100, facecolor="black")
    FigureCanvasAgg(figure)
    axes = [figure.add_axes((column / 3, 0.5 - row * 0.5, 1 / 3, 0.5)) for row in (0, 1) for column in range(3)]
    for axis, (share, window) in zip(axes, _PANELS, strict=False):
        _axial(axis, series, _nearest_key_slice(series, share), window)
    _coronal(axes[-1], series)
    target = Path(path)
    with atomic_path(target) as temporary:
        figure.savefig(temporary, format="png", facecolor="black", pil_kwargs={"optimize": True})
    return target


def _nearest_key_slice(series: PhantomSeries, share: float) -> int:
    """The key slice closest to this height, so that the picture shows lesions; at most 6 slices away."""
    wanted = round(share * (series.volume.shape[0] - 1))
    keys = [lesion.key_slice for lesion in series.lesions if abs(lesion.key_slice - wanted) <= 6]
    return min(keys, key=lambda key: abs(key - wanted), default=wanted)


def _axial(axis: Any, series: PhantomSeries, index: int, window: str) -> None:
    low, high = _WINDOWS[window]
    axis.imshow(series.volume.array[index], cmap="gray", vmin=low, vmax=high, interpolation="bilinear")
    for lesion in series.lesions:
        if index in lesion.slices:
            _outline(axis, lesion.slices[index].box, lesion.marked)
    axis.set_axis_off()
    axis.text(0.03, 0.04, f"slice {index + 1}, {window} window", color="white", fontsize=8, transform=axis.transAxes)
    axis.text(0.02, 0.5, "R", color="white", fontsize=9, transform=axis.transAxes)


def _coronal(axis: Any, series: PhantomSeries) -> None:
    z_mm, y_mm, x_mm = series.volume.spacing_mm
    row = int(series.volume.shape[1] * 0.5)
    low, high = _WINDOWS["soft tissue"]
    axis.imshow(
        series.volume.array[:, row], cmap="gray", vmin=low, vmax=high, aspect=z_mm / x_mm, interpolation="bilinear"
    )
    for lesion in series.lesions:
        x1, y1, z1, x2, y2, z2 = lesion.box
        if y1 <= row < y2:
            _outline(axis, (x1, z1, x2, z2), lesion.marked)
    axis.set_axis_off()
    axis.text(0.5, 0.03, "coronal", color="white", fontsize=8, ha="center", transform=axis.transAxes)


def _outline(axis: Any, box: tuple[float, float, float, float], marked: bool) -> None:
    from matplotlib.patches import Rectangle

    x1, y1, x2, y2 = np.asarray(box) - 0.5  # imshow puts pixel centres at whole numbers
    style = {"edgecolor": _MARKED} if marked else {"edgecolor": _UNMARKED, "linestyle": (0, (3, 2))}
    axis.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, linewidth=1.2, **style))
