"""A zoo of one small model, and a web server on the loopback interface."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml


class Server:
    """Serves files from memory and keeps the ``Range`` header of each request.

    Attributes:
        files: Path -> content.
        ranges: Whether ranges are honoured.
        cut_after: Bytes after which a body is cut, once.
        announce: Whether the length of a body is sent.
        requests: (path, Range header) in order.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.ranges = True
        self.announce = True
        self.cut_after: int | None = None
        self.requests: list[tuple[str, str | None]] = []
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def close(self) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                wanted = self.headers.get("Range")
                server.requests.append((self.path, wanted))
                content = server.files.get(self.path)
                if content is None:
                    self.send_error(404)
                    return
                start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and server.ranges else 0
                if start and start >= len(content):
                    self.send_error(416)
                    return
                self.send_response(206 if start else 200)
                if start:
                    self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
                body = content[start:]
                if server.announce:
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if server.cut_after is not None:
                    body, server.cut_after = body[: server.cut_after], None
                self.wfile.write(body)

            def log_message(self, *arguments: object) -> None:
                pass

        return Handler


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = Server()
    yield server
    server.close()


@pytest.fixture
def make_zoo(tmp_path: Path) -> Callable[..., Path]:
    """Function that writes a zoo with the entries given and returns its root."""

    def make(*entries: dict) -> Path:
        root = tmp_path / "zoo"
        folder = root / "configs/toy"
        folder.mkdir(parents=True, exist_ok=True)
        content = {"Collections": [{"Name": "Toy"}], "Models": list(entries)}
        (folder / "metafile.yml").write_text(yaml.safe_dump(content, sort_keys=False))
        (root / "model-index.yml").write_text("Import: [configs/toy/metafile.yml]\n")
        for entry in entries:
            (folder / f"{entry['Name']}.py").write_text("num_slices = 3\ntrain_cfg = dict(max_epochs=2)\n")
        return root

    return make


@pytest.fixture
def entry() -> Callable[..., dict]:
    """Function that makes a valid entry of a metafile, with weights if their content and folder are given."""

    def make(name: str = "toy_3s_phantom", content: bytes | None = None, base: str = "", **changes: object) -> dict:
        made = {
            "Name": name,
            "In Collection": "Toy",
            "Config": f"configs/toy/{name}.py",
            "Metadata": {"Slices": 3, "Epochs": 2},
        }
        if content is not None:
            sha256 = hashlib.sha256(content).hexdigest()
            made["Metadata"].update(SHA256=sha256, Size=len(content))
            made["Weights"] = f"{base}/{name}-{sha256[:8]}.pth"
        return {**made, **changes}

    return make
