"""Files before they are read."""

from pathlib import Path

import pytest

from mmpluld.inputs import sha256_of, why_unreadable


@pytest.mark.parametrize(
    ("content", "digest"),
    [
        (b"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        (b"a" * 1_000_000, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"),
        (b"\0" * (1 << 21), "5647f05ec18958947d32874eeb788fa396a05d0bab7c1b71f112ceb7e9b31eee"),
    ],
    ids=["empty", "a million times a", "two blocks"],
)
def test_digests_known_from_elsewhere(content: bytes, digest: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    assert sha256_of(tmp_path / "file") == digest


def test_only_a_link_to_nothing_is_blamed_for_a_missing_file(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "good").symlink_to(tmp_path / "there")
    (tmp_path / "bad").symlink_to(tmp_path / "gone")
    assert why_unreadable(tmp_path / "good/volume.npy", FileNotFoundError()) == "no such file"
    told = why_unreadable(tmp_path / "bad/volume.npy", FileNotFoundError())
    assert told == f"{tmp_path / 'bad'} is a link to {tmp_path / 'gone'}, which does not exist"
