"""Servers and addresses that are not what they should be: a refusal in one line, and nothing kept that is not right."""

from __future__ import annotations

import contextlib
import hashlib
import io
import pickle
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from mmpluld.errors import InputError
from mmpluld.zoo import transfer
from mmpluld.zoo.download import DownloadError, fetch, local_checkpoint

Answer = Callable[[BaseHTTPRequestHandler], None]


def _zip(content: bytes = b"weights" * 2000) -> bytes:
    with io.BytesIO() as stream:
        with zipfile.ZipFile(stream, "w") as archive:
            archive.writestr(zipfile.ZipInfo("archive/data.pkl"), content)
        return stream.getvalue()


GOOD = _zip()
DIGEST = hashlib.sha256(GOOD).hexdigest()


class OddServer:
    """Answers each path as told; counts the requests."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.requests: list[str] = []
        self.done = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.requests.append(self.path)
                self.close_connection = True
                with contextlib.suppress(ConnectionError):  # the client gave up
                    outer.answers[self.path](self)

            def log_message(self, *arguments: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def close(self) -> None:
        self.done.set()
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()


@pytest.fixture
def odd(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[OddServer]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    server = OddServer()
    yield server
    server.close()


def sends(body: bytes, **headers: str) -> Answer:
    """Status 200 with exactly these headers (``_`` for ``-``)."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def whole(body: bytes) -> Answer:
    return sends(body, Content_Length=str(len(body)))


def redirects(target: str, code: int = 302) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        handler.send_header("Location", target)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


def raw(text: bytes) -> Answer:
    return lambda handler: handler.wfile.write(text) and None


def kept(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


PAGE = b"<!DOCTYPE html><html><title>Log in</title></html>"
CHUNK = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (whole(PAGE), "what comes is a web page, no checkpoint; removed. Open the address in a browser"),
        (whole(b"\xef\xbb\xbf\n <html>"), "a web page"),
        (whole(b"version https://git-lfs.github.com"), r"no checkpoint \(it begins with b'version '\)"),
        (whole(b""), "what comes is empty"),
        (whole(GOOD[:5000]), "the file is cut"),
        (sends(GOOD[:5000]), "the file is cut"),
        (sends(pickle.dumps([0] * 99)), "does not say how long the file is"),
        (sends(GOOD[:5000], Content_Length=str(len(GOOD))), f"connection cut at 5000 of {len(GOOD)} bytes; run again$"),
        (sends(GOOD, Content_Length="many"), "the server says a length of 'many'"),
        (sends(GOOD, Content_Length="-5"), "the server says a length of '-5'"),
        (sends(GOOD, Content_Length="9" * 15), "GB are no checkpoint"),
        (sends(GOOD, Content_Length="9" * 30), "the server says a length of '99999"),
        (raw(CHUNK + b"5\r\nhello\r\n"), "connection cut at 5 bytes"),
        (raw(CHUNK + b"zz\r\nhello\r\n"), "connection cut at 0 bytes"),
        (raw(CHUNK + b"ff\r\nhello"), "connection cut at 5 bytes"),
        (raw(b"hello\r\n\r\n"), "connection cut at 0 bytes"),
        (raw(b""), "connection cut at 0 bytes"),
        (raw(b"HTTP/1.1 206 Partial Content\r\nContent-Length: 2\r\n\r\nPK"), "the server says 206"),
        (raw(b"HTTP/1.1 204 No Content\r\n\r\n"), "the server says 204"),
        (raw(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"), "the server says 403 Forbidden"),
        (redirects("ftp://example.org/a.pth"), "redirects to ftp://example.org/a.pth, which is not followed"),
        (redirects("file:///etc/passwd"), "Redirection to url 'file:///etc/passwd' is not allowed"),
        (redirects("http://127.0.0.1:99999/a.pth"), "is no address"),
        (redirects("http:///a.pth"), "."),
        (redirects("/x/a.pth"), "the server says 302 The HTTP server returned a redirect error"),
    ],
)
def test_a_wrong_answer_is_one_line_and_nothing_is_kept(
    odd: OddServer, tmp_path: Path, answer: Answer, message: str
) -> None:
    odd.answers["/x/a.pth"] = answer
    with pytest.raises(InputError, match=message) as error:
        local_checkpoint(f"{odd.url}/x/a.pth")
    assert "\n" not in str(error.value)
    assert kept(tmp_path) == []


@pytest.mark.parametrize(
    "answer",
    [
        whole(GOOD),
        sends(GOOD),
        raw(CHUNK + b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (GOOD[:99], GOOD[99:], b""))),
    ],
)
def test_a_checkpoint_is_kept_however_it_comes(odd: OddServer, answer: Answer) -> None:
    odd.answers["/a.pth"] = answer
    assert local_checkpoint(f"{odd.url}/a.pth").read_bytes() == GOOD


