"""Findings as candidates of the LUNA16 challenge."""

from __future__ import annotations

import csv
import io

import numpy as np

from mmpluld.atomic import atomic_write_text
from mmpluld.io.writers import plain_cell
from mmpluld.structures import ScanFindings
from mmpluld.typing import StrPath

__all__ = ["write_luna16"]

_COLUMNS = ("seriesuid", "coordX", "coordY", "coordZ", "probability")
_UID = "SeriesInstanceUID "


def write_luna16(path: StrPath, found: ScanFindings, identifiers: bool) -> None:
    """Write one row a finding: the scan, the centre of the box in LPS mm, and the score.

    Args:
        path: File to write.
        found: The findings.
        identifiers: Name the scan by its SeriesInstanceUID, if it has one; else by its name.

    Source: A. A. A. Setio et al., "Validation, comparison, and combination of algorithms for automatic detection of
    pulmonary nodules in computed tomography images: The LUNA16 challenge", Medical Image Analysis 42, 2017.
    """
    uids = [text.removeprefix(_UID) for text in found.volume.identifiers if text.startswith(_UID)]
    name = uids[0] if identifiers and uids else found.name
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for finding in found:
        centre = np.array(finding.box_world_lps).reshape(2, 3).mean(axis=0)
        writer.writerow([plain_cell(name), *(f"{value:.4f}" for value in centre), f"{finding.score:.9g}"])
    atomic_write_text(path, text.getvalue())
