"""Downloads against a server on the loopback interface: resumed, checked, whole or absent."""

from __future__ import annotations

import hashlib
import io
import multiprocessing
import resource
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmpluld.errors import InputError
from mmpluld.inputs import sha256_of
from mmpluld.zoo.download import DownloadError, fetch, local_checkpoint

CONTENT = bytes(range(256)) * 1000  # 256,000 bytes: several blocks
DIGEST = hashlib.sha256(CONTENT).hexdigest()


def checkpoint(content: bytes) -> bytes:
    """A file like those that torch.save writes."""
    with io.BytesIO() as stream:
        with zipfile.ZipFile(stream, "w") as archive:
            archive.writestr(zipfile.ZipInfo("archive/data.pkl"), content)
        return stream.getvalue()


def part_of(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class TestFetch:
    def test_whole_file(self, server, tmp_path: Path) -> None:
        server.files["/a.pth"] = CONTENT
        target = fetch(f"{server.url}/a.pth", tmp_path / "new/a.pth", DIGEST)
        assert target.read_bytes() == CONTENT
        assert left(tmp_path / "new") == ["a.pth"]

    def test_empty_file(self, server, tmp_path: Path) -> None:
        server.files["/a"] = b""
        assert fetch(f"{server.url}/a", tmp_path / "a", hashlib.sha256(b"").hexdigest()).read_bytes() == b""

    def test_server_that_says_no_length(self, server, tmp_path: Path) -> None:
        server.files["/a"], server.announce = CONTENT, False
        assert fetch(f"{server.url}/a", tmp_path / "a", DIGEST).read_bytes() == CONTENT

    def test_right_file_is_not_fetched_again(self, server, tmp_path: Path) -> None:
        (tmp_path / "a").write_bytes(CONTENT)
        fetch(f"{server.url}/a", tmp_path / "a", DIGEST)
        assert server.requests == []

    def test_wrong_file_is_replaced(self, server, tmp_path: Path) -> None:
        server.files["/a"] = CONTENT
        (tmp_path / "a").write_bytes(b"old")
        assert fetch(f"{server.url}/a", tmp_path / "a", DIGEST).read_bytes() == CONTENT

    def test_cut_then_resumed(self, server, tmp_path: Path) -> None:
        server.files["/a"], server.cut_after = CONTENT, 100_000
        with pytest.raises(DownloadError, match=r"connection cut at 100000 .*run again to resume") as error:
            fetch(f"{server.url}/a", tmp_path / "a", DIGEST)
        assert "\n" not in str(error.value)
        assert left(tmp_path) == ["a.part"]
        assert fetch(f"{server.url}/a", tmp_path / "a", DIGEST).read_bytes() == CONTENT
        assert server.requests == [("/a", None), ("/a", "bytes=100000-")]
        assert left(tmp_path) == ["a"]

    @pytest.mark.parametrize("have", [1, 255_999, 256_000, 256_001])
    @pytest.mark.parametrize("ranges", [True, False])
    def test_any_part_ends_in_the_right_file(self, server, tmp_path: Path, have: int, ranges: bool) -> None:
        server.files["/a"], server.ranges = CONTENT, ranges
        part_of(tmp_path / "a").write_bytes((CONTENT + b"more")[:have])
        assert fetch(f"{server.url}/a", tmp_path / "a", DIGEST).read_bytes() == CONTENT
        assert left(tmp_path) == ["a"]

    def test_part_of_another_file_is_found_out(self, server, tmp_path: Path) -> None:
        server.files["/a"] = CONTENT
        part_of(tmp_path / "a").write_bytes(b"x" * 1000)
        with pytest.raises(DownloadError, match=f"is not the expected {DIGEST}; removed; run again"):
            fetch(f"{server.url}/a", tmp_path / "a", DIGEST)
        assert left(tmp_path) == []
        assert fetch(f"{server.url}/a", tmp_path / "a", DIGEST).read_bytes() == CONTENT

    def test_wrong_content_names_both_digests(self, server, tmp_path: Path) -> None:
        server.files["/a"] = b"other"
        found = hashlib.sha256(b"other").hexdigest()
        with pytest.raises(DownloadError, match=f"SHA-256 {found} is not the expected {DIGEST}") as error:
            fetch(f"{server.url}/a", tmp_path / "a", DIGEST)
        assert "\n" not in str(error.value)
        assert left(tmp_path) == []

    def test_wrong_content_keeps_an_earlier_file(self, server, tmp_path: Path) -> None:
        server.files["/a"] = b"other"
        (tmp_path / "a").write_bytes(b"old")
        with pytest.raises(DownloadError, match="removed"):
            fetch(f"{server.url}/a", tmp_path / "a", DIGEST)
        assert (tmp_path / "a").read_bytes() == b"old"

    def test_missing_on_the_server(self, server, tmp_path: Path) -> None:
        with pytest.raises(DownloadError, match=r"/a: the server says 404 Not Found; check the address"):
            fetch(f"{server.url}/a", tmp_path / "a", DIGEST)
        assert not (tmp_path / "a").exists()

    def test_nobody_listens(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{free.getsockname()[1]}/a"
            with pytest.raises(DownloadError, match="cannot be reached .*check the network") as error:
                fetch(url, tmp_path / "a")
        assert "\n" not in str(error.value)

    def test_unknown_host(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("no_proxy", "*")
        with pytest.raises(DownloadError, match="cannot be reached"):
            fetch("http://no-such-host.invalid/a", tmp_path / "a")

    def test_local_file_and_file_address(self, tmp_path: Path) -> None:
        source = tmp_path / "with space.bin"
        source.write_bytes(CONTENT)
        assert fetch(str(source), tmp_path / "a", DIGEST).read_bytes() == CONTENT
        part_of(tmp_path / "b").write_bytes(b"rest of an earlier copy")
        assert fetch(source.as_uri(), tmp_path / "b", DIGEST).read_bytes() == CONTENT
        with pytest.raises(InputError, match="no such file"):
            fetch(str(tmp_path / "none"), tmp_path / "c")

    def test_folder_that_cannot_be_made(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(InputError, match="cannot be written"):
            fetch("http://127.0.0.1:1/a", tmp_path / "file/a")

    def test_full_disk(self, server, tmp_path: Path) -> None:
        """A limit on the size of files stands for a disk that fills up."""
        server.files["/a"] = CONTENT
        code = (
            "import sys; from mmpluld.zoo.download import fetch, DownloadError\n"
            "try: fetch(*sys.argv[1:])\n"
            "except DownloadError as error: print(error)"
        )
        command = [sys.executable, "-c", code, f"{server.url}/a", str(tmp_path / "a"), DIGEST]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (70_000, 70_000)),
        )
        assert "a.part: cannot be written (File too large); make room" in done.stdout, done.stderr
        assert left(tmp_path) == ["a.part"]
        assert fetch(f"{server.url}/a", tmp_path / "a", DIGEST).read_bytes() == CONTENT

    def test_two_processes_share_one_download(self, server, tmp_path: Path) -> None:
        server.files["/a"] = CONTENT
        context = multiprocessing.get_context("spawn")
        arguments = (f"{server.url}/a", str(tmp_path / "a"), DIGEST)
        processes = [context.Process(target=fetch, args=arguments) for _ in range(3)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        assert [process.exitcode for process in processes] == [0, 0, 0]
        assert len(server.requests) == 1
        assert left(tmp_path) == ["a"]
        assert (tmp_path / "a").read_bytes() == CONTENT

    @settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(cuts=st.lists(st.integers(0, 200_000), max_size=4), size=st.integers(0, 200_000))
    def test_any_cuts_end_in_the_same_file(self, server, tmp_path: Path, cuts: list[int], size: int) -> None:
        server.files["/a"] = CONTENT[:size]
        digest = hashlib.sha256(CONTENT[:size]).hexdigest()
        for cut in cuts:
            server.cut_after = cut
            try:
                fetch(f"{server.url}/a", tmp_path / "a", digest)
            except DownloadError as error:
                assert "run again to resume" in str(error)
                assert not (tmp_path / "a").exists()
        server.cut_after = None
        assert sha256_of(fetch(f"{server.url}/a", tmp_path / "a", digest)) == digest
        (tmp_path / "a").unlink()


class TestLocalCheckpoint:
    @pytest.fixture(autouse=True)
    def _cache(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def test_path_stays_a_path(self, tmp_path: Path) -> None:
        assert local_checkpoint("a.pth") == Path("a.pth")
        assert local_checkpoint(tmp_path) == tmp_path

    def test_web_address_is_kept(self, server, tmp_path: Path) -> None:
        server.files[f"/x/a-{DIGEST[:8]}.pth"] = CONTENT
        url = f"{server.url}/x/a-{DIGEST[:8]}.pth?version=1"
        server.files[f"/x/a-{DIGEST[:8]}.pth?version=1"] = CONTENT
        path = local_checkpoint(url)
        assert path.is_relative_to(tmp_path / "cache/mmpluld")
        assert path.name == f"a-{DIGEST[:8]}.pth"
        assert local_checkpoint(url) == path
        assert len(server.requests) == 1

    def test_same_name_elsewhere_is_another_file(self, server) -> None:
        server.files |= {"/1/a.pth": checkpoint(b"one"), "/2/a.pth": checkpoint(b"two")}
        paths = [local_checkpoint(f"{server.url}/{folder}/a.pth") for folder in (1, 2)]
        assert [path.read_bytes() for path in paths] == [checkpoint(b"one"), checkpoint(b"two")]

    def test_digits_in_the_name_are_checked(self, server) -> None:
        server.files["/a-00000000.pth"] = CONTENT
        with pytest.raises(DownloadError, match=f"SHA-256 {DIGEST[:8]} is not the expected 00000000"):
            local_checkpoint(f"{server.url}/a-00000000.pth")

    @pytest.mark.parametrize("path", ["/", "/..", "/%2e%2e", "/a/%2e%2e%2f..", "/.hidden"])
    def test_names_cannot_leave_the_folder(self, server, path: str) -> None:
        with pytest.raises(InputError, match="ends in no usable file name"):
            local_checkpoint(server.url + path)

    def test_zoo_names(self, toy_zoo: Path, server) -> None:
        assert local_checkpoint("zoo:toy_shipped").parent == toy_zoo / "checkpoints"
        assert local_checkpoint("zoo:toy_web").read_bytes() == CONTENT
        with pytest.raises(InputError, match="did you mean 'toy_web'"):
            local_checkpoint("zoo:toy_wb")

    def test_damaged_shipped_weights(self, toy_zoo: Path) -> None:
        local_checkpoint("zoo:toy_shipped").write_bytes(b"broken")
        with pytest.raises(DownloadError, match="missing or damaged .*install the package anew"):
            local_checkpoint("zoo:toy_shipped")


class TestLoading:
    """mmengine's loader (``load_from``) and ours take web addresses, and read nothing that would run code."""

    @pytest.fixture(autouse=True)
    def _cache(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def test_weights_from_the_web(self, server) -> None:
        import torch
        from mmengine.runner import CheckpointLoader

        from mmpluld.engine.checkpoint import load_weights

        model = torch.nn.Linear(2, 1)
        buffer = io.BytesIO()
        torch.save({"state_dict": {"weight": torch.ones(1, 2), "bias": torch.zeros(1)}}, buffer)
        digits = hashlib.sha256(buffer.getvalue()).hexdigest()[:8]
        server.files |= {f"/a-{digits}.pth": buffer.getvalue(), "/a-00000000.pth": buffer.getvalue()}
        url = f"{server.url}/a-{digits}.pth"
        assert CheckpointLoader.load_checkpoint(url)["state_dict"]["weight"].tolist() == [[1.0, 1.0]]
        load_weights(model, url)
        assert model.weight.tolist() == [[1.0, 1.0]]
        with pytest.raises(DownloadError, match="is not the expected 00000000"):
            CheckpointLoader.load_checkpoint(f"{server.url}/a-00000000.pth")

    def test_code_from_the_web_is_refused(self, server) -> None:
        import pickle

        from mmengine.runner import CheckpointLoader

        server.files["/a.pth"] = pickle.dumps(print)
        with pytest.raises(InputError, match=r"a\.pth: "):
            CheckpointLoader.load_checkpoint(f"{server.url}/a.pth")
