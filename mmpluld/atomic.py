"""Files and folders that appear whole or not at all, and groups of files that say so until they are whole.

A temporary has the prefix ``.tmp-mmpluld-`` and is locked by the process that writes it, so that what a killed command
left can be told from what another command is writing.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from mmpluld.compat.system import lock_file
from mmpluld.errors import InputError, NoRoomError

__all__ = [
    "TEMPORARY",
    "atomic_group",
    "atomic_path",
    "atomic_write_text",
    "behind_links",
    "give_usual_mode",
    "is_unfinished",
    "mark_unfinished",
    "refuse_unfinished",
    "remove_abandoned",
    "temporary_folder",
    "unfinished",
    "unwritable",
    "writing",
]

TEMPORARY = ".tmp-mmpluld-"
"""How the names of temporaries begin."""

_UNFINISHED = ".unfinished-"
_NAME_BYTES = 120  # of a name that is kept in that of its temporary: with the prefix it must not grow too long
_WRITING = (None, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)  # NumPy tells a full disk without a number


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it is flushed to disk and renamed over ``path``.

    The temporary name keeps the full suffix (``scan.nii.gz`` -> ``.tmp-mmpluld-xxxx-scan.nii.gz``), because writers
    choose the format by it. If the block raises, the temporary file is removed and ``path`` is left as it was. Of a
    link, the file that it points to is replaced; into a pipe or device the content is written.

    Raises:
        InputError: The file cannot be written: no room, no permission, a folder in its place.
    """
    target = _target(path)
    if target.name.startswith(TEMPORARY):  # one of a group; it is renamed with the others
        yield target
        return
    if target.exists() and not target.is_file() and not target.is_dir():
        with tempfile.TemporaryDirectory(prefix="mmpluld-") as folder:
            yield Path(folder) / target.name
            with writing(target), target.open("wb") as stream:
                stream.write((Path(folder) / target.name).read_bytes())
        return
    with _temporary_file(target) as temporary:
        with writing(target, temporary):
            yield temporary
        with writing(target, temporary):
            _finish(temporary)
            os.replace(temporary, target)


def atomic_write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write ``text`` as UTF-8 to ``path``, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def atomic_group(
    paths: Sequence[str | os.PathLike[str]], obsolete: Iterable[str | os.PathLike[str]] = ()
) -> Iterator[list[Path]]:
    """Yield a temporary path for each of several files that belong together.

    When the block has succeeded, all are complete before the first takes its final name, in the order given, and then
    the obsolete ones are removed. Whoever is killed meanwhile leaves files of which :func:`is_unfinished` is true.

    Args:
        paths: The files.
        obsolete: What an earlier command left that does not go with them.

    Raises:
        InputError: As for :func:`atomic_path`.
    """
    targets, outdated = [_target(path) for path in paths], [Path(path) for path in obsolete]
    with ExitStack() as stack:
        temporaries = [stack.enter_context(_temporary_file(target)) for target in targets]
        with writing(targets[0], *temporaries):
            yield temporaries
        for temporary, target in zip(temporaries, targets, strict=True):
            with writing(target, temporary):
                _finish(temporary)
        with unfinished([*targets, *outdated]):
            for temporary, target in zip(temporaries, targets, strict=True):
                with writing(target, temporary):
                    os.replace(temporary, target)
            for path in outdated:
                path.unlink(missing_ok=True)


