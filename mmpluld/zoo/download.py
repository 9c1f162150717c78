"""Fetching weights: resumed after a cut, checked by SHA-256, whole under their final name or not there."""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import shutil
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from mmpluld.compat.system import lock_file
from mmpluld.errors import InputError, MMPluldError
from mmpluld.progress import track
from mmpluld.version import __version__
from mmpluld.zoo.index import get_model

__all__ = ["DownloadError", "fetch", "file_name", "local_checkpoint", "sha256_of"]

_BLOCK = 1 << 16
_TIMEOUT_S = 30.0


class DownloadError(MMPluldError):
    """A file could not be fetched, or is not the one that was meant; one line with the next step."""


def sha256_of(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, 64 lower-case hexadecimal digits."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def fetch(url: str, target: str | os.PathLike[str], sha256: str = "") -> Path:
    """Fetch a file to ``target``, which is there only when it is complete and right.

    A download that was cut stays as ``<target>.part`` and is resumed where the server can. Several processes may
    fetch the same file: one works, the others wait. A ``target`` that is there already is kept if it has the digest
    (or none is given), and replaced otherwise.

    Args:
        url: http or https address, file URL, or local path.
        target: File to write; its folder is made.
        sha256: Digest of the file or the first digits of it; empty where none is known.

    Returns:
        ``target``.

    Raises:
        DownloadError: The server refuses, cannot be reached or cuts the transfer, the disk is full, or the digest is
            another; in the last case what came is removed.
        InputError: If the local source or the target's folder cannot be used.
    """
    path = Path(target)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if _is_right(path, sha256):
            return path
        part = path.with_name(path.name + ".part")
        with _locked(part) as stream:
            if _is_right(path, sha256):  # another process was faster
                part.unlink()
                return path
            _transfer(url, stream)
            stream.flush()
            os.fsync(stream.fileno())
            _verify(part, sha256, url)
            os.replace(part, path)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror or error}); choose a folder with space and write permission"
        ) from error
    return path


def local_checkpoint(source: str | os.PathLike[str]) -> Path:
    """The local file of a checkpoint that is given as a path, a web address, or ``zoo:NAME``.

    Web files are kept in ``$XDG_CACHE_HOME/mmpluld`` (``~/.cache/mmpluld``) and checked against the digits before the
    suffix of their name, as in ``name-1a2b3c4d.pth``, where there are any.

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
    elif text.startswith(("http://", "https://")):
        named = re.search(r"-([0-9a-f]{8,64})\.\w+$", file_name(text))
        url, sha256 = text, named[1] if named else ""
    else:
        return Path(source)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "mmpluld"
    return fetch(url, cache / hashlib.sha256(url.encode()).hexdigest()[:12] / file_name(url), sha256)


def file_name(url: str) -> str:
    """Last part of an address, as a name that cannot leave its folder."""
    name = urllib.parse.unquote(urllib.parse.urlsplit(url).path).replace("\\", "/").rpartition("/")[2]
    if not re.fullmatch(r"[A-Za-z0-9_][\w.+-]*", name):
        raise InputError(f"{url}: ends in no usable file name; give the address of the checkpoint file itself")
    return name


def _is_right(path: Path, sha256: str) -> bool:
    """Whether the file is there and has the digest."""
    return path.is_file() and sha256_of(path).startswith(sha256)


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
def _locked(part: Path) -> Iterator[BinaryIO]:
    """The part file, opened for appending and held by this process alone."""
    while True:
        with part.open("ab") as stream:
            lock_file(stream)
            # Whoever held it may have renamed or removed it; then the lock is on a file that is no longer the part.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(stream.fileno()), part.stat()):
                    stream.seek(0, os.SEEK_END)
                    yield stream
                    return


def _transfer(url: str, stream: BinaryIO) -> None:
    """Append what is missing of ``url`` to the stream, or write all of it anew."""
    if url.startswith(("http://", "https://")):
        _transfer_http(url, stream)
        return
    source = (
        Path(urllib.request.url2pathname(urllib.parse.urlsplit(url).path)) if url.startswith("file:") else Path(url)
    )
    if not source.is_file():
        raise InputError(f"{url}: no such file; give an http(s) or file address, or a path")
    _restart(stream)
    with source.open("rb") as opened:
        shutil.copyfileobj(opened, stream)


def _transfer_http(url: str, stream: BinaryIO) -> None:
    resumable = f"what came is kept in {stream.name}; run again to resume"
    try:
        with _request(url, stream) as response:
            total = _total_bytes(response, stream)
            _require_space(stream, total)
            blocks = iter(lambda: response.read(_BLOCK), b"")
            remaining = None if total is None else -(-(total - stream.tell()) // _BLOCK)
            for block in track(blocks, f"downloading {file_name(url)}", remaining):
                _write(stream, block)
    except urllib.error.HTTPError as error:
        raise DownloadError(
            f"{url}: the server says {error.code} {error.reason}; check the address, or install a newer version"
        ) from error
    except urllib.error.URLError as error:
        raise DownloadError(
            f"{url}: cannot be reached ({error.reason}); check the network and the proxy settings"
        ) from error
    except (OSError, http.client.HTTPException) as error:  # what the disk refuses was turned into a DownloadError
        raise DownloadError(f"{url}: connection cut at {stream.tell()} bytes ({error}); {resumable}") from error
    if total is not None and stream.tell() != total:
        raise DownloadError(f"{url}: connection cut at {stream.tell()} of {total} bytes; {resumable}")


def _request(url: str, stream: BinaryIO) -> http.client.HTTPResponse:
    """Ask for what is missing; a server that does not know the part we have is asked for everything."""
    have = stream.tell()
    headers = {"User-Agent": f"mmpluld/{__version__}"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        request = urllib.request.Request(url, headers=headers)
        response: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if not (have and error.code == 416):  # 416: our part is as long as the file, or longer
            raise
        error.close()
        _restart(stream)
        return _request(url, stream)
    if have and not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
        _restart(stream)
    return response


def _restart(stream: BinaryIO) -> None:
    stream.seek(0)
    stream.truncate()


def _total_bytes(response: http.client.HTTPResponse, stream: BinaryIO) -> int | None:
    """Bytes of the whole file, None where the server does not say."""
    length = response.headers.get("Content-Length")
    return None if length is None else stream.tell() + int(length)


def _require_space(stream: BinaryIO, total: int | None) -> None:
    missing = 0 if total is None else total - stream.tell()
    free = shutil.disk_usage(Path(stream.name).parent).free
    if missing > free:
        raise DownloadError(
            f"{stream.name}: needs {missing / 1e6:.1f} MB more, {free / 1e6:.1f} MB are free; make room"
        )


def _write(stream: BinaryIO, block: bytes) -> None:
    """Write, keeping failures of the disk apart from those of the network."""
    try:
        stream.write(block)
        stream.flush()
    except OSError as error:
        raise DownloadError(f"{stream.name}: cannot be written ({error.strerror}); make room and run again") from error
