"""`mmpluld embed`: which boxes are embedded, what is refused, and that a second call does what is missing."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope

from mmpluld.cli.main import main
from mmpluld.engine.config import load_config
from mmpluld.engine.seen_patients import NUMBERED
from mmpluld.errors import InputError
from mmpluld.inference.embed import VolumeEmbedder, embed, embed_volume, tracklet_centres
from mmpluld.io.array_store import write_array
from mmpluld.io.embeddings import EmbeddingStore
from mmpluld.io.proposals import ProposalHeader, ProposalStore, VolumeProposals
from mmpluld.io.shards import shard_path
from mmpluld.io.slice_sources import open_source
from mmpluld.registry import MODELS
from mmpluld.structures import AnnotationSet, LesionRecord, VolumeRecord

CONFIG = "lesanet_vgg16_phantom"
SMALL = ["model.widths=(4,4,4,4)", "model.depths=(1,1,1,1)", "model.stage_channels=4", "model.embed_channels=6"]


def _volume(name, patient="p1"):
    source = {"kind": "npy", "path": f"{name}.npy"}
    return VolumeRecord(name, patient, "1", "1", source, 5, 6, (40, 44), (2.0, 2.8, 2.8))


def _proposals(name):
    """Tracklet 0 on grid slices 0 to 2, tracklet 1 on slice 4, and a box that is in none."""
    boxes = np.array([[4, 4, 10, 10], [5, 4, 11, 10], [6, 4, 12, 10], [20, 20, 30, 28], [1, 1, 9, 9]], float)
    grid, tracklet = np.array([2, 0, 1, 4, 3]), np.array([0, 0, 0, 1, -1])
    zeros = np.zeros(5, np.int64)
    return VolumeProposals(
        name, 2.0, 2.0, np.array([[5, 6]]), boxes, np.full(5, 0.5), zeros, zeros, grid, grid + 5, tracklet
    )


@pytest.fixture
def data(tmp_path):
    """Two volumes, three lesions, proposals, and weights."""
    rng = np.random.default_rng(0)
    for name in ("a", "b/c"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_array(tmp_path / f"{name}.npy", rng.normal(40, 80, (6, 40, 44)).astype(np.int16))
    boxes = [[6, 12, 20, 20, 26], [7, 13, 21, 22, 28], [8, 20, 20, 30, 28]]
    lesions = [
        LesionRecord(7, "a", (4, 4, 6, 10, 10, 7), key_slice=6),
        LesionRecord(9, "b/c", (12, 20, 6, 30, 28, 10), attributes={"slice_boxes": boxes}),
        LesionRecord(11, "a", (1, 1, 8, 9, 9, 9), key_slice=8, ignore=True),
    ]
    header = {"name": "toy", "label_scope": "x"}
    AnnotationSet(header, [_volume("a"), _volume("b/c")], lesions).save(tmp_path / "ann.json")
    header = ProposalHeader("net", "", "w", "", "ann.json", "", ("toy",), {})
    store = ProposalStore.create(tmp_path / "proposals", header)
    for name in ("a", "b/c"):
        store.save(_proposals(name))
    _save_weights(tmp_path / "weights.pth")
    return tmp_path


def _save_weights(path, seed=0, patients=()):
    torch.manual_seed(seed)
    with DefaultScope.overwrite_default_scope("mmpluld"):
        model = MODELS.build(load_config(CONFIG, SMALL).model)
    torch.save({"state_dict": model.state_dict(), "meta": {NUMBERED: list(patients)}}, path)


def _embed(data, out="out", **changes):
    settings = {"proposals": data / "proposals", "cfg_options": SMALL, "device": "cpu"} | changes
    return embed(CONFIG, data / "weights.pth", data / "ann.json", data, data / out, **settings)


def test_every_lesion_and_tracklet_has_a_vector(data):
    done = _embed(data)
    assert (done.num_volumes, done.num_found, done.num_made) == (2, 0, 2)
    store = EmbeddingStore(data / "out")
    assert store.volumes == ["a", "b/c"]
    found = store.load("a")
    assert (found.lesion_ids.tolist(), found.tracklets.tolist()) == ([7], [0, 1])
    assert store.load("b/c").lesion_ids.tolist() == [9]
    # The lesion on slice 6 and the middle box of tracklet 0 there differ by where the patch is cut alone.
    with DefaultScope.overwrite_default_scope("mmpluld"):
        embedder = VolumeEmbedder(load_config(CONFIG, SMALL), data / "weights.pth", "cpu", 1)
    volume = _volume("a")
    places = [(6, (6.0, 4.0, 12.0, 10.0)), (9, (20.0, 20.0, 30.0, 28.0))]
    wanted = embedder.vectors(volume, open_source(volume, data), places)
    np.testing.assert_allclose(found.tracklet_vectors, wanted, atol=1e-6)


@pytest.mark.gpu
@pytest.mark.usefixtures("full_precision")
def test_a_gpu_makes_the_same_vectors(data):
    _embed(data)
    _embed(data, "gpu", device="cuda")
    for name in ("a", "b/c"):
        cpu, gpu = (EmbeddingStore(data / folder).load(name) for folder in ("out", "gpu"))
        np.testing.assert_allclose(gpu.lesions, cpu.lesions, atol=1e-5)
        np.testing.assert_allclose(gpu.tracklet_vectors, cpu.tracklet_vectors, atol=1e-5)


@pytest.mark.parametrize("missing", ["weights.pth", "ann.json"])
def test_a_missing_file_is_refused(data, missing):
    (data / missing).unlink()
    with pytest.raises(InputError, match=missing):
        _embed(data)
    assert not (data / "out").exists()


def test_a_second_call_makes_what_is_missing(data):
    _embed(data)
    before = {name: shard_path(data / "out", name).read_bytes() for name in ("a", "b/c")}
    shard_path(data / "out", "a").unlink()
    shard_path(data / "out", "b/c").write_bytes(b"cut off")
    assert _embed(data).num_made == 2
    assert _embed(data).num_made == 0
    for name, content in before.items():
        assert shard_path(data / "out", name).read_bytes() == content


def test_tracklets_of_proposals_that_were_made_anew_are_embedded_again(data):
    _embed(data)
    before = EmbeddingStore(data / "out").load("a").tracklet_vectors
    found = _proposals("a")
    turned = np.where(found.tracklet >= 0, 1 - found.tracklet, -1)
    ProposalStore(data / "proposals").save(replace(found, tracklet=turned))
    assert _embed(data).num_made == 1
    np.testing.assert_array_equal(EmbeddingStore(data / "out").load("a").tracklet_vectors, before[::-1])


def test_proposals_that_are_made_anew_meanwhile_are_embedded_again(data, monkeypatch):
    def embed_while_proposing(*arguments):
        done = embed_volume(*arguments)
        found = _proposals("a")
        ProposalStore(data / "proposals").save(replace(found, tracklet=np.where(found.tracklet >= 0, 0, -1)))
        return done

    with monkeypatch.context() as patched:
        patched.setattr(sys.modules[embed.__module__], "embed_volume", embed_while_proposing)
        assert _embed(data).num_made == 2
    assert _embed(data).num_made == 1
    assert _embed(data).num_made == 0


def test_lesions_alone(data):
    _embed(data, proposals=None)
    found = EmbeddingStore(data / "out").load("a")
    assert (found.lesion_ids.tolist(), found.tracklet_vectors.shape) == ([7], (0, 6))


def test_what_is_refused(data):
    _embed(data)
    _save_weights(data / "weights.pth", seed=1)
    with pytest.raises(InputError, match="these embeddings are of weights .*give another folder"):
        _embed(data)
    _save_weights(data / "weights.pth", patients=["p0", "p1"])
    with pytest.raises(InputError, match=r"identities of lesions of 1 patient of .*ann\.json \(p1\); train on numbers"):
        _embed(data, "other")
    assert not (data / "other").exists()
    _save_weights(data / "weights.pth")
    ProposalStore(data / "proposals").path("a").unlink()
    with pytest.raises(InputError, match=r"no proposals of 1 volume of .*\(a\); run `mmpluld propose` again"):
        _embed(data, "other")


def test_command(data, capsys):
    arguments = [CONFIG, str(data / "weights.pth"), "--annotations", str(data / "ann.json"), "--data-root", str(data)]
    assert main(["embed", *arguments, "--out", str(data / "out"), "--cfg-options", *SMALL]) == 0
    assert "2 volumes of 2 embedded by this process; 0 were there" in capsys.readouterr().out
    assert main(["embed", *arguments[:-1], "/nowhere", "--out", str(data / "more"), "--cfg-options", *SMALL]) == 2


def test_which_box_stands_for_a_tracklet():
    proposals = _proposals("a")
    # Of the boxes on slices 5, 6 and 7 only the last scores enough, so that it is all of the tracklet.
    ended = replace(proposals, scores=np.array([0.5, 0.1, 0.1, 0.1, 0.5]))
    assert tracklet_centres(ended, 0.2) == {0: (7, (4, 4, 10, 10))}
    assert tracklet_centres(proposals) == {0: (6, (6, 4, 12, 10)), 1: (9, (20, 20, 30, 28))}


def test_the_box_on_the_middle_slice_stands_for_a_tracklet_between_slices():
    # Slices 5 mm apart, boxes at 2, 4, 6, 8, 10 and 12 mm: the slices at 5 and 10 mm are its own, the box on the lower
    # one halfway between those at 4 and 6 mm.
    grid = np.arange(1, 7)
    boxes = np.array([[10 + 2 * z, 4, 20 + 2 * z, 12] for z in grid], float)
    zeros, nearest = np.zeros(6, np.int64), 3 + np.array([0, 1, 1, 2, 2, 2])
    rows = boxes, np.full(6, 0.5), zeros, zeros, grid, nearest, zeros
    shard = VolumeProposals("a", 2.0, 5.0, np.array([[3, 6]]), *rows)
    assert tracklet_centres(shard) == {0: (4, (15, 4, 25, 12))}


def test_box_outside_the_image(data):
    with DefaultScope.overwrite_default_scope("mmpluld"):
        embedder = VolumeEmbedder(load_config(CONFIG, SMALL), data / "weights.pth", "cpu", 1)
    volume = _volume("a")
    with pytest.raises(InputError, match=r"on slice 6 lies outside the image of 44 x 40"):
        embedder.vectors(volume, open_source(volume, data), [(6, (44.0, 2.0, 50.0, 8.0))])