def test_a_kept_file_is_compared_whenever_it_is_used(odd: OddServer) -> None:
    odd.answers["/a.pth"] = whole(GOOD)
    path = local_checkpoint(f"{odd.url}/a.pth")
    assert local_checkpoint(f"{odd.url}/a.pth") == path
    assert len(odd.requests) == 1
    path.write_bytes(GOOD[:-1] + b"x")  # damaged in the cache
    assert local_checkpoint(f"{odd.url}/a.pth").read_bytes() == GOOD
    path.with_name("a.pth.sha256").unlink()  # kept by nobody who looked at it
    path.write_bytes(PAGE)
    assert local_checkpoint(f"{odd.url}/a.pth").read_bytes() == GOOD
    assert len(odd.requests) == 3


def test_a_digest_in_capital_letters_counts(odd: OddServer, tmp_path: Path) -> None:
    odd.answers |= {"/a": whole(GOOD), f"/a-{DIGEST[:8].upper()}.pth": whole(GOOD), "/b-ABCDEF01.pth": whole(GOOD)}
    assert fetch(f"{odd.url}/a", tmp_path / "a", DIGEST.upper()).read_bytes() == GOOD
    assert fetch(f"{odd.url}/a", tmp_path / "a", DIGEST).read_bytes() == GOOD
    assert len(odd.requests) == 1
    local_checkpoint(f"{odd.url}/a-{DIGEST[:8].upper()}.pth")
    with pytest.raises(DownloadError, match="is not the expected abcdef01"):
        local_checkpoint(f"{odd.url}/b-ABCDEF01.pth")


@pytest.mark.parametrize("digest", ["abc", "g" * 64, "0" * 65, f" {DIGEST}", f"sha256:{DIGEST}"])
def test_a_malformed_digest_is_refused(odd: OddServer, tmp_path: Path, digest: str) -> None:
    with pytest.raises(InputError, match="give its 64 hexadecimal digits"):
        fetch(f"{odd.url}/a", tmp_path / "a", digest)
    assert odd.requests == kept(tmp_path) == []


def _endless(odd: OddServer, block: bytes, pause: float, headers: bytes = b"HTTP/1.1 200 OK\r\n\r\n") -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(headers)
        while not odd.done.wait(pause):
            handler.wfile.write(block)

    return answer


@pytest.mark.parametrize(
    ("block", "pause", "limits", "message"),
    [
        (b"x" * 65536, 0.0, {"MOST_BYTES": 1_000_000}, "sends more than 0.0 GB; removed, this is no checkpoint"),
        (b"x", 0.05, {"WINDOW_S": 0.3}, "only . bytes came in 0 s, given up"),
        (b"", 9.0, {"STALL_S": 0.2}, "connection cut at 0 bytes .*timed out"),
    ],
)
def test_a_body_without_end(odd, tmp_path, monkeypatch, block, pause, limits, message) -> None:
    for name, value in limits.items():
        monkeypatch.setattr(transfer, name, value)
    odd.answers["/a"] = _endless(odd, block, pause)
    begin = time.monotonic()
    with pytest.raises(DownloadError, match=message):
        fetch(f"{odd.url}/a", tmp_path / "a")
    assert time.monotonic() - begin < 5
    assert kept(tmp_path) == []


