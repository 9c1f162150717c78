"""Reading CT scans into :class:`mmpluld.structures.CTVolume` and writing volumes and findings."""

from __future__ import annotations

from mmpluld.io.readers import VOLUME_SUFFIXES, read_volume
from mmpluld.io.writers import write_findings_csv, write_volume

__all__ = ["VOLUME_SUFFIXES", "read_volume", "write_findings_csv", "write_volume"]
