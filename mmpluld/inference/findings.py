"""What a detector found in one scan, and how it is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mmpluld.inference.formats import DEFAULT_FORMATS, check_formats, check_scan, output_names
from mmpluld.inference.output import output_folder
from mmpluld.structures import CTVolume, ScanFindings
from mmpluld.typing import StrPath

__all__ = ["Findings"]


@dataclass(frozen=True, eq=False)
class Findings(ScanFindings):
    """The findings of one scan, as :class:`~mmpluld.inference.Detector` returns them."""

    def save(
        self,
        out: StrPath,
        formats: Sequence[str] = DEFAULT_FORMATS,
        overwrite: bool = False,
        identifiers: bool = False,
    ) -> list[Path]:
        """Write the findings into a folder, which appears whole or not at all.

        Args:
            out: Folder to make.
            formats: Names of :data:`~mmpluld.inference.formats.FORMATS`.
            overwrite: Replace an earlier output.
            identifiers: Write the scan's path and the UID of its series, too; else its file name alone.

        Returns:
            The files, in the order of ``formats``.

        Raises:
            InputError: If a format is unknown or cannot hold the scan's findings, or ``out`` may not be replaced.
        """
        check_formats(formats)
        check_scan(formats, self.volume)
        with output_folder(out, output_names(), overwrite) as folder:
            names = self.write(folder, formats, identifiers)
        return [Path(out) / name for name in names]

    def write(self, folder: Path, formats: Sequence[str], identifiers: bool = False) -> list[str]:
        """Write the files of :meth:`save` into a folder that is there; returns their names."""
        chosen = check_formats(formats)
        public = replace(self, volume=_named(self.volume, identifiers))
        for kind in chosen:
            kind.write(folder / kind.file, public, identifiers)
        names = [name for kind in chosen for name in (kind.file, *kind.more)]
        return [name for name in names if (folder / name).exists()]


def _named(volume: CTVolume, identifiers: bool) -> CTVolume:
    """The volume as outputs name it; folders above a scan often are named after the patient."""
    if identifiers:
        return replace(volume, history=(*volume.identifiers, *volume.history))
    return replace(volume, source=Path(volume.source).resolve().name, identifiers=())
