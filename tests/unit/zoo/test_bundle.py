"""Bundles: the same bytes every time, and refused where anything in them is not as their index says."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path

import pytest

from mmpluld.errors import InputError
from mmpluld.zoo.bundle import MEMBERS, Bundle, bundle_bytes, is_bundle

CONTENT = {"card.md": b"# toy\n", "config.json": b'{"model": {}}', "weights.safetensors": b"w" * 100}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "toy.zip"
    file.write_bytes(bundle_bytes("toy", {"epoch": 3}, CONTENT))
    return file


def rewritten(path: Path, change, compression: int = zipfile.ZIP_STORED) -> Path:
    """The bundle with its members, {name: bytes}, changed in place."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def test_what_goes_in_comes_out(path: Path) -> None:
    bundle = Bundle.open(path)
    assert (bundle.name, dict(bundle.provenance)) == ("toy", {"epoch": 3})
    assert {name: bundle.read(name) for name in bundle.members} == CONTENT
    assert list(bundle.members) == [name for name in MEMBERS if name in CONTENT]
    assert bundle.json("config.json") == {"model": {}}
    with pytest.raises(InputError, match=r"toy.zip: holds no operating_points.json; it holds config.json, "):
        bundle.read("operating_points.json")


def test_same_content_is_the_same_bytes_in_any_order(path: Path) -> None:
    again = bundle_bytes("toy", {"epoch": 3}, dict(reversed(CONTENT.items())))
    assert again == path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({**CONTENT, "run.py": b""}, "run.py of 0 bytes; no member of a bundle"),
        ({"config.json": b"{}"}, "a bundle without weights.safetensors"),
        ({**CONTENT, "card.md": bytes((1 << 20) + 1)}, "larger than it may be"),
    ],
)
def test_what_no_bundle_can_hold(members: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        bundle_bytes("toy", {}, members)


def _index(content: dict, **changes: object) -> None:
    content["bundle.json"] = json.dumps({**json.loads(content["bundle.json"]), **changes}).encode()


def _sized(members: dict) -> None:
    index = json.loads(members["bundle.json"])
    index["members"]["card.md"]["size"] = 7
    members["bundle.json"] = json.dumps(index).encode()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda members: members.update({"evil.py": b"import os"}), "its members are not those that bundle.json lists"),
        (lambda members: members.pop("card.md"), "its members are not those"),
        (_sized, "its members are not those"),
        (lambda members: _index(members, schema="mmpluld.bundle/9"), "of the form mmpluld.bundle/9, read is"),
        (lambda members: _index(members, name="a\nb"), "lacks name, provenance or members"),
        (lambda members: _index(members, members={"../x": {"size": 1, "sha256": ""}}), "lists '../x'; allowed are"),
        (lambda members: _index(members, members={}), "it lacks config.json"),
        (lambda members: members.update({"bundle.json": b"[]"}), "bundle.json is no index of a bundle"),
        (lambda members: members.update({"bundle.json": b"{"}), "bundle.json: not valid JSON"),
    ],
)
def test_index_that_does_not_fit(path: Path, change, message: str) -> None:
    rewritten(path, change)
    with pytest.raises(InputError, match=message) as error:
        Bundle.open(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_packed_members(path: Path) -> None:
    rewritten(path, lambda members: None, zipfile.ZIP_DEFLATED)
    with pytest.raises(InputError, match="is packed or locked") as error:
        Bundle.open(path)
    assert str(error.value).count(str(path)) == 1  # not one message within another


def test_other_content_of_the_same_size(path: Path) -> None:
    rewritten(path, lambda members: members.update({"weights.safetensors": b"v" * 100}))
    with pytest.raises(InputError, match="the SHA-256 of weights.safetensors is another than in bundle.json"):
        Bundle.open(path).read("weights.safetensors")


def test_every_cut_is_noticed(path: Path) -> None:
    content = path.read_bytes()
    for length in range(50, len(content), 37):
        path.write_bytes(content[:length])
        with pytest.raises(InputError, match="is no whole bundle"):
            Bundle.open(path)


def test_every_flipped_byte_is_noticed_or_harmless(path: Path) -> None:
    content = path.read_bytes()
    digest = {name: hashlib.sha256(value).hexdigest() for name, value in CONTENT.items()}
    for place in range(0, len(content), 11):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x41]) + content[place + 1 :])
        try:
            bundle = Bundle.open(path)
            read = {name: hashlib.sha256(bundle.read(name)).hexdigest() for name in bundle.members}
        except InputError as error:
            assert str(error).count(str(path)) == str(error).count("; ") == 1  # one message, with one next step
            continue
        assert read == digest


def test_other_files_are_none(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("data.pkl", b"")
    assert not is_bundle(tmp_path / "other.zip")
    assert not is_bundle(tmp_path / "none.zip")
    with pytest.raises(InputError, match=r"other.zip: is no bundle; give a bundle that"):
        Bundle.open(tmp_path / "other.zip")
