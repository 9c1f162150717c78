"""The results of many scans as one record and one table, beside the folders of each."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Sequence
from pathlib import Path

from mmpluld.atomic import atomic_write_text, writing
from mmpluld.errors import InputError
from mmpluld.inference.formats import FORMATS
from mmpluld.structures import DetectionSet

__all__ = ["COLLECTED", "collect", "remove_collected"]

COLLECTED = (FORMATS["json"].file, FORMATS["csv"].file)
"""Names of the files."""


def collect(folder: Path, scans: Sequence[str], formats: Collection[str]) -> list[Path]:
    """Write the record and the table of scans that have a result each, as far as ``formats`` hold them.

    In the record the id of a volume is the name of its result; so is the first column of the table. A result whose
    files somebody has removed is left out.

    Args:
        folder: Of the results.
        scans: Names of the results.
        formats: What each of them has.

    Returns:
        The files that were written.

    Raises:
        InputError: A result is not as it was written, or the files cannot be written.
    """
    written = []
    if "json" in formats and (files := _present(folder, scans, FORMATS["json"].file)):
        record = DetectionSet()
        for file in files.values():
            record.volumes.update(DetectionSet.load(file).volumes)
        written.append(folder / FORMATS["json"].file)
        record.save(written[-1])
    if "csv" in formats and (files := _present(folder, scans, FORMATS["csv"].file)):
        written.append(folder / FORMATS["csv"].file)
        atomic_write_text(written[-1], _table(files))
    return written


def remove_collected(folder: Path) -> None:
    """Remove both files, which would not tell of what is now being found.

    Raises:
        InputError: They cannot be removed.
    """
    for name in COLLECTED:
        with writing(folder / name, anything=True):
            (folder / name).unlink(missing_ok=True)


def _present(folder: Path, scans: Sequence[str], file: str) -> dict[str, Path]:
    return {name: folder / name / file for name in sorted(scans) if (folder / name / file).is_file()}


def _table(files: dict[str, Path]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns: list[str] = []
    for name, file in files.items():
        with file.open(newline="", encoding="utf-8") as stream:
            header, *rows = list(csv.reader(stream)) or [[]]
        if not columns:
            columns = header
            writer.writerow(["scan", *columns])
        if header != columns or any(len(row) != len(columns) for row in rows):
            raise InputError(f"{file}: is not as it was written; remove {file.parent} and run the command again")
        writer.writerows([name, *row] for row in rows)
    return text.getvalue()
