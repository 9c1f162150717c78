"""Fetching weights: resumed after a cut, checked by SHA-256, whole under their final name or not there."""

from __future__ import annotations

import hashlib
import os
import re
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path

from mmpluld.atomic import atomic_write_text
from mmpluld.compat.system import lock_file
from mmpluld.errors import InputError
from mmpluld.inputs import sha256_of
from mmpluld.zoo.index import get_model
from mmpluld.zoo.transfer import DownloadError, is_web_address, restart, transfer, write_all

__all__ = ["DownloadError", "fetch", "file_name", "local_checkpoint"]


def fetch(url: str, target: str | os.PathLike[str], sha256: str = "") -> Path:
    """Fetch a checkpoint to ``target``, which is there only when it is complete and right.

    With a digest, a download that was cut stays as ``<target>.part`` and is resumed where the server can, and the
    file is compared with the digest. Without one nothing of a cut download is kept, what came must be a checkpoint by
    its first bytes and whole as far as can be told, and its own digest is kept in ``<target>.sha256`` and compared
    whenever the file is asked for again. Several processes may fetch the same file: one works, the others wait. A
    ``target`` that is there already and right is kept, and replaced otherwise.

    Args:
        url: http or https address, file URL, or local path.
        target: File to write; its folder is made.
        sha256: Digest of the file or the first digits of it, from 8 on, in small or capital letters; empty where none
            is known.

    Returns:
        ``target``.

    Raises:
        DownloadError: The server refuses, cannot be reached, cuts the transfer, is too slow or sends too much, the disk
            is full, what came is no checkpoint, or the digest is another; in the last two cases it is removed.
        InputError: If the digest or address is malformed, or the local source or the target's folder cannot be used.
    """
    path, digest = Path(target), _checked_digest(sha256)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if _is_right(path, digest):
            return path
        part = path.with_name(path.name + ".part")
        with _locked(part) as stream:
            if _is_right(path, digest):  # another process was faster
                part.unlink()
                return path
            try:
                _fetch_part(url, stream, part, digest)
            except BaseException:
                if not digest:  # another file may have this address by then
                    part.unlink(missing_ok=True)
                raise
            found = sha256_of(part)
            os.replace(part, path)
            if not digest:
                atomic_write_text(_note(path), f"{found}  {path.name}\n")
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror or error}); choose a folder with space and write permission"
        ) from error
    return path


def _fetch_part(url: str, stream: FileIO, part: Path, digest: str) -> None:
    """Write the whole file to the stream, and see that it is right."""
    is_whole = True
    if not digest:
        restart(stream)
    if not url.startswith("file:") and is_web_address(url):
        is_whole = transfer(url, stream, resumable=bool(digest))
    else:
        _copy(url, stream)
    os.fsync(stream.fileno())
    if digest:
        _verify(part, digest, url)
        return
    fault = _fault(part, is_whole)
    if fault:
        raise DownloadError(
            f"{url}: {fault}; removed. Open the address in a browser: if a login is asked for, download the file there"
        )


def local_checkpoint(source: str | os.PathLike[str]) -> Path:
    """The local file of a checkpoint that is given as a path, a web address, or ``zoo:NAME``.

    Web files are kept in ``$XDG_CACHE_HOME/mmpluld`` (``~/.cache/mmpluld``) and checked against the digits before the
    suffix of their name, as in ``name-1a2b3c4d.pth``, where there are any; see :func:`fetch` for those without.

    Raises:
        InputError: Unknown model, or one without weights.
        DownloadError: See :func:`fetch`; also if shipped weights are damaged.
    """
    text = os.fspath(source)
    if text.startswith("zoo:"):
        model = get_model(text.removeprefix("zoo:"))
        url, sha256 = model.weights_url, model.sha256
        if model.shipped:
            _verify_shipped(Path(url), sha256)
            return Path(url)
    elif is_web_address(text):
        named = re.search(r"-([0-9a-fA-F]{8,64})\.\w+$", file_name(text))
        url, sha256 = text, named[1] if named else ""
    else:
        return Path(source)
    return fetch(url, _cache() / hashlib.sha256(url.encode()).hexdigest()[:12] / file_name(url), sha256)


