"""What all plots share: colours, and files that are equal for equal plots."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmpluld.atomic import atomic_path
from mmpluld.errors import InputError
from mmpluld.typing import StrPath

__all__ = ["COLOURS", "MARKERS", "check_picture", "figure_at", "tidy"]

# Okabe and Ito's colours, told apart by colour-blind readers too; in the order of best contrast on white.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
MARKERS = "osD^vPX"

_NO_DATE = {".png": {}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}


def check_picture(path: StrPath) -> None:
    """Refuse a file that is no picture by its suffix.

    Raises:
        InputError: The suffix is unknown.
    """
    suffix = Path(path).suffix
    if suffix.lower() not in _NO_DATE:
        raise InputError(f"{path}: cannot plot to '{suffix}'; allowed are {', '.join(_NO_DATE)}")


@contextmanager
def figure_at(path: StrPath, size_inches: tuple[float, float], font_size: float = 10, dpi: int = 150) -> Iterator[Any]:
    """Yield an empty matplotlib figure; it is written when the block has succeeded.

    Args:
        path: Picture to write, .png, .svg or .pdf.
        size_inches: Width and height.
        font_size: In points.
        dpi: Pixels an inch of a .png.

    Raises:
        InputError: If the suffix is unknown.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    check_picture(path)
    target = Path(path)
    suffix = target.suffix.lower()
    # A fixed salt instead of a random one makes equal plots equal files.
    with rc_context({"svg.hashsalt": "mmpluld", "font.size": font_size}):
        figure = Figure(figsize=size_inches, dpi=dpi, layout="constrained")
        yield figure
        with atomic_path(target) as temporary:
            figure.savefig(temporary, format=suffix[1:], metadata=_NO_DATE[suffix])


def tidy(axes: Any) -> None:
    """Give axes a light grid below the lines, and no frame above and to the right."""
    axes.grid(color="#dde3e9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
