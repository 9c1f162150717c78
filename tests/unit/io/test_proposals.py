"""Proposal stores: what is saved comes back, what is damaged or of something else is refused."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from mmpluld.errors import InputError
from mmpluld.io.proposals import ProposalHeader, ProposalStore, VolumeProposals
from mmpluld.version import __version__

HEADER = ProposalHeader(
    config="tiny",
    config_sha256="c" * 64,
    checkpoint="epoch_1.pth",
    checkpoint_sha256="a" * 64,
    annotations="train.json",
    annotations_sha256="b" * 64,
    experts=("deeplesion", "luna16"),
    settings={"iou_thr": 0.5},
)


def proposals(volume: str = "v", count: int = 5, **changes: object) -> VolumeProposals:
    draw = np.random.default_rng(0)
    corner = draw.uniform(0, 100, (count, 2))
    values = {
        "volume": volume,
        "gap_mm": 2.0,
        "interval_mm": 5.0,
        "runs": np.array([[103, 4], [110, 3]]),
        "boxes": np.hstack([corner, corner + draw.uniform(1, 20, (count, 2))]).astype(np.float32),
        "scores": draw.random(count).astype(np.float32),
        "expert": np.arange(count) % 2,
        "run": np.arange(count) * 2 // count,
        "grid": np.arange(count) % 3,
        "slice": np.where(np.arange(count) * 2 // count, 110, 103) + np.arange(count) % 3,
        "tracklet": np.arange(count) - 1,
    }
    return VolumeProposals(**{**values, **changes})


@pytest.mark.parametrize("volume", ["000001_01_01", "1.3.6.1.4", "a/b", "..", ".tmp-mmpluld-x", "%2E", "é ü", ""])
def test_what_is_saved_comes_back(tmp_path, volume):
    store = ProposalStore.create(tmp_path / "store", HEADER)
    saved = proposals(volume)
    store.save(saved)
    assert ProposalStore(tmp_path / "store").header == HEADER
    assert store.volumes == [volume]
    assert store.path(volume).parent == tmp_path / "store" / "volumes"
    found = store.load(volume)
    for field in dataclasses.fields(saved):
        wanted, value = getattr(saved, field.name), getattr(found, field.name)
        assert np.array_equal(value, wanted), field.name
    assert found.num_tracklets == 4


def test_volume_without_boxes(tmp_path):
    store = ProposalStore.create(tmp_path, HEADER)
    store.save(proposals(count=0))
    found = store.load("v")
    assert found.boxes.shape == (0, 4) and found.num_tracklets == 0
    assert store.missing(["w", "v", "u"]) == ["w", "u"]


def test_equal_proposals_make_equal_files(tmp_path):
    files = []
    for name in ("one", "two"):
        store = ProposalStore.create(tmp_path / name, HEADER)
        store.save(proposals())
        files.append(store.path("v").read_bytes())
    assert files[0] == files[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"checkpoint_sha256": "d" * 64}, r'checkpoint "\S+" \(SHA-256 .{16}\), not "\S+" \(SHA-256 d{16}\)'),
        ({"config_sha256": "d" * 64}, r'config "\S+" \(SHA-256 '),
        ({"annotations_sha256": "d" * 64}, r'annotations "\S+" \(SHA-256 '),
        ({"settings": {"iou_thr": 0.6}}, "settings"),
        ({"fold": (0, 5, 0)}, "fold null"),
    ],
)
def test_store_of_something_else_is_refused(tmp_path, change, message):
    ProposalStore.create(tmp_path, HEADER)
    ProposalStore.create(tmp_path, HEADER)  # the same again is no fault, nor are its files by other names
    ProposalStore.create(
        tmp_path, dataclasses.replace(HEADER, config="other", checkpoint="b.pth", annotations="b.json")
    )
    with pytest.raises(InputError, match=f"these proposals are of {message}.*choose another folder"):
        ProposalStore.create(tmp_path, dataclasses.replace(HEADER, **change))
    assert ProposalStore(tmp_path).header == HEADER


def test_a_header_that_is_none_is_refused(tmp_path):
    (tmp_path / "proposals.json").write_text("[]")
    with pytest.raises(InputError, match=r"proposals\.json: schema is None"):
        ProposalStore.create(tmp_path, HEADER)


def test_a_store_that_another_version_began_is_noted(tmp_path, capsys):
    ProposalStore.create(tmp_path, HEADER)
    ProposalStore.create(tmp_path, HEADER)
    assert capsys.readouterr().err == ""
    path = tmp_path / "proposals.json"
    path.write_text(path.read_text().replace(f'"version": "{__version__}"', '"version": "0.1.0"'))
    assert ProposalStore.create(tmp_path, HEADER).header == HEADER
    assert (
        f"proposals.json: begun by mmpluld 0.1.0, goes on with {__version__}; another folder" in capsys.readouterr().err
    )


def test_shards_without_header_are_refused(tmp_path):
    ProposalStore.create(tmp_path, HEADER).save(proposals())
    (tmp_path / "proposals.json").unlink()
    with pytest.raises(InputError, match="is gone, but the folder holds shards"):
        ProposalStore.create(tmp_path, HEADER)


def test_header_that_is_none_is_refused(tmp_path):
    with pytest.raises(InputError, match="mmpluld propose"):
        ProposalStore(tmp_path)
    ProposalStore.create(tmp_path, HEADER)
    path = tmp_path / "proposals.json"
    good = json.loads(path.read_text())
    for change, message in (
        ({"schema": "mmpluld.detections/1"}, "allowed is 'mmpluld.proposals/1'"),
        ({"experts": []}, "experts is"),
        ({"fold": [1]}, "fold is"),
    ):
        path.write_text(json.dumps({**good, **change}))
        with pytest.raises(InputError, match=message):
            ProposalStore(tmp_path)
    del good["settings"]
    path.write_text(json.dumps(good))
    with pytest.raises(InputError, match="lacks settings"):
        ProposalStore(tmp_path)


def test_damaged_shards_are_refused(tmp_path):
    store = ProposalStore.create(tmp_path, HEADER)
    with pytest.raises(InputError, match="cannot be read"):
        store.load("v")
    store.save(proposals())
    path = store.path("v")
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    with pytest.raises(InputError, match=r"volumes/v\.npz: damaged .*; remove it and run `mmpluld propose` again"):
        store.load("v")
    path.write_bytes(whole)
    store.path("w").write_bytes(whole)
    with pytest.raises(InputError, match="is of volume 'v'"):
        store.load("w")
    with path.open("wb") as stream:
        np.savez(stream, volume=np.str_("v"), gap_mm=2.0, interval_mm=5.0, runs=np.array([[{}]]))
    with pytest.raises(InputError, match="damaged .*Object arrays"):  # objects, which would have to be unpickled
        store.load("v")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"expert": np.full(5, 2)}, "expert goes up to 2, there are 2"),
        ({"run": np.full(5, 2)}, "run goes up to 2, there are 2"),
        ({"grid": np.full(5, -1)}, "grid goes down to -1, below 0"),
        ({"slice": np.full(5, 109)}, "slice outside its run"),
        ({"tracklet": np.full(5, -2)}, "tracklet goes down to -2, below -1"),
        ({"scores": np.full(5, np.nan)}, "not all finite"),
        ({"scores": np.array([0.5, 0.5, -0.25, 0.5, 0.5])}, r"scores go from -0\.25 to 0\.5, allowed is 0 to 1"),
        ({"scores": np.array([0.5, 0.5, 1.5, 0.5, 0.5])}, r"scores go from 0\.5 to 1\.5"),
        ({"boxes": np.tile([5.0, 1.0, 5.0, 9.0], (5, 1))}, "a box has no area"),
        ({"tracklet": np.array([0, -1, -1, 0, 1]), "run": np.zeros(5, int), "slice": np.full(5, 103)}, "two boxes on"),
        ({"boxes": np.zeros((4, 4))}, "boxes has shape"),
        ({"interval_mm": 0.0}, "interval_mm 0"),
    ],
)
def test_proposals_that_contradict_themselves_are_not_saved(tmp_path, change, message):
    store = ProposalStore.create(tmp_path, HEADER)
    with pytest.raises(ValueError, match=message):
        store.save(proposals(**change))
    assert store.volumes == []
