"""The folder that a phantom is written to."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from mmpluld.atomic import atomic_write_text, is_unfinished, unfinished
from mmpluld.errors import InputError
from mmpluld.outputs import LOCK, folder_lock
from mmpluld.structures.text_files import read_json

__all__ = ["SETTINGS", "phantom_folder"]

SETTINGS = "phantom.json"
"""Name of the file that says what the phantom in a folder is."""

_EVERY_LAYOUT = (SETTINGS, "truth", "annotations", "volumes", ".tmp-*")  # annotations and volumes: the converters'


@contextmanager
def phantom_folder(root: Path, settings: Mapping[str, Any], names: Sequence[str], overwrite: bool) -> Iterator[None]:
    """Write a phantom into an empty folder, its settings first; one of the same layout is emptied before.

    During the block the folder is held by this process, and its settings file is marked as unfinished; if the block
    does not come to its end, the next call empties the folder and starts again, whatever ``overwrite`` says.

    Args:
        root: The folder.
        settings: What is noted of it, with ``layout`` and ``seed``.
        names: Patterns of what the layout has at the top. What was converted of a phantom is removed with it.
        overwrite: Whether a whole phantom may be removed.

    Raises:
        InputError: The seed is negative; the folder is in use and may not be emptied, holds anything that no phantom of
            the layout has, cannot be written to, or is held by another process.
    """
    if settings["seed"] < 0:
        raise InputError(f"phantom seed={settings['seed']}: must be 0 or more")
    with folder_lock(root):
        entries = _removable(root, settings["layout"], names, overwrite)
        with unfinished([root / SETTINGS]):
            for entry in entries:
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry)
                else:
                    entry.unlink()
            atomic_write_text(root / SETTINGS, json.dumps(settings, indent=1) + "\n")
            yield


def _removable(root: Path, layout: str, names: Sequence[str], overwrite: bool) -> list[Path]:
    """What is to be removed from the folder; refused if it may not be."""
    entries = [entry for entry in sorted(root.iterdir()) if entry.name not in (LOCK, f".unfinished-{SETTINGS}")]
    begun = is_unfinished(root / SETTINGS)
    if entries and not overwrite and not begun:
        raise InputError(f"{root}: exists and is not an empty folder; choose another or allow overwriting")
    if entries and _layout(root) != layout and not (begun and not (root / SETTINGS).exists()):
        raise InputError(f"{root}: holds no {layout} phantom, so it is not overwritten; choose another")
    for entry in entries:
        if not any(fnmatch(entry.name, name) for name in (*_EVERY_LAYOUT, *names)):
            raise InputError(f"{entry}: is no part of a {layout} phantom; move it away, or choose another folder")
    return entries


def _layout(root: Path) -> object:
    try:
        settings = read_json(root / SETTINGS, "the settings of a phantom")
    except InputError:
        return None
    return settings.get("layout") if isinstance(settings, dict) else None