def _cache() -> Path:
    """Folder of what came from the web."""
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        return (given if given.is_absolute() else Path("~/.cache").expanduser()) / "mmpluld"
    except RuntimeError as error:
        raise InputError("no folder to keep downloads in: set HOME or XDG_CACHE_HOME to one") from error


def file_name(url: str) -> str:
    """Last part of an address, as a name that cannot leave its folder."""
    try:
        name = urllib.parse.unquote(urllib.parse.urlsplit(url).path).replace("\\", "/").rpartition("/")[2]
    except ValueError as error:
        raise InputError(f"{url}: is no address ({error}); correct it") from error
    if not re.fullmatch(r"[A-Za-z0-9_][\w.+-]*", name):
        raise InputError(f"{url}: ends in no usable file name; give the address of the checkpoint file itself")
    return name


def _checked_digest(sha256: str) -> str:
    """A digest or its first digits in small letters.

    Raises:
        InputError: If it is none.
    """
    if sha256 and not re.fullmatch(r"[0-9a-fA-F]{8,64}", sha256):
        raise InputError(f"SHA-256 {sha256!r}: is none; give its 64 hexadecimal digits, or the first 8 or more of them")
    return sha256.lower()


def _is_right(path: Path, digest: str) -> bool:
    """Whether the file is there and has the digest, or without one is as it was when it came."""
    if not path.is_file():
        return False
    if digest:
        return sha256_of(path).startswith(digest)
    with suppress(OSError, UnicodeDecodeError):
        return _note(path).read_text(encoding="utf-8").split()[:1] == [sha256_of(path)]
    return False


def _note(path: Path) -> Path:
    """Where the digest of a file is kept that has none of its own."""
    return path.with_name(path.name + ".sha256")


def _fault(path: Path, is_whole: bool) -> str:
    """What shows that a file is no checkpoint, or not whole; empty if nothing does."""
    with path.open("rb") as stream:
        begin = stream.read(512)
    if begin.startswith(b"PK\x03\x04"):  # torch.save writes a ZIP, whose directory comes last
        return "" if zipfile.is_zipfile(path) else "the file is cut"
    if re.match(rb"\x80[\x00-\x05]", begin):  # a pickle, as torch.save wrote before version 1.6
        return "" if is_whole else "the server does not say how long the file is, so nobody knows whether it is whole"
    if re.match(rb"(\xef\xbb\xbf)?\s*<", begin):
        return "what comes is a web page, no checkpoint"
    return f"what comes is no checkpoint (it begins with {begin[:8]!r})" if begin else "what comes is empty"


def _verify(part: Path, sha256: str, url: str) -> None:
    """Remove a file of another digest and say so."""
    found = sha256_of(part)
    if not found.startswith(sha256):
        part.unlink()
        raise DownloadError(
            f"{url}: SHA-256 {found[: len(sha256)]} is not the expected {sha256}; removed; run again, and if it stays "
            "so, do not use the file"
        )


def _verify_shipped(path: Path, sha256: str) -> None:
    if not path.is_file() or sha256_of(path) != sha256:
        raise DownloadError(f"{path}: missing or damaged (SHA-256 expected: {sha256}); install the package anew")


@contextmanager
def _locked(part: Path) -> Iterator[FileIO]:
    """The part file, opened for appending and held by this process alone."""
    while True:
        with part.open("ab", buffering=0) as stream:
            lock_file(stream)
            # Whoever held it may have renamed or removed it; then the lock is on a file that is no longer the part.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(stream.fileno()), part.stat()):
                    stream.seek(0, os.SEEK_END)
                    yield stream
                    return


def _copy(url: str, stream: FileIO) -> None:
    """Write a local file, given by its path or file URL."""
    source = (
        Path(urllib.request.url2pathname(urllib.parse.urlsplit(url).path)) if url.startswith("file:") else Path(url)
    )
    if not source.is_file():
        raise InputError(f"{url}: no such file; give an http(s) or file address, or a path")
    restart(stream)
    with source.open("rb") as opened:
        while block := opened.read(1 << 20):
            write_all(stream, block)
