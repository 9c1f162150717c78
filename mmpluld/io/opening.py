"""Files before they are opened: only regular ones are, and what is wrong with others is said."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mmpluld.errors import InputError

__all__ = ["file_size", "is_folder", "plain_path"]

_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}


def is_folder(path: Path, needed: str = "give a file") -> bool:
    """Whether a path is a folder.

    Args:
        path: The path.
        needed: End of the message if nothing is there: what to give.

    Raises:
        InputError: Nothing is there, or it may not be looked at.
    """
    return stat.S_ISDIR(_status(path, needed).st_mode)


def file_size(file: Path, needed: str = "copy or export it again") -> int:
    """Size in bytes of a regular file that may be read and is not empty.

    Pipes and devices are refused, because reading them may never end.

    Args:
        file: The file.
        needed: End of the message if it is missing or empty: what to do.

    Raises:
        InputError: It is missing, a link to nothing, of another kind, empty, or may not be read.
    """
    status = _status(file, needed)
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "no file")
        raise InputError(f"{file}: is {kind}; allowed is a regular file, copy the content into one")
    if status.st_size == 0:
        raise InputError(f"{file}: is empty (0 bytes): it is damaged or cut off, {needed}")
    try:
        file.open("rb").close()
    except OSError as error:
        raise InputError(_unreadable(file, error)) from None
    return status.st_size


def _status(path: Path, needed: str) -> os.stat_result:
    try:
        return path.stat()
    except FileNotFoundError:
        if path.is_symlink():
            target = path.readlink()
            raise InputError(f"{path}: is a link to {target}, which does not exist; mend the link") from None
        raise InputError(f"{path}: no such file or folder; {needed}") from None
    except (OSError, ValueError) as error:
        raise InputError(_unreadable(path, error)) from None


def _unreadable(path: Path, error: OSError | ValueError) -> str:
    reason = getattr(error, "strerror", None) or str(error)
    return f"{path}: cannot be opened ({reason}); mend the path, the link or the permissions"


@contextmanager
def plain_path(file: Path, parts: Iterable[str] = ()) -> Iterator[Path]:
    """Yield a path to a file that libraries can take which know UTF-8 only.

    Names on disk are bytes. Python keeps those that are no text as surrogates, which SimpleITK refuses; then the file
    is reached through a link with a plain name.

    Args:
        file: The file; its suffix is kept.
        parts: Names inside it of further files, relative to its folder, that must be found beside the link.
    """
    try:
        str(file).encode()
    except UnicodeEncodeError:
        with tempfile.TemporaryDirectory(prefix="mmpluld-") as name:
            folder = Path(name)
            link = folder / f"header{file.suffix}"
            link.symlink_to(file.absolute())
            for part in parts:
                (folder / part).parent.mkdir(parents=True, exist_ok=True)
                (folder / part).symlink_to((file.parent / part).absolute())
            yield link
    else:
        yield file