@contextmanager
def temporary_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder beside ``target`` that is removed afterwards, if it still has its name.

    Raises:
        InputError: It cannot be made.
    """
    with writing(target, anything=True):
        handle, folder = _make_locked(target, folder=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def give_usual_mode(path: Path) -> None:
    """Give a temporary file or folder, which was made for its owner alone, the permissions of any other new one."""
    umask = os.umask(0)
    os.umask(umask)
    path.chmod((0o777 if path.is_dir() else 0o666) & ~umask)


def remove_abandoned(folder: str | os.PathLike[str]) -> None:
    """Remove the temporaries that killed commands left in a folder; those that a process is writing stay."""
    try:
        found = [Path(entry.path) for entry in os.scandir(folder) if entry.name.startswith(TEMPORARY)]
    except OSError:
        return
    for path in found:
        with suppress(OSError):  # where files cannot be locked, nobody knows who writes them, so they stay
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                if lock_file(handle, wait=False):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            finally:
                os.close(handle)


@contextmanager
def unfinished(paths: Iterable[Path]) -> Iterator[None]:
    """Mark files as unfinished until the block has succeeded."""
    paths = list(paths)
    mark_unfinished(paths)
    yield
    for path in paths:
        _marker(path).unlink(missing_ok=True)


def mark_unfinished(paths: Iterable[Path]) -> None:
    """Mark files, which need not exist, as parts of something that is not complete."""
    for path in paths:
        with writing(path, anything=True):
            _marker(path).touch()


def is_unfinished(path: str | os.PathLike[str]) -> bool:
    """Whether the command that writes a file and what belongs to it has not come to its end."""
    return _marker(Path(path)).exists()


def refuse_unfinished(path: str | os.PathLike[str]) -> None:
    """Refuse a file that belongs to something that is not complete.

    Raises:
        InputError: It does.
    """
    if is_unfinished(path):
        raise InputError(f"{path}: the command that wrote it and its companions was interrupted; run it again")


def unwritable(path: str | os.PathLike[str], error: OSError) -> InputError:
    """The one line on a path that cannot be written."""
    advice = {
        errno.ENOSPC: "make room",
        errno.EDQUOT: "make room",
        None: "make room",
        errno.ENAMETOOLONG: "choose a shorter name",
    }.get(error.errno, "choose another place")
    kind = NoRoomError if advice == "make room" else InputError
    return kind(f"{path}: cannot be written ({error.strerror or error}); {advice}")


@contextmanager
def writing(target: Path, *own: Path, anything: bool = False) -> Iterator[None]:
    """Turn what the system says against writing ``target`` into one line.

    Args:
        target: What the line names.
        own: Temporaries of it.
        anything: The block does nothing else, so that every error is about writing.

    Raises:
        InputError: The file cannot be written.
    """
    try:
        yield
    except OSError as error:
        named = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else None
        if anything or named in (target, *own) or (named is None and error.errno in _WRITING):
            raise unwritable(target, error) from error
        raise


def behind_links(path: str | os.PathLike[str]) -> Path:
    """The path that is written where ``path`` is a link, or lies below one.

    Raises:
        InputError: The links lead in a circle.
    """
    try:
        return Path(path).resolve()
    except (OSError, RuntimeError):
        raise InputError(f"{path}: cannot be written (links in a circle); choose another place") from None


def _target(path: str | os.PathLike[str]) -> Path:
    target = behind_links(path)
    with writing(target, anything=True), suppress(FileNotFoundError):
        target.stat()
    return target


@contextmanager
def _temporary_file(target: Path) -> Iterator[Path]:
    """A temporary file beside ``target``, locked by this process, and removed if it still has its name."""
    with writing(target, anything=True):
        handle, temporary = _make_locked(target, folder=False)
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)
        os.close(handle)


def _make_locked(target: Path, folder: bool) -> tuple[int, Path]:
    """An empty file or folder beside ``target`` that is locked as long as the returned handle is open."""
    target.parent.mkdir(parents=True, exist_ok=True)
    end = _end_of_name(target)
    while True:
        if folder:
            path = Path(tempfile.mkdtemp(prefix=TEMPORARY, suffix=f"-{end}", dir=target.parent))
        else:
            handle, name = tempfile.mkstemp(prefix=TEMPORARY, suffix=f"-{end}", dir=target.parent)
            path = Path(name)
            os.close(handle)
        with suppress(FileNotFoundError):  # before it is locked, it may be taken for abandoned and removed
            handle = os.open(path, os.O_RDONLY)
            with suppress(OSError):  # some file systems have no locks; then nobody takes it for abandoned either
                lock_file(handle)
            if path.exists():
                return handle, path
            os.close(handle)


def _finish(temporary: Path) -> None:
    """Flush a temporary file to disk, and give it the usual permissions."""
    with temporary.open("rb") as stream:
        os.fsync(stream.fileno())
    give_usual_mode(temporary)


def _marker(path: Path) -> Path:
    path = Path(os.path.realpath(path))  # of a link, the file behind it is what is written
    return path.with_name(_UNFINISHED + _end_of_name(path))


def _end_of_name(path: Path) -> str:
    """The name, or as much of its end as fits into the name of a temporary."""
    end = path.name
    while len(os.fsencode(end)) > _NAME_BYTES:
        end = end[1:]
    return end
