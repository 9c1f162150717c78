"""A folder of the findings of many scans: a result folder each, a table of all, and what they were made with."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from mmpluld.atomic import atomic_write_text, remove_abandoned
from mmpluld.compat.system import lock_file
from mmpluld.errors import InputError
from mmpluld.inference.collected import COLLECTED, collect, remove_collected
from mmpluld.io.scan_choice import place_digest
from mmpluld.io.scans import HEADER, Scan
from mmpluld.io.shards import note_version
from mmpluld.io.writers import plain_cell
from mmpluld.structures.text_files import read_json
from mmpluld.typing import StrPath
from mmpluld.version import __version__

__all__ = ["RESERVED", "SUMMARY", "Row", "ScanStore"]

SUMMARY = "summary.csv"
RESERVED = (HEADER, SUMMARY, ".lock", *COLLECTED)
"""Names in the folder that no result has."""
_SCHEMA = "mmpluld.scans/1"


@dataclass(frozen=True)
class Row:
    """What became of one scan.

    Attributes:
        scan: Name of the scan and of its result folder.
        status: ``begun`` (to be examined, or cut off), ``done``, ``refused`` (bad input) or ``failed``.
        findings: How many findings; "" where it is not done.
        best_score: Of the findings; "" if there is none.
        message: Why it is not done.
        result: What lies in its folder: ``whole``, its result; ``earlier``, one of the scan as it was or of other
            settings, if there is any; "" where nothing lies that is ours.
        input_digest: Of the names and sizes of its files, and of samples of their content.
        place_digest: Of the UID of its series, or of where it lies: another one for other scans of its name.
    """

    scan: str
    status: str
    findings: str = ""
    best_score: str = ""
    message: str = ""
    result: str = ""
    input_digest: str = ""
    place_digest: str = ""

    @property
    def may_be_replaced(self) -> bool:
        """Whether the folder of its name is ours; else it is another's."""
        return bool(self.result)

    def again(self) -> Row:
        """The row of a scan that is to be examined once more."""
        result = "earlier" if self.may_be_replaced else ""
        return replace(self, status="begun", findings="", best_score="", message="", result=result)


_COLUMNS = [field.name for field in fields(Row)]


