"""What a detector found in one scan, and the files it can be written to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import overload

from mmpluld.inference.formats import DEFAULT_FORMATS, check_formats, output_names
from mmpluld.inference.output import output_folder
from mmpluld.structures import CTVolume, DetectionSet, Finding, findings_to_detections
from mmpluld.typing import StrPath

__all__ = ["ScanFindings"]


@dataclass(frozen=True, eq=False)
class ScanFindings(Sequence[Finding]):
    """The findings of one scan, best score first, with the scan itself.

    Attributes:
        name: Of the scan in records: its file name without suffix.
        volume: The scan; its history says how it was read and examined, and by which model.
        findings: What was found.
        details: What was done, name to text, such as the model and its score threshold.
    """

    name: str
    volume: CTVolume
    findings: tuple[Finding, ...]
    details: Mapping[str, str]

    def __len__(self) -> int:
        return len(self.findings)

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    @overload
    def __getitem__(self, index: int) -> Finding: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Finding, ...]: ...
    def __getitem__(self, index: int | slice) -> Finding | tuple[Finding, ...]:
        return self.findings[index]

    @property
    def detections(self) -> DetectionSet:
        """The detection record, in voxels of the scan's file; ``mmpluld evaluate`` reads it."""
        return DetectionSet({self.name: findings_to_detections(self.findings, self.volume)})

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
            InputError: If a format is unknown, or ``out`` may not be replaced.
        """
        check_formats(formats)
        with output_folder(out, output_names(), overwrite) as folder:
            names = self.write(folder, formats, identifiers)
        return [Path(out) / name for name in names]

    def write(self, folder: Path, formats: Sequence[str], identifiers: bool = False) -> list[str]:
        """Write the files of :meth:`save` into a folder that is there; returns their names."""
        chosen = check_formats(formats)
        public = replace(self, volume=_named(self.volume, identifiers))
        for kind in chosen:
            kind.write(folder / kind.file, public, identifiers)
        return [kind.file for kind in chosen]


def _named(volume: CTVolume, identifiers: bool) -> CTVolume:
    """The volume as outputs name it; folders above a scan often are named after the patient."""
    if identifiers:
        return replace(volume, history=(*volume.identifiers, *volume.history))
    return replace(volume, source=Path(volume.source).resolve().name, identifiers=())
