"""Output folders that appear whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from mmpluld.atomic import TEMPORARY, give_usual_mode, temporary_folder, unwritable, writing
from mmpluld.errors import InputError
from mmpluld.outputs import check_output_folder, hold

__all__ = ["check_free", "output_folder"]


def check_free(path: str | os.PathLike[str], names: Collection[str], overwrite: bool = False) -> None:
    """Refuse at once what :func:`output_folder` would.

    Raises:
        InputError: As there.
    """
    check_output_folder(path)
    target = Path(path).resolve()
    _check_target(target, target, names, overwrite)


@contextmanager
def output_folder(path: str | os.PathLike[str], names: Collection[str], overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary folder beside ``path`` that takes its place when the block ends well.

    If the block raises, the temporary folder is removed and ``path`` is left as it was.

    Args:
        path: The folder to make.
        names: The files the block will write. An existing folder is replaced only if it holds nothing else, so
            that no other file is ever deleted, not even one that came there during the block.
        overwrite: Whether an earlier output may be replaced; an empty folder always may.

    Raises:
        InputError: If ``path`` may not be replaced or its parent cannot be written to; a BusyError if another process
            makes it. Nothing has been done then.
    """
    check_free(path, names, overwrite)
    target = Path(path).resolve()
    check_output_folder(target.parent)  # where the temporary folder lies
    with writing(target, anything=True):
        target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]  # of all of a name that may be as long as any
    lock = target.with_name(f"{TEMPORARY}lock-{digest}")  # removed as abandoned where nobody holds it
    with hold(lock, target), temporary_folder(target) as temporary:
        try:
            yield temporary
        except InputError as error:  # the name of the temporary tells nobody anything
            raise type(error)(str(error).replace(str(temporary), str(path))) from error
        give_usual_mode(temporary)
        _replace(temporary, target, names, overwrite)


def _check_target(folder: Path, target: Path, names: Collection[str], overwrite: bool) -> None:
    """Refuse what ``folder`` holds, which is or was at ``target``, if it may not be removed."""
    if not folder.exists():
        return
    present = sorted(item.name for item in folder.iterdir())
    if present and not overwrite:
        raise InputError(
            f"{target}: holds {present[0]} already; give another folder, or --overwrite (Python: overwrite=True) to "
            "replace it"
        )
    foreign = [name for name in present if name not in names]
    if foreign:
        raise InputError(f"{target}: holds {foreign[0]}, which is no output of this command; give another folder")


def _replace(temporary: Path, target: Path, names: Collection[str], overwrite: bool) -> None:
    """Put ``temporary`` where ``target`` is or was."""
    try:
        os.replace(temporary, target)  # an empty folder is replaced, nothing else
        return
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise unwritable(target, error) from error
    _check_target(target, target, names, overwrite)
    with temporary_folder(target) as aside:
        earlier = aside / target.name
        with writing(target, anything=True):
            os.replace(target, earlier)
        try:
            # Only now can nobody put anything into it any more.
            _check_target(earlier, target, names, overwrite)
            os.replace(temporary, target)
        except BaseException:
            with writing(target, anything=True):
                os.replace(earlier, target)
            raise
