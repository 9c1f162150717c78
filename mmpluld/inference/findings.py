"""What a detector found in one scan, and how it is written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mmpluld.inference.formats import DEFAULT_FORMATS, check_formats, check_scan, output_names
from mmpluld.inference.output import output_folder
from mmpluld.inference.tables import findings_html, findings_of_frame, findings_text, frame_of_findings
from mmpluld.inputs import own_path
from mmpluld.structures import CTVolume, Finding, ScanFindings
from mmpluld.typing import StrPath

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

__all__ = ["Findings"]


@dataclass(frozen=True, eq=False, repr=False)
class Findings(ScanFindings):
    """The findings of one scan, as :class:`~mmpluld.inference.Detector` returns them: a sequence, best score first.

    Example:
        >>> findings = Detector()("scan.nii.gz")
        >>> print(findings)                         # a table
        >>> findings[0].box_world_lps               # each is a Finding
        >>> findings[:5].save("five")               # some are Findings again
        >>> findings.plot().savefig("findings.png")
        >>> findings.save("out", ["json", "html"])
    """

    def __str__(self) -> str:
        return findings_text(self)

    def __repr__(self) -> str:
        best = f", best score {max(item.score for item in self):.2f}" if self.findings else ""
        return f"<Findings in {self.name!r}: {len(self)}{best}>"

    def _repr_html_(self) -> str:
        return findings_html(self)

    def plot(self, most: int = 6) -> Figure:
        """Draw the key slices of the best findings with their boxes; nothing is shown by this.

        Args:
            most: Findings to draw.

        Returns:
            A matplotlib figure; a notebook shows it, ``figure.savefig(path)`` writes it.

        Raises:
            InputError: If ``most`` is below 1.
        """
        from mmpluld.visualization.finding_plot import plot_findings

        return plot_findings(self.volume, self.findings, most)

    def to_pandas(self) -> DataFrame:
        """One row for each finding, with its box in canonical voxels, in voxels of the file and in LPS mm.

        Raises:
            InputError: pandas is not installed.

        Example:
            >>> frame = findings.to_pandas()
            >>> large = Findings.from_pandas(frame[frame.long_mm >= 10], findings)
        """
        return frame_of_findings(self)

    @classmethod
    def from_pandas(cls, frame: DataFrame, findings: ScanFindings) -> Findings:
        """Findings from rows of :meth:`to_pandas`, whichever are left.

        Args:
            frame: The rows. What is changed in a box is changed in ``x1`` to ``z2``; drop the columns that follow.
            findings: Those that the rows come from. Their scan, its name and what was done to it stay.

        Raises:
            InputError: A column is missing, a value is not allowed, or columns contradict each other.
        """
        made = findings_of_frame(frame, findings.volume)
        return cls(findings.name, findings.volume, made, findings.details)

    def only(self, wanted: Callable[[Finding], bool]) -> Findings:
        """The findings that are wanted, with all that is known of the scan.

        Example:
            >>> sure = findings.only(lambda finding: finding.score > 0.3)
        """
        return replace(self, findings=tuple(filter(wanted, self.findings)))

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
            identifiers: Say whose scan it is, as far as a format can; else its file name alone.

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
    return replace(volume, source=own_path(Path(volume.source)).name, identifiers=())
