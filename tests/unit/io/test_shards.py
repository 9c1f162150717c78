"""Arrays of volumes on disk: any id is a file of its own, and what is damaged is refused by name."""

from __future__ import annotations

import zipfile
import zlib

import numpy as np
import pytest

from mmpluld.errors import InputError
from mmpluld.io.shards import read_shard, shard_path, shard_volumes, write_shard

WANTED = {"boxes": ("float32", ("N", 4)), "scores": ("float32", ("N",))}


def _arrays(count):
    return {"boxes": np.ones((count, 4), np.float32), "scores": np.arange(count, dtype=np.float32)}


def test_any_id_is_a_file_below_the_folder(tmp_path):
    ids = ["000001_01_01", "a/b", "..", ".hidden", ".tmp-mmpluld-x", "Köln %2F", "a.npz"]
    for number, name in enumerate(ids):
        write_shard(tmp_path, name, _arrays(number))
    assert shard_volumes(tmp_path) == sorted(ids)
    assert all(shard_path(tmp_path, name).parent == tmp_path / "volumes" for name in ids)
    for number, name in enumerate(ids):
        assert read_shard(tmp_path, name, WANTED, "again")["scores"].tolist() == list(range(number))


def test_equal_arrays_give_equal_bytes(tmp_path):
    for name in "ab":
        write_shard(tmp_path, name, _arrays(3))
    assert shard_path(tmp_path, "a").read_bytes() == shard_path(tmp_path, "b").read_bytes()


def test_faulty_shards(tmp_path):
    write_shard(tmp_path, "v", _arrays(2))
    path = shard_path(tmp_path, "v")
    with pytest.raises(InputError, match=r"volumes/w\.npz: cannot be read"):
        read_shard(tmp_path, "w", WANTED, "propose again")
    with pytest.raises(InputError, match="holds boxes, scores; needed are boxes, propose again"):
        read_shard(tmp_path, "v", {"boxes": ("float32", ("N", 4))}, "propose again")
    for wanted in (("float64", ("N", 4)), ("float32", ("N", 5)), ("float32", ("N",))):
        with pytest.raises(InputError, match=r"boxes is float32 \(2, 4\); needed is"):
            read_shard(tmp_path, "v", {**WANTED, "boxes": wanted}, "propose again")
    write_shard(tmp_path, "odd", {**_arrays(2), "scores": np.zeros(3, np.float32)})
    with pytest.raises(InputError, match=r"scores is float32 \(3,\)"):
        read_shard(tmp_path, "odd", WANTED, "propose again")
    data = path.read_bytes()
    for damaged in (data[: len(data) // 2], b"no archive", data[:80] + bytes(8) + data[88:]):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"v\.npz: (damaged|is empty|cannot)"):
            read_shard(tmp_path, "v", WANTED, "propose again")


def test_a_flipped_bit_is_refused_or_changes_nothing(tmp_path):
    """Also those that make of a shard an encrypted one, one packed otherwise, or one that zlib cannot unpack."""
    wanted, kinds = {"scores": _arrays(2)["scores"]}, {"scores": WANTED["scores"]}
    write_shard(tmp_path, "v", wanted)
    path = shard_path(tmp_path, "v")
    data = path.read_bytes()
    causes = set()
    for bit in range(0, 8 * len(data), 8):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        try:
            found = read_shard(tmp_path, "v", kinds, "again")
        except InputError as error:
            causes.add(type(error.__cause__))
        else:
            assert np.array_equal(found["scores"], wanted["scores"])
    assert {zlib.error, NotImplementedError, RuntimeError, zipfile.BadZipFile} <= causes
