"""A complete config as one file that needs no other."""

from __future__ import annotations

import os
from pathlib import Path

from mmengine.config import Config

from mmpluld.atomic import atomic_write_text
from mmpluld.errors import InputError
from mmpluld.outputs import check_output_file

__all__ = ["write_config"]


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
    if target.exists() and not overwrite and not (target.is_file() and target.read_bytes() == _text(config).encode()):
        raise InputError(f"{target}: is there with other content; --overwrite replaces it")
    atomic_write_text(target, _text(config))
    return target


def _text(config: Config) -> str:
    return str(config.pretty_text)
