"""Pictures with what is drawn over them, in millimetres from the scan's corner, so that pixels need not be square."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmpluld.structures import CTVolume, Finding
from mmpluld.visualization.labels import Label, Rect, overlap, place_labels
from mmpluld.visualization.pictures import choose_window, jpeg_data_uri, project, window_slice
from mmpluld.visualization.stack import Range, Stack, neighbourhood

__all__ = ["PLANES", "Drawing", "Mark", "bar_mm", "diameter_lines", "font_of", "key_drawings", "overview"]

PLANES = {"axial": ("R", "L", "A", "P"), "coronal": ("R", "L", "S", "I"), "sagittal": ("A", "P", "S", "I")}
"""Letters at the left, right, upper and lower edge of each plane."""

_REACH = 6.0  # font sizes that a number in the overview may stand from its box
_FEW = 15  # findings whose numbers can be large
_MOST_NUMBERS = 40  # in the overview
_MOST_BESIDE = 10  # in the picture of a key slice
_WIDTH, _HEIGHT = 570, 560  # of a picture on a wide screen, in pixels
_BARS_MM = (5, 10, 20, 50, 100, 200)


@dataclass(frozen=True)
class Mark:
    """The box of a finding; ``main`` is the one that a picture is about, ``label`` its number if there was room."""

    rank: int
    box: Rect
    main: bool = True
    label: Label | None = None


@dataclass(frozen=True)
class Drawing:
    """A picture, or the part ``view`` of it, and what goes on top."""

    image: str
    caption: str
    view: Rect
    marks: Sequence[Mark]
    letters: tuple[str, str, str, str]
    font: float
    diameters: Sequence[tuple[float, float, float, float]] = ()

    @property
    def bar_mm(self) -> int:
        return bar_mm(self.view.width)

    @property
    def numbered(self) -> int:
        """How many boxes have their number."""
        return sum(mark.label is not None for mark in self.marks)


def bar_mm(width_mm: float) -> int:
    """Length of a scale bar: the longest round one that takes up to a third of the width."""
    return max((mm for mm in _BARS_MM if mm <= width_mm / 3), default=1)


def font_of(view: Rect) -> float:
    """Font size of letters and numbers: about 17 pixels where a picture has all of its place, less in flat ones."""
    return min(17 * max(view.width / _WIDTH, view.height / _HEIGHT), view.height * 0.12)


def overview(volume: CTVolume, findings: Sequence[Finding], images: dict[str, dict[str, Any]]) -> list[Drawing]:
    """Projections from the front and from the side with every finding on them; their pictures go into ``images``."""
    drawings = []
    z_mm, y_mm, x_mm = volume.spacing_mm
    for name, picture, axis, spacing, caption in zip(
        ("coronal", "sagittal"),
        project(volume),
        (0, 1),
        (x_mm, y_mm),
        ("From the front (mean density)", "From the side (mean density)"),
        strict=True,
    ):
        view = Rect(0, 0, picture.shape[1] * spacing, picture.shape[0] * z_mm)
        images[name] = _image(picture, view)
        boxes = [
            (rank, _rect([finding.box_canonical[i] for i in (axis, 2, axis + 3, 5)], (spacing, z_mm)), True)
            for rank, finding in enumerate(findings, 1)
        ]
        font = font_of(view) * (1 if len(findings) <= _FEW else 0.75)
        drawings.append(
            Drawing(name, caption, view, _labelled(boxes, view, font, _MOST_NUMBERS, _REACH), PLANES[name], font)
        )
    return drawings


def key_drawings(
    rank: int,
    volume: CTVolume,
    findings: Sequence[Finding],
    stack: Stack,
    images: dict[str, dict[str, Any]] | None = None,
) -> tuple[Drawing, Drawing]:
    """The key slice of a finding, cut to the body, and a close-up.

    Its picture goes into ``images``, if given; one that several findings share is stored once.
    """
    finding = findings[rank - 1]
    spacing = (volume.spacing_mm[2], volume.spacing_mm[1])
    window = choose_window(volume, finding)
    key = finding.key_slice
    whole = _part(stack.x, stack.y, spacing)
    image = f"slice-{key}-{window.name.replace(' ', '-')}"
    if images is not None and image not in images:
        part = volume.array[key, stack.y[0] : stack.y[1], stack.x[0] : stack.x[1]]
        images[image] = _image(window_slice(part, window), whole)
    near_x, near_y, _ = neighbourhood(volume, finding)
    boxes = [(rank, _rect(finding.key_box, spacing), True)]
    for number, other in enumerate(findings, 1):
        if number != rank and other.box_canonical[2] <= key < other.box_canonical[5]:
            x1, y1, _, x2, y2, _ = other.box_canonical
            boxes.append((number, _rect((x1, y1, x2, y2), spacing), False))
    caption = f"{window.name} window, {window.low_hu:.0f} to {window.high_hu:.0f} HU"
    drawings = []
    for view, text in ((whole, f"Key slice, {caption}"), (_part(near_x, near_y, spacing), "Close-up")):
        font = font_of(view)
        marks = _labelled(boxes, view, font, _MOST_BESIDE)
        lines = diameter_lines(finding, spacing) if view is not whole else []
        drawings.append(Drawing(image, text, view, marks, PLANES["axial"], font, lines))
    return drawings[0], drawings[1]


def diameter_lines(finding: Finding, spacing: tuple[float, float]) -> list[tuple[float, float, float, float]]:
    """Both RECIST diameters as x1, y1, x2, y2 in millimetres; none where the model predicts no mask."""
    if finding.recist is None:
        return []
    ends = np.array(finding.recist.ends).reshape(2, 2, 2) * spacing
    return [(x1, y1, x2, y2) for x1, y1, x2, y2 in ends.reshape(2, 4).tolist()]


def _labelled(
    boxes: Sequence[tuple[int, Rect, bool]], view: Rect, font: float, most: int, reach: float = 0.0
) -> list[Mark]:
    """Marks, the last one on top: the numbers of those that come first are placed first, and at most so many."""
    seen = [item for item in boxes if overlap(item[1], view)]
    named = seen[:most]
    texts = [str(rank) for rank, _, _ in named]
    labels = place_labels([box for _, box, _ in named], texts, view, font, _taken(view, font), reach)
    labels += [None] * (len(seen) - len(named))
    return [Mark(rank, box, main, label) for (rank, box, main), label in zip(seen, labels, strict=True)][::-1]


def _taken(view: Rect, font: float) -> list[Rect]:
    """Where letters and the scale bar are."""
    middle_x, middle_y = view.x + view.width / 2 - font / 2, view.y + view.height / 2 - font / 2
    bar = max(bar_mm(view.width), 3.2 * font)
    return [
        Rect(view.x, middle_y, 1.5 * font, font),
        Rect(view.right - 1.5 * font, middle_y, 1.5 * font, font),
        Rect(middle_x, view.y, font, 1.3 * font),
        Rect(middle_x, view.bottom - 1.4 * font, font, 1.4 * font),
        Rect(view.x, view.bottom - 2.1 * font, bar + 1.2 * font, 2.1 * font),
    ]


def _image(picture: Any, place: Rect) -> dict[str, Any]:
    return {"uri": jpeg_data_uri(picture), "place": place}


def _part(x: Range, y: Range, spacing: tuple[float, float]) -> Rect:
    return _rect((x[0], y[0], x[1], y[1]), spacing)


def _rect(box: Sequence[float], spacing: tuple[float, float]) -> Rect:
    """A 2D box (x1, y1, x2, y2) in pixel edges -> millimetres from the picture's corner."""
    x1, y1, x2, y2 = box
    return Rect(x1 * spacing[0], y1 * spacing[1], (x2 - x1) * spacing[0], (y2 - y1) * spacing[1])
