"""Bytes from a web server: only whole, only from http(s), and never without an end."""

from __future__ import annotations

import http.client
import re
import shutil
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from email.message import Message
from io import FileIO
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Any

from mmpluld.errors import InputError
from mmpluld.progress import track
from mmpluld.version import __version__

__all__ = ["DownloadError", "is_web_address", "restart", "transfer", "write_all"]

MOST_BYTES = 4 << 30  # many times the largest checkpoint of this kind of network
ANSWER_S = 60.0  # until the headers are there
STALL_S = 30.0  # without a byte
WINDOW_S = 60.0  # in which this many bytes must come
SLOWEST = 60_000
_BLOCK = 1 << 16


class DownloadError(InputError):
    """A file could not be fetched, or is not the one that was meant; one line with the next step."""


def is_web_address(text: str) -> bool:
    """Whether this is an http(s) address.

    Raises:
        InputError: If it is an address of another kind.
    """
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]+)://", text)
    if scheme is None or scheme[1].lower() == "zoo":
        return False
    if scheme[1].lower() not in ("http", "https"):
        raise InputError(f"{text}: {scheme[1]} addresses are not read; give an http(s) address or a local path")
    return True


def transfer(url: str, stream: FileIO, resumable: bool) -> bool:
    """Append what is missing of ``url`` to the stream, or write all of it anew.

    Args:
        url: http or https address.
        stream: Opened for appending without a buffer, at the end of what is there already.
        resumable: What came of a transfer that was cut is kept; said in the message.

    Returns:
        Whether the server said how long the file is, so that it is known to be whole.

    Raises:
        InputError: If the address is malformed.
        DownloadError: If the server refuses, cannot be reached, cuts the transfer, is too slow, or sends too much; or
            if the disk is full.
    """
    address = _checked_address(url)
    again = "run again to resume" if resumable else "run again"
    try:
        with _answer(url, address, stream) as response:
            total = _total_bytes(url, response, stream)
            _require_space(url, stream, total)
            remaining = None if total is None else -(-(total - stream.tell()) // _BLOCK)
            name = urllib.parse.urlsplit(url).path.rpartition("/")[2]
            for block in track(_blocks(url, response, stream, again), f"downloading {name}", remaining):
                write_all(stream, block)
            chunked = bool(response.chunked)
    except InputError:
        raise
    except urllib.error.HTTPError as error:
        reason = str(error.reason).splitlines()[0] if error.reason else "no reason"
        raise DownloadError(
            f"{url}: the server says {error.code} {reason}; check the address, or install a newer version"
        ) from error
    except urllib.error.URLError as error:
        raise DownloadError(
            f"{url}: cannot be reached ({error.reason}); check the network and the proxy settings"
        ) from error
    except (OSError, http.client.HTTPException) as error:  # what the disk refuses was turned into a DownloadError
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DownloadError(f"{url}: connection cut at {stream.tell()} bytes ({reason}); {again}") from error
    except ValueError as error:
        raise DownloadError(
            f"{url}: cannot be asked for ({error}); check the address and the proxy settings"
        ) from error
    if total is not None and stream.tell() != total:
        raise DownloadError(f"{url}: connection cut at {stream.tell()} of {total} bytes; {again}")
    return total is not None or chunked


def restart(stream: FileIO) -> None:
    """Forget what is in the stream."""
    stream.seek(0)
    stream.truncate()


def _checked_address(url: str) -> str:
    """The address in ASCII, as it is sent.

    Raises:
        InputError: If it is malformed, or holds a password.
    """
    if re.search(r"[\x00-\x20\x7f\ud800-\udfff]", url):
        raise InputError(f"{url}: has spaces or control characters; write a space in an address as %20")
    try:
        parts = urllib.parse.urlsplit(url)
        port, host = parts.port, (parts.hostname or "")
        host = host if ":" in host else host.encode("idna").decode("ascii")  # an IPv6 address stays as it is
    except ValueError as error:  # UnicodeError is one
        raise InputError(f"{url}: is no address ({' '.join(str(error).split())}); correct it") from error
    if not host:
        raise InputError(f"{url}: names no host; write http(s)://HOST/PATH/FILE")
    if "@" in parts.netloc:
        shown = url.replace(parts.netloc, parts.netloc.rpartition("@")[2])
        raise InputError(f"{shown}: is given with a user name; these are not sent, so download the file by other means")
    netloc = f"[{host}]" if ":" in host else host
    path = urllib.parse.quote(parts.path, safe="/%:@!$&'()*+,;=~-._")
    query = urllib.parse.quote(parts.query, safe="/%:@!$&'()*+,;=~-._?")
    return urllib.parse.urlunsplit((parts.scheme.lower(), netloc + (f":{port}" if port else ""), path, query, ""))


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirection to another http(s) address, and none that gives up encryption."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        """The request to go on with."""
        scheme = urllib.parse.urlsplit(newurl).scheme.lower()
        if scheme not in ("http", "https") or (req.type == "https" and scheme != "https"):
            raise DownloadError(f"{req.full_url}: redirects to {newurl}, which is not followed")
        return super().redirect_request(req, fp, code, msg, headers, _checked_address(newurl))  # type: ignore[arg-type]


def _opener() -> urllib.request.OpenerDirector:
    """urllib's opener for http(s) alone."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPErrorProcessor,
        urllib.request.UnknownHandler,
        _Redirects,
    ):
        opener.add_handler(handler())
    return opener