def test_headers_without_end(odd, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(transfer, "ANSWER_S", 0.3)
    odd.answers["/a"] = _endless(odd, b"x", 0.05, headers=b"HTTP/1.1 200 OK\r\nX: ")
    with pytest.raises(DownloadError, match="no answer within 0.3 s"):
        fetch(f"{odd.url}/a", tmp_path / "a")


def test_a_slow_download_with_a_digest_is_resumed(odd, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(transfer, "WINDOW_S", 0.2)
    length = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(GOOD)
    odd.answers["/a"] = _endless(odd, b"P", 0.05, headers=length)
    with pytest.raises(DownloadError, match="run again to resume"):
        fetch(f"{odd.url}/a", tmp_path / "a", DIGEST)
    assert kept(tmp_path) == ["a.part"]
    odd.answers["/a"] = whole(GOOD)  # answers the range with the whole file
    assert fetch(f"{odd.url}/a", tmp_path / "a", DIGEST).read_bytes() == GOOD
    assert kept(tmp_path) == ["a"]


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("ftp://example.org/a.pth", "ftp addresses are not read; give an http"),
        ("file:///tmp/a.pth", "file addresses are not read"),
        ("s3://bucket/a.pth", "s3 addresses are not read"),
        ("http:///a.pth", "names no host"),
        ("http://:80/a.pth", "names no host"),
        ("http://127.0.0.1:99999/a.pth", "is no address .*Port out of range"),
        ("http://127.0.0.1:x/a.pth", "is no address"),
        ("http://[::1/a.pth", "is no address"),
        ("http://127.0.0.1/a b/c.pth", "has spaces or control characters"),
        ("http://127.0.0.1/a\n/c.pth", "has spaces or control characters"),
        ("http://me:secret@127.0.0.1/a.pth", "^http://127.0.0.1/a.pth: is given with a user name"),
        (f"http://{'a' * 64}.example.org/a.pth", "is no address"),
        ("http://a..b/a.pth", "is no address"),
        ("http://xn--zckzah-ä.invalid/a.pth", "."),
        ("http://münchen.invalid/a.pth", "cannot be reached"),
        ("https://127.0.0.1:1/a.pth", "cannot be reached .*refused"),
    ],
)
def test_odd_addresses(odd: OddServer, tmp_path: Path, monkeypatch, address: str, message: str) -> None:
    monkeypatch.setenv("no_proxy", "*")
    with pytest.raises(InputError, match=message) as error:
        local_checkpoint(address)
    assert "\n" not in str(error.value)
    assert "secret" not in str(error.value)
    assert kept(tmp_path) == []


def test_no_encryption_where_it_was_asked_for(odd: OddServer, tmp_path: Path) -> None:
    odd.answers["/a.pth"] = whole(GOOD)
    with pytest.raises(DownloadError, match=r"cannot be reached .*(SSL|TLS)"):
        fetch(odd.url.replace("http", "https") + "/a.pth", tmp_path / "a.pth")


def test_redirections_and_letters_beyond_ascii(odd: OddServer, tmp_path: Path) -> None:
    odd.answers |= {"/a": redirects(f"{odd.url}/m%C3%BC/b%20c?d=%2F"), "/m%C3%BC/b%20c?d=%2F": whole(GOOD)}
    assert fetch(f"{odd.url}/a", tmp_path / "a").read_bytes() == GOOD
    assert fetch(f"{odd.url.upper()}/mü/b%20c?d=%2F#part", tmp_path / "b").read_bytes() == GOOD


def test_an_impossible_proxy(odd: OddServer, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:99999")
    with pytest.raises(DownloadError, match="cannot be"):
        fetch("http://example.invalid/a", tmp_path / "a")


def test_no_home_for_downloads(monkeypatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda number: (_ for _ in ()).throw(KeyError(number)))
    with pytest.raises(InputError, match="set HOME or XDG_CACHE_HOME"):
        local_checkpoint("http://example.invalid/a.pth")
