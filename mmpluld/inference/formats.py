"""The files that findings can be written to, each under a name; :data:`FORMATS` is the table of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmpluld.errors import InputError, did_you_mean
from mmpluld.io import write_findings_csv
from mmpluld.structures import ScanFindings

__all__ = ["DEFAULT_FORMATS", "FORMATS", "Format", "check_formats", "output_names"]


@dataclass(frozen=True)
class Format:
    """One kind of output.

    Attributes:
        file: Name of its file in the output folder.
        text: What it is, in a few words.
        write: Writes it, given the path, the findings, and whether identifiers of the scan may be written.
    """

    file: str
    text: str
    write: Callable[[Path, ScanFindings, bool], None]


def _json(path: Path, found: ScanFindings, identifiers: bool) -> None:
    found.detections.save(path)


def _csv(path: Path, found: ScanFindings, identifiers: bool) -> None:
    write_findings_csv(path, found.findings)


def _html(path: Path, found: ScanFindings, identifiers: bool) -> None:
    from mmpluld.visualization import write_report

    write_report(path, found.volume, found.findings, found.details)


FORMATS = {
    "json": Format("detections.json", "detection record, which `mmpluld evaluate` reads", _json),
    "csv": Format("findings.csv", "table in LPS millimetres", _csv),
    "html": Format("report.html", "report to look at", _html),
}
DEFAULT_FORMATS = ("json", "csv", "html")


def check_formats(names: Sequence[str]) -> list[Format]:
    """The formats of these names.

    Raises:
        InputError: If one is unknown, or none is given.
    """
    for name in names:
        if name not in FORMATS:
            hint = did_you_mean(name, FORMATS, "choose of them")
            raise InputError(f"format {name!r} is unknown; allowed are {', '.join(FORMATS)}{hint}")
    if not names:
        raise InputError(f"no format is given; allowed are {', '.join(FORMATS)}")
    return [FORMATS[name] for name in dict.fromkeys(names)]


def output_names() -> list[str]:
    """Names of all files that any format writes: what may be replaced in an output folder."""
    return [kind.file for kind in FORMATS.values()]
