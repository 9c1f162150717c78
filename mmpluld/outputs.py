"""Where commands write: looked at before the work, and held by one process at a time."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from mmpluld.atomic import behind_links, remove_abandoned, unwritable, writing
from mmpluld.compat.system import lock_file
from mmpluld.errors import BusyError, InputError
from mmpluld.typing import StrPath

__all__ = ["LOCK", "check_output_file", "check_output_folder", "folder_lock", "hold"]

LOCK = ".lock"
"""Name of the file by which a folder is held."""

_NAME_BYTES = 255  # longest name in every common file system
_PATIENCE_S = 1.0  # what the children of a process that was just killed may take to end


def check_output_file(path: StrPath) -> None:
    """Check that a file can be written; its folder is made later if it is missing.

    What killed commands left half-written beside it is removed.

    Raises:
        InputError: It cannot: a folder or a dangling link is in its place, a file where one of its folders would be,
            a name is too long, or the folder or its file system may not be written to.
    """
    target = _target(path)
    if target.is_dir():
        raise InputError(f"{path}: is a folder; give a file to write")
    if target.exists() and not target.is_file():  # a pipe or a device
        if not os.access(target, os.W_OK):
            raise InputError(f"{path}: may not be written to; choose another place")
        return
    _try(path, target.parent)


def check_output_folder(path: StrPath) -> None:
    """Check that files can be written into a folder, which is made later if it is missing.

    What killed commands left half-written in it is removed.

    Raises:
        InputError: They cannot: a file or a dangling link is in its place, a file where one of its parents would be, a
            name is too long, or the folder or its file system may not be written to.
    """
    target = _target(path)
    if target.exists() and not target.is_dir():
        raise InputError(f"{path}: is a file; give a folder to write to")
    _try(path, target)


@contextmanager
def folder_lock(path: StrPath, name: str = LOCK) -> Iterator[bool]:
    """Make a folder if it is missing, and hold it, so that no other process writes to it; freed when this one ends.

    Yields whether it was made; if so and nothing was written into it, it is removed again.

    Args:
        path: The folder.
        name: File in it that is locked, and removed afterwards.

    Raises:
        InputError: It cannot be written to; a BusyError if another process holds it.
    """
    folder = Path(path)
    check_output_folder(path)  # as it is given: an empty text would be the folder one is in
    made = not folder.exists()
    with writing(folder, anything=True):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        with hold(folder / name, folder):
            yield made
    finally:
        if made:
            with suppress(OSError):  # it is not empty
                folder.rmdir()


@contextmanager
def hold(lock: Path, what: StrPath) -> Iterator[None]:
    """Hold a lock file for this process; it says which process that is, and is removed afterwards.

    Args:
        lock: The file; its folder exists.
        what: What is held, for the message.

    Raises:
        BusyError: Another process holds it.
    """
    stream = _held(lock, what)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        stream.close()


def _held(lock: Path, what: StrPath) -> IO[str]:
    """The lock file, open, locked, and with our process id in it."""
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        with writing(lock, anything=True):
            stream = lock.open("a+", encoding="utf-8")
        try:
            ours = lock_file(stream, wait=False)
        except OSError:  # a file system without locks
            ours = True
        with suppress(FileNotFoundError):  # whoever held it may have removed it; then we locked a file without a name
            if ours and os.path.samestat(os.fstat(stream.fileno()), lock.stat()):
                with suppress(OSError):  # a full disk: whoever writes next says so, with the name of the file
                    stream.truncate(0)
                    os.write(stream.fileno(), f"{os.getpid()}\n".encode())
                return stream
        stream.seek(0)
        owner = stream.read(20).strip()
        stream.close()
        if not ours and time.monotonic() > deadline:
            known = f" (pid {owner})" if owner.isdigit() else ""
            raise BusyError(f"{what}: is being written by another process{known}; wait for it, or choose another place")
        time.sleep(0.02)


def _target(path: StrPath) -> Path:
    """The path behind links; refused if it cannot be one."""
    if not os.fspath(path):  # which Python takes for the folder one is in
        raise InputError("the place to write to is empty; is a variable of the shell not set?")
    absolute = Path(os.path.abspath(path))  # noqa: PTH100  links are looked at first
    target = behind_links(path)
    if long := [part for part in target.parts if len(os.fsencode(part)) > _NAME_BYTES]:
        raise InputError(
            f"{path}: cannot be written ('{long[0][:20]}...' is longer than {_NAME_BYTES} bytes); choose a shorter name"
        )
    with writing(Path(path), anything=True):
        for place in (absolute, *absolute.parents):
            if os.path.lexists(place):
                if place.is_symlink() and not place.exists():
                    raise InputError(
                        f"{place}: is a link to {place.readlink()}, which is not there; remove the link, or make that"
                    )
                break
        with suppress(FileNotFoundError):
            target.stat()
    return target


def _try(path: StrPath, folder: Path) -> None:
    """Refuse ``path`` if nothing can be written into ``folder``, or into the nearest of its parents that exists."""
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        raise InputError(f"{path}: cannot be written ({folder} is a file); choose another place")
    remove_abandoned(folder)
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise unwritable(path, error) from None
