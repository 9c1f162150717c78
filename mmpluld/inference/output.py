"""Output folders that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from mmpluld.errors import InputError

__all__ = ["output_folder"]


@contextmanager
def output_folder(path: str | os.PathLike[str], names: Collection[str], overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary folder beside ``path`` that takes its place when the block ends well.

    If the block raises, the temporary folder is removed and ``path`` is left as it was.

    Args:
        path: The folder to make.
        names: The files the block will write. An existing folder is replaced only if it holds nothing else, so
            that no other file is ever deleted.
        overwrite: Whether an earlier output may be replaced; an empty folder always may.

    Raises:
        InputError: If ``path`` may not be replaced or its parent cannot be written to. Nothing has been done then.
    """
    target = Path(path).resolve()
    _check_target(target, names, overwrite)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".tmp-", suffix=f"-{target.name}", dir=target.parent))
    except OSError as error:
        raise InputError(f"{target}: cannot be written ({error.strerror}); choose another folder") from None
    try:
        yield temporary
        # mkdtemp makes folders for the owner alone; give the final one the usual permissions.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o777 & ~umask)
        _replace(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _check_target(target: Path, names: Collection[str], overwrite: bool) -> None:
    if not target.exists():
        return
    if not target.is_dir():
        raise InputError(f"{target}: is a file; give a folder to write to")
    present = sorted(item.name for item in target.iterdir())
    if present and not overwrite:
        raise InputError(f"{target}: holds {present[0]} already; give another folder, or --overwrite to replace it")
    foreign = [name for name in present if name not in names]
    if foreign:
        raise InputError(f"{target}: holds {foreign[0]}, which is no output of this command; give another folder")


def _replace(temporary: Path, target: Path) -> None:
    """Put ``temporary`` where ``target`` is or was."""
    if not target.exists() or not any(target.iterdir()):
        os.replace(temporary, target)
        return
    aside = temporary.with_name(temporary.name + ".old")
    os.replace(target, aside)
    try:
        os.replace(temporary, target)
    except OSError:
        os.replace(aside, target)
        raise
    shutil.rmtree(aside)
