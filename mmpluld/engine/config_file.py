"""A complete config as one file that needs no other."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from mmengine.config import Config

from mmpluld.atomic import atomic_write_text
from mmpluld.errors import InputError
from mmpluld.outputs import check_output_file

__all__ = ["require_replaceable", "write_config"]


def write_config(config: Config, path: str | os.PathLike[str], overwrite: bool = False) -> Path:
    """Write a config with all its bases resolved, so that it can be read by path, and return the path.

    Args:
        config: What ``load_config`` returned.
        path: File to write, ending in ``.py``.
        overwrite: Replace a file that has other content.

    Raises:
        InputError: If ``path`` does not end in ``.py``, is a folder or cannot be written, or such a file is there.
    """
    target = Path(path)
    if target.suffix != ".py":
        raise InputError(f"{target}: a config is a .py file; change the suffix")
    check_output_file(target)
    text = str(config.pretty_text)
    require_replaceable(target, lambda: target.read_bytes() == text.encode(), overwrite)
    atomic_write_text(target, text)
    return target


def require_replaceable(path: Path, is_same: Callable[[], bool], overwrite: bool) -> None:
    """Refuse to write over something of other content unless told to.

    Args:
        path: File to write.
        is_same: Whether the file that is there has the content that is written.
        overwrite: Other content may be replaced.

    Raises:
        InputError: If there is something else at ``path``.
    """
    if path.exists() and not overwrite and not (path.is_file() and is_same()):
        raise InputError(f"{path}: is there with other content; --overwrite replaces it")
