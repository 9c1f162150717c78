"""The splits of a converted dataset, and where their annotations are."""

from __future__ import annotations

from pathlib import Path

__all__ = ["SPLITS", "annotation_paths"]

SPLITS = ("train", "val", "test")


def annotation_paths(root: Path) -> dict[str, Path]:
    """Split -> its annotation file below the folder of a dataset; it need not exist."""
    return {split: root / "annotations" / f"{split}.json" for split in SPLITS}
