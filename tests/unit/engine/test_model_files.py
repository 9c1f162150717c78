"""The bundle of a model, put into a folder: complete and right, or not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmpluld.cli.main import main
from mmpluld.engine.model_files import download_model
from mmpluld.errors import InputError
from mmpluld.inputs import sha256_of
from mmpluld.zoo.index import load_index


def test_bundle(toy_zoo: Path, tmp_path: Path) -> None:
    bundle = download_model("toy_web", tmp_path / "out")
    assert bundle == tmp_path / "out" / load_index()["toy_web"].weights.rpartition("/")[2]
    assert sha256_of(bundle) == load_index()["toy_web"].sha256
    assert download_model("zoo:toy_web", tmp_path / "out") == bundle


def test_shipped_weights_need_no_network(toy_zoo: Path, tmp_path: Path, server) -> None:
    bundle = download_model("toy_shipped", tmp_path / "out")
    assert bundle.read_bytes() == b"shipped weights"
    assert server.requests == []


def test_again_does_nothing(toy_zoo: Path, tmp_path: Path, server) -> None:
    first = download_model("toy_web", tmp_path)
    assert download_model("toy_web", tmp_path) == first
    assert len(server.requests) == 1


def test_other_content_is_kept_unless_told(toy_zoo: Path, tmp_path: Path) -> None:
    path = download_model("toy_web", tmp_path)
    good = path.read_bytes()
    path.write_bytes(b"mine")
    with pytest.raises(InputError, match=rf"{path.name}: is there with other content; --overwrite replaces it"):
        download_model("toy_web", tmp_path)
    assert path.read_bytes() == b"mine"
    download_model("toy_web", tmp_path, overwrite=True)
    assert path.read_bytes() == good


def test_command(toy_zoo: Path, tmp_path: Path, server, capsys: pytest.CaptureFixture) -> None:
    arguments = ["download", "toy_web", "--dest", str(tmp_path / "out")]
    assert main(arguments) == 0
    assert capsys.readouterr().out.splitlines() == [str(download_model("toy_web", tmp_path / "out"))]
    server.files.clear()
    assert main([*arguments[:-1], str(tmp_path / "new")]) == 2
    assert "404" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("toy_wbe", "did you mean 'toy_web'?"),
        ("toy_none", "no weights are published"),
        ("../toy_web", "is no model of the zoo"),
    ],
)
def test_bad_name(toy_zoo: Path, tmp_path: Path, capsys: pytest.CaptureFixture, name: str, message: str) -> None:
    assert main(["download", name, "--dest", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_dest_is_a_file(toy_zoo: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match="is a file; give a folder to write to"):
        download_model("toy_web", tmp_path / "file")