class ScanStore:
    """The folder; any number of processes may write results of different scans.

    Args:
        folder: The folder, which need not be there.
    """

    def __init__(self, folder: StrPath) -> None:
        self.folder = Path(folder)

    def exists(self) -> bool:
        """Whether the folder is one of many scans."""
        return (self.folder / HEADER).exists()

    def open(self, settings: Mapping[str, Any], names: Collection[str], overwrite: bool = False) -> None:
        """Make the folder, or go on with the one that is there.

        Args:
            settings: All that decides what the results are.
            names: Of the scans that are to be examined.
            overwrite: Forget what is known of these scans, so that they are examined again.

        Raises:
            InputError: It holds results that were made with other settings, or cannot be written to.
        """
        wanted = json.loads(json.dumps({"schema": _SCHEMA, **settings}))
        path = self.folder / HEADER
        remove_abandoned(self.folder)
        rows = self.rows() if path.exists() else {}
        kept = {name: row for name, row in rows.items() if not (overwrite and name in names)}
        again = {name: row.again() for name, row in rows.items() if row.may_be_replaced}
        if path.exists():
            found = read_json(path, f"a folder that `mmpluld detect` made, with {HEADER}")
            if not isinstance(found, dict):
                raise InputError(f"{path}: is no object; restore it, or choose another folder")
            differing = [name for name in wanted if found.get(name) != wanted[name]]
            if differing and (kept or not overwrite):
                name = differing[0]
                step = "give another folder" if overwrite else "give another folder, or --overwrite to replace them"
                raise InputError(
                    f"{path}: results of {len(kept)} scans there were made with {name} {_short(found.get(name))}, not "
                    f"{_short(wanted[name])}; {step}"
                )
            if kept:
                note_version(path, found)
        if rows != kept:
            self._write({**again, **kept})  # before the header: what is not known any more is examined again
        atomic_write_text(path, json.dumps(wanted | {"version": __version__}, indent=1) + "\n")
        if not (self.folder / SUMMARY).exists():
            self._write({})

    def rows(self) -> dict[str, Row]:
        """What is known of each scan, by name.

        Raises:
            InputError: The table is not one that :meth:`record` wrote.
        """
        path = self.folder / SUMMARY
        try:
            with path.open(newline="", encoding="utf-8") as stream:
                table = list(csv.reader(stream))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, csv.Error) as error:
            raise InputError(f"{path}: cannot be read ({error}); remove it to examine all scans again") from None
        if not table or table[0] != _COLUMNS or any(len(row) != len(_COLUMNS) for row in table):
            raise InputError(f"{path}: is not as it was written; remove it to examine all scans again")
        return {row[0]: Row(*row) for row in table[1:]}

    def names(self, wanted: Sequence[str], scans: Sequence[Scan]) -> list[str]:
        """Names of the results of scans: those that they have here already, else those wanted, with a hash behind what
        is the name of another scan's here.

        Args:
            wanted: A name for each, unique.
            scans: The scans.
        """
        rows = self.rows()
        names: list[str] = []
        for name, scan in zip(wanted, scans, strict=True):
            place, row = place_digest(scan), rows.get(name)
            moved = row is not None and bool(scan.digest) and row.input_digest == scan.digest
            if row is None or not (moved or row.place_digest == place):
                # Copies of one series have one place digest: each takes another of its names.
                free = (other for other in rows if other not in wanted and other not in names)
                earlier = next((other for other in free if rows[other].place_digest == place), None)
                hashed = name if row is None and name not in names else f"{name}-{place[:8]}"
                name = hashed if earlier is None else earlier
            names.append(name)
        return names

    def is_done(self, name: str, digest: str, files: Sequence[str], rows: Mapping[str, Row]) -> bool:
        """Whether a scan has a whole result, of the files that it still has."""
        row = rows.get(name)
        if row is None or row.status != "done" or row.input_digest != digest:
            return False
        if row.findings == "0":  # of which some formats write no file
            return (self.folder / name).is_dir()
        return all((self.folder / name / file).exists() for file in files)

    def record(self, row: Row) -> None:
        """Put a row into the table, in place of an earlier one."""
        with self._locked():
            self._write({**self.rows(), row.scan: replace(row, message=plain_cell(row.message))})

    def collect(self, scans: Collection[str], formats: Collection[str]) -> list[Path]:
        """Write all results that are there into one record and one table, if none of some scans is still to come.

        So of several processes the last one does; until then both files are missing.

        Args:
            scans: Names of those that are examined now.
            formats: What each result has.

        Returns:
            The files.

        Raises:
            InputError: See :func:`~mmpluld.inference.collected.collect`.
        """
        with self._locked():
            rows = self.rows()
            if any(name not in rows or rows[name].status == "begun" for name in scans):
                return []
            return collect(self.folder, [name for name, row in rows.items() if row.status == "done"], formats)

    def begin(self, scans: Mapping[str, str]) -> None:
        """Say of scans, with their ``place_digest``, that they are to be examined; remove what :meth:`collect` wrote
        without them.
        """
        remove_collected(self.folder)
        with self._locked():
            rows = self.rows()
            begun = {
                name: replace(rows.get(name, Row(name, "begun")).again(), place_digest=place)
                for name, place in scans.items()
            }
            self._write({**rows, **begun})

    def _write(self, rows: Mapping[str, Row]) -> None:
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(_COLUMNS)
        writer.writerows([getattr(rows[name], column) for column in _COLUMNS] for name in sorted(rows))
        atomic_write_text(self.folder / SUMMARY, stream.getvalue())

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the table, of which a row is changed, against the other processes of a run."""
        handle = os.open(self.folder, os.O_RDONLY)
        try:
            with suppress(OSError):  # a file system without locks
                lock_file(handle)
            yield
        finally:
            os.close(handle)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
