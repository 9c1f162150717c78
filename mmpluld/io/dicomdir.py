"""DICOMDIR: the table of contents of a medium, which names the files of each series."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmpluld.errors import InputError
from mmpluld.inputs import regular_file
from mmpluld.io.dicom_files import DICOMDIR, DicomFolder, header_text, open_dicom
from mmpluld.io.faults import quiet, reading

__all__ = ["NamedFile", "add_missing", "is_dicomdir", "named_files"]


@dataclass(frozen=True)
class NamedFile:
    """A file that a DICOMDIR names: where it is or would be, and the SeriesInstanceUID of its series ("" if none)."""

    file: Path
    series: str


def is_dicomdir(file: Path) -> bool:
    """Whether a file is called DICOMDIR, in whatever case, or DICOMDIR with an ending."""
    return file.name.upper().split(".")[0] == "DICOMDIR"


def named_files(dicomdir: Path) -> list[NamedFile]:
    """The files that a DICOMDIR names, whether they are there or not.

    Media have names in capital letters, copies of them often have not; a name counts in whatever case.

    Raises:
        InputError: It is no DICOMDIR, or names a file outside of its folder.
    """
    regular_file(dicomdir, "a DICOMDIR")
    with quiet("pydicom"), reading(dicomdir, "DICOMDIR"), dicomdir.open("rb") as stream:
        header = open_dicom(stream)
        storage = header_text(header, "SOPClassUID") or header_text(header.file_meta, "MediaStorageSOPClassUID")
        if storage != DICOMDIR or "DirectoryRecordSequence" not in header:
            raise InputError(f"{dicomdir}: is called so, but is no DICOMDIR; give the folder of the series")
        found = list(_leaves(header))
    folders: dict[Path, dict[str, Path]] = {}
    return [NamedFile(_place(dicomdir, parts, folders), series) for parts, series in found]


def add_missing(found: DicomFolder) -> list[str]:
    """Fill in the files that DICOMDIRs among the files name and that are not there; return notes on those unread."""
    notes = []
    for dicomdir in found.dicomdirs:
        try:
            named = named_files(dicomdir)
        except InputError:  # whose text has a path, which does not belong into a history
            notes.append(
                f"{dicomdir.name} not used, which could have told of missing files; it alone as the input tells why"
            )
            continue
        for item in named:
            if item.series and not item.file.exists():
                found.missing.setdefault(item.series, []).append(item.file)
    return notes


def _leaves(header: Any) -> Iterator[tuple[tuple[str, ...], str]]:
    """Parts of the name of each file, and its series; records are linked by their places in the file."""
    records = {int(record.seq_item_tell): record for record in header.DirectoryRecordSequence}
    seen: set[int] = set()
    waiting = [(int(header.get("OffsetOfTheFirstDirectoryRecordOfTheRootDirectoryEntity") or 0), "")]
    while waiting:
        place, series = waiting.pop()
        if not place or place in seen:  # the end, or records that are linked in a circle
            continue
        if place not in records:
            raise EOFError("a record is missing")
        seen.add(place)
        record = records[place]
        waiting.append((int(record.get("OffsetOfTheNextDirectoryRecord") or 0), series))
        if record.get("DirectoryRecordType") == "SERIES":
            series = header_text(record, "SeriesInstanceUID")
        waiting.append((int(record.get("OffsetOfReferencedLowerLevelDirectoryEntity") or 0), series))
        parts = header_text(record, "ReferencedFileID")
        if parts:
            yield tuple(parts.split("\\")), series


def _place(dicomdir: Path, parts: tuple[str, ...], folders: dict[Path, dict[str, Path]]) -> Path:
    """The file of a name, in the case that it has on this disk."""
    if any(part in ("", ".", "..") or "/" in part or ":" in part for part in parts):
        raise InputError(
            f"{dicomdir}: names {chr(92).join(parts)!r}, which is outside of its folder; give the folder of the series"
        )
    place = dicomdir.parent
    for part in parts:
        if place not in folders:
            try:
                folders[place] = {item.name.upper(): item for item in sorted(place.iterdir())}
            except OSError:
                folders[place] = {}
        exact = place / part
        place = exact if exact in folders[place].values() else folders[place].get(part.upper(), exact)
    return place
