"""Where the numbers of boxes go, so that none lies on another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

__all__ = ["Label", "Rect", "overlap", "place_labels"]

_DIGIT = 0.62  # width of a digit in bold, as a share of the font size
_RISE = 0.8  # from the baseline to the top of a digit
_SHORTEST_LEADER = 1.2  # font sizes between box and text from which a line joins them


@dataclass(frozen=True)
class Rect:
    """A rectangle, y downwards."""

    x: float
    y: float
    width: float
    height: float

    @property
    def right(self) -> float:
        return self.x + self.width

    @property
    def bottom(self) -> float:
        return self.y + self.height


@dataclass(frozen=True)
class Label:
    """A text at its place.

    Attributes:
        x: Left end of the text.
        y: Its baseline.
        room: What it covers.
        leader: x1, y1, x2, y2 of the line to its box where it stands apart from it.
    """

    x: float
    y: float
    room: Rect
    leader: tuple[float, float, float, float] | None = None


def overlap(a: Rect, b: Rect) -> bool:
    """Whether two rectangles share more than an edge."""
    return a.x < b.right and b.x < a.right and a.y < b.bottom and b.y < a.bottom


def place_labels(
    boxes: Sequence[Rect],
    texts: Sequence[str],
    view: Rect,
    font: float,
    taken: Sequence[Rect] = (),
    reach: float = 0.0,
) -> list[Label | None]:
    """Find a place beside each box for its text, the first box first.

    Args:
        boxes: In the units of ``view``.
        texts: One for each box, of digits.
        view: No text leaves it.
        font: Font size.
        taken: Where no text may lie.
        reach: How far from its box, in font sizes, a text may stand, joined to it by a line.

    Returns:
        For each box its label, or None where there is no room.
    """
    occupied = list(taken)
    labels: list[Label | None] = []
    for box, text in zip(boxes, texts, strict=True):
        label = next(
            (
                label
                for label in _places(box, (_DIGIT * len(text) + 0.5) * font, font, reach)
                if _inside(label.room, view) and not any(overlap(label.room, other) for other in occupied)
            ),
            None,
        )
        labels.append(label)
        if label is not None:
            occupied.append(label.room)
    return labels


def _places(box: Rect, width: float, font: float, reach: float) -> Iterator[Label]:
    """Places at the corners of a box, then beside it, then in rings farther and farther away."""
    height, gap = font, 0.15 * font
    middle_x, middle_y = box.x + box.width / 2 - width / 2, box.y + box.height / 2 - height / 2
    distance = gap
    while distance <= max(reach * font, gap):
        above, below = box.y - distance - height, box.bottom + distance
        left, right = box.x - distance - width, box.right + distance
        for x, y in (
            *((box.x, above), (box.x, below), (box.right - width, above), (box.right - width, below)),
            *((middle_x, above), (middle_x, below), (right, middle_y), (left, middle_y)),
            *((right, above), (left, above), (right, below), (left, below)),
        ):
            room = Rect(x, y, width, height)
            leader = _leader(room, box) if distance >= _SHORTEST_LEADER * font else None
            yield Label(x + 0.25 * font, y + (0.1 + _RISE) * font, room, leader)
        distance += 0.6 * font


def _leader(room: Rect, box: Rect) -> tuple[float, float, float, float]:
    """The shortest line between a text and its box."""
    x1, x2 = _nearest(room.x, room.right, box.x, box.right)
    y1, y2 = _nearest(room.y, room.bottom, box.y, box.bottom)
    return (x1, y1, x2, y2)


def _nearest(a1: float, a2: float, b1: float, b2: float) -> tuple[float, float]:
    if a2 < b1:
        return a2, b1
    if b2 < a1:
        return a1, b2
    middle = (max(a1, b1) + min(a2, b2)) / 2
    return middle, middle


def _inside(room: Rect, view: Rect) -> bool:
    return room.x >= view.x and room.y >= view.y and room.right <= view.right and room.bottom <= view.bottom
