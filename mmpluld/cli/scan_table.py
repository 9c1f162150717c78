"""The scans of some inputs as a table on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

from mmpluld.errors import printable

if TYPE_CHECKING:
    from mmpluld.io.scans import Scan

__all__ = ["print_scans"]

_COLUMNS = (
    "no.", "result", "input", "series", "description", "kernel", "slices", "interval mm", "thickness mm", "pixels",
    "UID",
)  # fmt: skip
_PLAIN_WIDTH = 240  # where lines are not read on a terminal
_UID_WIDTH = 140  # of a terminal; in a narrower one UIDs, broken into pieces, would hide all else


def print_scans(
    scans: Sequence[Scan], stream: TextIO, chosen: Sequence[Scan] | None = None, identifiers: bool = False
) -> None:
    """Print a row for each scan, with its number.

    Args:
        scans: All that were found.
        stream: Where to.
        chosen: Those that would be examined, whose results are named; None leaves the names out.
        identifiers: Name them as ``--identifiers`` does.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    names = _names(chosen, identifiers) if chosen else {}
    console = Console(file=stream, width=None if stream.isatty() else _PLAIN_WIDTH, highlight=False)
    table = Table(box=box.SIMPLE)
    left_out = {"result": not names, "UID": console.width < _UID_WIDTH}
    shown = [name for name in _COLUMNS if not left_out.get(name)]
    for name in shown:
        table.add_column(name, overflow="fold", justify="right" if name in ("no.", "slices") else "left")
    for number, scan in enumerate(scans, 1):
        cells = _cells(scan) | {"no.": str(number), "result": names.get((str(scan.given), scan.key), "-")}
        # As Text, in which brackets are no markup.
        table.add_row(*(Text(" ".join(printable(cells.get(name, "")).split())) for name in shown))
    console.print(table)


def _names(chosen: Sequence[Scan], identifiers: bool) -> dict[tuple[str, str], str]:
    from mmpluld.inference.scan_store import RESERVED
    from mmpluld.io.scan_choice import result_names

    names = result_names(chosen, RESERVED, identifiers)
    return {(str(scan.given), scan.key): name for scan, name in zip(chosen, names, strict=True)}


def _cells(scan: Scan) -> dict[str, str]:
    place = str(scan.place)
    if scan.fault:
        return {"input": scan.fault}
    if scan.facts is None:
        return {"input": place}
    facts = scan.facts
    return {
        "input": place,
        "series": facts.number,
        "description": facts.description,
        "kernel": facts.kernel,
        "slices": str(facts.images),
        "interval mm": "" if facts.interval_mm is None else f"{facts.interval_mm:g}",
        "thickness mm": facts.thickness,
        "pixels": " x ".join(facts.size),
        "UID": facts.uid,
    }