def _answer(url: str, address: str, stream: FileIO) -> http.client.HTTPResponse:
    """Ask for what is missing; a server that does not know the part we have is asked for everything."""
    have = stream.tell()
    headers = {"User-Agent": f"mmpluld/{__version__}"} | ({"Range": f"bytes={have}-"} if have else {})
    request = urllib.request.Request(address, headers=headers)
    try:
        response = _in_time(url, request)
    except urllib.error.HTTPError as error:
        if not (have and error.code == 416):  # 416: our part is as long as the file, or longer
            raise
        error.close()
        restart(stream)
        return _answer(url, address, stream)
    is_rest = response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
    if response.status != 200 and not is_rest:
        response.close()
        raise DownloadError(f"{url}: the server says {response.status} {response.reason} and sends no file")
    if have and not is_rest:
        restart(stream)
    return response


def _in_time(url: str, request: urllib.request.Request) -> http.client.HTTPResponse:
    """The server's answer, its headers read.

    A socket's time limit is for one byte; a server that sends its headers one by one would be waited for for hours.
    """
    answers: SimpleQueue[Any] = SimpleQueue()

    def ask() -> None:
        try:
            answers.put(_opener().open(request, timeout=STALL_S))
        except BaseException as error:  # handed to the thread that waits
            answers.put(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(ANSWER_S)
    if thread.is_alive():
        raise DownloadError(f"{url}: no answer within {ANSWER_S:g} s; try again later, or another address")
    answer = answers.get()
    if isinstance(answer, BaseException):
        raise answer
    response: http.client.HTTPResponse = answer
    return response


def _total_bytes(url: str, response: http.client.HTTPResponse, stream: FileIO) -> int | None:
    """Bytes of the whole file, None where the server does not say."""
    length = response.headers.get("Content-Length")
    if length is None or response.chunked:
        return None
    if not re.fullmatch(r"[0-9]{1,18}", length.strip()):
        raise DownloadError(f"{url}: the server says a length of {length[:40]!r}; try again later, or another address")
    return stream.tell() + int(length)


def _require_space(url: str, stream: FileIO, total: int | None) -> None:
    missing = 0 if total is None else total - stream.tell()
    if total is not None and total > MOST_BYTES:
        raise DownloadError(f"{url}: {total / 1e9:.1f} GB; more than {MOST_BYTES / 1e9:.1f} GB are no checkpoint")
    free = shutil.disk_usage(Path(stream.name).parent).free
    if missing > free:
        raise DownloadError(
            f"{stream.name}: needs {missing / 1e6:.1f} MB more, {free / 1e6:.1f} MB are free; make room"
        )


def _blocks(url: str, response: http.client.HTTPResponse, stream: FileIO, again: str) -> Iterator[bytes]:
    """What comes, until the end, or until it is too slow or too much."""
    begin, came = time.monotonic(), 0
    while block := response.read1(_BLOCK):  # `read` would wait for a full block
        yield block
        came += len(block)
        if stream.tell() > MOST_BYTES:
            restart(stream)
            raise DownloadError(f"{url}: sends more than {MOST_BYTES / 1e9:.1f} GB; removed, this is no checkpoint")
        now = time.monotonic()
        if now - begin >= WINDOW_S:
            if came < SLOWEST:
                raise DownloadError(
                    f"{url}: only {came} bytes came in {now - begin:.0f} s, given up at {stream.tell()} bytes; {again}"
                )
            begin, came = now, 0


def write_all(stream: FileIO, block: bytes) -> None:
    """Write to a stream without buffer, keeping failures of the disk apart from those of the network."""
    rest = memoryview(block)
    try:
        while rest:
            rest = rest[stream.write(rest) :]
    except OSError as error:
        raise DownloadError(f"{stream.name}: cannot be written ({error.strerror}); make room and run again") from error
