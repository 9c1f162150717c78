"""The folder that a phantom is written to."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from mmpluld.errors import InputError
from mmpluld.structures.text_files import read_json

__all__ = ["SETTINGS", "clear"]

SETTINGS = "phantom.json"
"""Name of the file that says what the phantom in a folder is."""

_EVERY_LAYOUT = (SETTINGS, "truth", "annotations", "volumes", ".tmp-*")  # annotations and volumes: the converters'


def clear(root: Path, layout: str, names: Sequence[str], overwrite: bool) -> None:
    """Make an empty folder; one that holds a phantom of the same layout, and what was converted of it, is emptied.

    Args:
        root: The folder.
        layout: As written to the settings.
        names: Patterns of what the layout has at the top.
        overwrite: Whether a phantom may be removed.

    Raises:
        InputError: The folder is in use and may not be emptied, or holds anything that no phantom of the layout has.
    """
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        if not overwrite:
            raise InputError(f"{root}: exists and is not an empty folder; choose another or allow overwriting")
        if _layout(root) != layout:
            raise InputError(f"{root}: holds no {layout} phantom, so it is not overwritten; choose another")
        entries = sorted(root.iterdir())
        for entry in entries:
            if not any(fnmatch(entry.name, name) for name in (*_EVERY_LAYOUT, *names)):
                raise InputError(f"{entry}: is no part of a {layout} phantom; move it away, or choose another folder")
        for entry in entries:
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
    root.mkdir(parents=True, exist_ok=True)


def _layout(root: Path) -> object:
    try:
        settings = read_json(root / SETTINGS, "the settings of a phantom")
    except InputError:
        return None
    return settings.get("layout") if isinstance(settings, dict) else None
