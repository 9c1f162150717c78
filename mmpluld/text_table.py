"""Tables as plain text."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["text_table"]


def text_table(rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Lay out rows as lines with aligned columns two spaces apart; no line ends in spaces.

    Args:
        rows: Cells, as many in each row; a header is a row like others.
        left: So many columns are aligned to the left, as text is, the others to the right, as numbers are.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row[:left], widths[:left], strict=True)]
        cells += [cell.rjust(width) for cell, width in zip(row[left:], widths[left:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
