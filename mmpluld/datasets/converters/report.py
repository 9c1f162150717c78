"""What a conversion did, for the caller to print."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from mmpluld.datasets.converters.pseudo_masks import MaskOrigin
from mmpluld.errors import counted, name_some

__all__ = ["LEFT_OUT", "ConversionReport", "DroppedRow", "SplitCounts"]

LEFT_OUT = "volume left out"
"""What a report says of a volume that could not be converted."""
_LISTED = 5


@dataclass(frozen=True)
class SplitCounts:
    """Size of one written split; ``key_slices`` is None for a dataset without key slices."""

    volumes: int
    key_slices: int | None
    lesions: int


@dataclass(frozen=True)
class DroppedRow:
    """A row of the raw annotation file that gave no lesion.

    Attributes:
        row: Row index from 0, the header not counted.
        line: Line of the file from 1, as editors count.
        reason: Why, in words; the same words for the same reason.
        item: What it was about.
    """

    row: int
    line: int
    reason: str
    item: str


@dataclass
class ConversionReport:
    """Outcome of a conversion.

    Attributes:
        files: The annotation file of every split.
        splits: Their sizes.
        dropped: Rows that gave no lesion.
        missing_slices: For each series, how many slices that its annotations mention have no image.
        masks: How many masks came from GrabCut, from the RECIST mark alone, and from the box alone.
        tagged: How many lesions have tags; None where no tags were given.
        numbered: How many lesions have the number of their lesion within the patient; None where no pairs were given.
        unknown_spacing: Series whose voxel size is not known on some axis.
        remarks: What was found amiss or decided, in words -> the files or lesions it concerns.
    """

    files: dict[str, Path] = field(default_factory=dict)
    splits: dict[str, SplitCounts] = field(default_factory=dict)
    dropped: list[DroppedRow] = field(default_factory=list)
    missing_slices: dict[str, int] = field(default_factory=dict)
    masks: Counter[MaskOrigin] = field(default_factory=Counter)
    tagged: int | None = None
    numbered: int | None = None
    unknown_spacing: list[str] = field(default_factory=list)
    remarks: dict[str, list[str]] = field(default_factory=dict)

    def remark(self, what: str, item: str) -> None:
        """Note that ``what`` holds for ``item``."""
        self.remarks.setdefault(what, []).append(item)

    def summary(self) -> str:
        """Return a few lines of text: files and sizes, then what was left out and why."""
        lines = [
            f"{self.files[name]}: {counted(count.lesions, 'lesion')}"
            + (f" on {counted(count.key_slices, 'key slice')}" if count.key_slices is not None else "")
            + f", {counted(count.volumes, 'volume')}"
            for name, count in self.splits.items()
        ]
        for reason, count in Counter(row.reason for row in self.dropped).items():
            rows = [f"line {row.line} ({row.item})" for row in self.dropped if row.reason == reason]
            lines.append(f"dropped, {reason}: {counted(count, 'row')}: {name_some(rows, _LISTED)}")
        if self.masks:
            lines.append(
                f"masks: {self.masks['grabcut']} by GrabCut, {self.masks['recist']} from the RECIST mark alone, "
                f"{self.masks['ellipse']} from the box alone"
            )
        if self.tagged is not None:
            total = sum(count.lesions for count in self.splits.values())
            lines.append(f"tags: {self.tagged} of {total} lesions have them")
        if self.numbered is not None:
            lines.append(f"lesion pairs: {self.numbered} marks are of a lesion that has several")
        if self.missing_slices:
            total = sum(self.missing_slices.values())
            lines.append(
                f"no image for {counted(total, 'slice')} of {len(self.missing_slices)} series "
                f"(the nearest existing slice stands in): {name_some(list(self.missing_slices), _LISTED)}"
            )
        if self.unknown_spacing:
            count = len(self.unknown_spacing)
            lines.append(f"voxel size unknown: {count} series: {name_some(self.unknown_spacing, _LISTED)}")
        lines += [f"{what}: {len(items)}: {name_some(items, _LISTED)}" for what, items in self.remarks.items()]
        return "\n".join(lines)
