"""Zip archives of scans, unpacked into temporary folders that are removed."""

from __future__ import annotations

import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath

from mmpluld.errors import InputError
from mmpluld.inputs import file_size

__all__ = ["MOST_BYTES", "Unpacked", "is_archive", "unpacked"]

MOST_BYTES = 16 << 30
"""What an archive may unpack to: some twenty of the largest scans."""
_MOST_FILES = 200_000
_CHUNK = 1 << 20
_STEP = "unpack it yourself and give the folder"


def is_archive(path: Path) -> bool:
    """Whether a file is a zip archive by its name."""
    return path.name.lower().endswith(".zip")


@contextmanager
def unpacked(archive: Path) -> Iterator[Path]:
    """Yield a temporary folder with the files of an archive, which is removed afterwards.

    Raises:
        InputError: It is no zip archive, damaged, encrypted, too large, or names a file outside of itself.
    """
    file_size(archive, "a zip archive of a scan")
    with tempfile.TemporaryDirectory(prefix="mmpluld-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        try:
            with zipfile.ZipFile(archive) as content:
                members = _members(archive, content)
                _check_size(archive, members, folder)
                for member in members:
                    _unpack(content, member, folder)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            reason = " ".join(str(error).split()).replace(name, "")
            raise InputError(
                f"{archive}: cannot be read as a zip archive ({reason}); it is damaged or cut off, copy or export it "
                "again"
            ) from None
        except OSError as error:
            raise InputError(f"{archive}: cannot be unpacked ({error.strerror or error}); {_STEP}") from None
        yield folder


class Unpacked:
    """Unpacked archives, kept while the scans in them are examined: the last two that were asked for.

    While the network examines a scan of one, and its outputs are written, the next is read.
    """

    def __init__(self) -> None:
        self._open: dict[Path, tuple[Path, ExitStack]] = {}

    def folder(self, archive: Path) -> Path:
        """The folder with the files of an archive.

        Raises:
            InputError: As :func:`unpacked`.
        """
        if archive not in self._open:
            for earlier in list(self._open)[:-1]:
                self._open.pop(earlier)[1].close()
            stack = ExitStack()
            self._open[archive] = stack.enter_context(unpacked(archive)), stack
        self._open[archive] = self._open.pop(archive)  # the last that was asked for
        return self._open[archive][0]

    def close(self) -> None:
        """Remove the folders."""
        while self._open:
            self._open.popitem()[1][1].close()


def _members(archive: Path, content: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """The files of an archive, after a look at their names and kinds."""
    members = [member for member in content.infolist() if not member.is_dir()]
    if not members:
        raise InputError(f"{archive}: the archive is empty; give one with a scan")
    if len(members) > _MOST_FILES:
        raise InputError(f"{archive}: holds {len(members)} files; allowed are {_MOST_FILES}, {_STEP}")
    seen = set()
    for member in members:
        path = PurePosixPath(member.filename)
        odd = "\\" in member.orig_filename or "\0" in member.orig_filename or ":" in member.filename
        if path.is_absolute() or ".." in path.parts or not path.parts or odd:
            raise InputError(f"{archive}: holds {member.orig_filename!r}, which would lie outside of it; {_STEP}")
        if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG):
            raise InputError(f"{archive}: holds {member.filename!r}, which is a link or a device; {_STEP}")
        if member.flag_bits & 1:
            raise InputError(f"{archive}: is encrypted; {_STEP}")
        if path in seen:
            raise InputError(f"{archive}: holds {member.filename!r} twice; {_STEP}")
        seen.add(path)
    return members


def _check_size(archive: Path, members: list[zipfile.ZipInfo], folder: Path) -> None:
    """Refuse what does not fit; more than it says, no file unpacks to."""
    size = sum(member.file_size for member in members)
    free = shutil.disk_usage(folder).free
    if size > min(MOST_BYTES, free):
        limit = f"allowed are {MOST_BYTES >> 30} GiB" if size > MOST_BYTES else f"{free / 2**20:.0f} MiB are free"
        raise InputError(f"{archive}: unpacks to {size / 2**20:.0f} MiB, {limit} in {folder.parent}; {_STEP}")


def _unpack(content: zipfile.ZipFile, member: zipfile.ZipInfo, folder: Path) -> None:
    """Write one file; its name has been looked at, links are not made."""
    target = folder.joinpath(*PurePosixPath(member.filename).parts)
    target.parent.mkdir(parents=True, exist_ok=True)
    left = member.file_size
    with content.open(member) as source, target.open("xb") as stream:
        while chunk := source.read(_CHUNK):
            left -= len(chunk)
            if left < 0:
                raise zipfile.BadZipFile(f"{member.filename!r} unpacks to more than it says")
            stream.write(chunk)
