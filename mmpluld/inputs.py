"""What commands read: only regular files are opened, and what is wrong with others is said.

A pipe would block, a device never ends.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mmpluld.errors import InputError, NoMemoryError
from mmpluld.typing import StrPath

__all__ = [
    "file_size",
    "is_folder",
    "own_path",
    "plain_path",
    "read_bytes",
    "regular_file",
    "sha256_of",
    "why_unreadable",
]

_KINDS = {stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}


def regular_file(path: StrPath, wanted: str) -> Path:
    """Return the path if a file is there that can be read to its end.

    Args:
        path: The file.
        wanted: What to give instead, for the message.

    Raises:
        InputError: It is missing, a folder, a link to nothing or to itself, a pipe or device, or not accessible.
    """
    file = Path(path)
    try:
        mode = file.stat().st_mode
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({why_unreadable(file, error)}); give {wanted}") from None
    if stat.S_ISDIR(mode):
        raise InputError(f"{path}: is a folder; give {wanted}")
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "no regular file")
        raise InputError(f"{path}: is {kind}; give {wanted}, as a file")
    return file


def is_folder(path: Path, wanted: str) -> bool:
    """Whether a path is a folder.

    Args:
        path: The path.
        wanted: What to give if nothing is there, for the message.

    Raises:
        InputError: Nothing is there, or it may not be looked at.
    """
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except FileNotFoundError as error:
        reason = why_unreadable(path, error)
        text = "no such file or folder" if reason == "no such file" else reason
        raise InputError(f"{path}: {text}; give {wanted}") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({why_unreadable(path, error)}); give {wanted}") from None


def file_size(path: StrPath, wanted: str = "the whole scan") -> int:
    """Size in bytes of a regular file that may be read and is not empty.

    Args:
        path: The file.
        wanted: What to give instead, for the message.

    Raises:
        InputError: It is missing, a link to nothing, a folder, pipe or device, empty, or may not be read.
    """
    file = regular_file(path, wanted)
    try:
        with file.open("rb") as stream:
            size = stream.seek(0, os.SEEK_END)
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({why_unreadable(file, error)}); give {wanted}") from None
    if size == 0:
        raise InputError(f"{file}: is empty (0 bytes); it is damaged or cut off, give {wanted}")
    return size


def read_bytes(path: StrPath, wanted: str) -> bytes:
    """Return what a regular file holds.

    Args:
        path: The file.
        wanted: What to give instead, for the message.

    Raises:
        InputError: It cannot be read.
    """
    file = regular_file(path, wanted)
    try:
        return file.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({why_unreadable(file, error)}); give {wanted}") from None
    except MemoryError:
        size = file.stat().st_size / 2**30
        raise NoMemoryError(f"{path}: {size:.1f} GiB, more than the free memory; give {wanted}") from None


def sha256_of(path: StrPath) -> str:
    """SHA-256 of a file, 64 lower-case hexadecimal digits."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def own_path(path: Path) -> Path:
    """The path with its folders behind links, but under the name that it was given.

    A link often gives a scan a name that tells nobody whose it is, which the file behind it does.
    """
    try:
        return path.resolve() if path.name in ("", "..") else path.parent.resolve() / path.name
    except (OSError, RuntimeError):  # links in a circle
        return path.absolute()


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


def why_unreadable(file: Path, error: Exception) -> str:
    """Why a file could not be opened, in words."""
    if isinstance(error, FileNotFoundError):
        link = next((part for part in (file, *file.parents) if part.is_symlink() and not part.exists()), None)
        return f"{link} is a link to {link.readlink()}, which does not exist" if link else "no such file"
    if isinstance(error, OSError):
        reason = error.strerror or str(error)
        return reason.replace("Too many levels of symbolic links", "a link that leads to itself")
    return str(error)
