"""What a scan's file holds by its first bytes, whatever its name says."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

__all__ = ["content_kind"]

_NIFTI = ((344, b"n+1\0"), (4, b"n+2\0"))
_FIRST = 348  # bytes, up to the end of the last mark
_GZIP = b"\x1f\x8b"


def content_kind(file: Path) -> tuple[str, tuple[str, ...]] | None:
    """Name of the format and its endings; None if the first bytes tell none, or cannot be read.

    DICOM has no endings, it is read from folders.
    """
    if not file.is_file():  # opening a pipe would wait for whoever writes it
        return None
    try:
        with file.open("rb") as stream:
            start = stream.read(_FIRST)
        packed = start.startswith(_GZIP)
        if packed:
            with gzip.open(file) as content:
                start = content.read(_FIRST)
    except (OSError, EOFError, zlib.error):
        return None
    if any(start[place : place + len(mark)] == mark for place, mark in _NIFTI):
        return "NIfTI", (".nii.gz", ".nii") if packed else (".nii", ".nii.gz")
    if packed:
        return None
    if start.startswith(b"NRRD000"):
        return "NRRD", (".nrrd", ".nhdr")
    if start.startswith((b"ObjectType", b"NDims")):
        return "MetaImage", (".mha", ".mhd")
    return ("DICOM", ()) if start[128:132] == b"DICM" else None
