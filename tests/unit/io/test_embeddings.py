"""The embedding store: what is saved is loaded, and a store of something else is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from mmpluld.errors import InputError
from mmpluld.io.embeddings import EmbeddingHeader, EmbeddingStore, VolumeEmbeddings

HEADER = EmbeddingHeader("net", "ef" * 32, "ab" * 32, "cd" * 32, "", 2)
ONE = VolumeEmbeddings(
    "a/1", np.array([7, 9]), np.array([[1, 0], [0.6, 0.8]], np.float32), np.array([3]), np.array([[0, -1]], np.float32),
    "12" * 32,
)  # fmt: skip


def test_saved_is_loaded(tmp_path):
    store = EmbeddingStore.create(tmp_path / "store", HEADER)
    assert store.volumes == []
    store.save(ONE)
    empty = np.zeros((0, 2), np.float32)
    store.save(VolumeEmbeddings("b", np.zeros(0, int), empty, np.zeros(0, int), empty))
    again = EmbeddingStore(tmp_path / "store")
    assert (again.header, again.volumes) == (HEADER, ["a/1", "b"])
    for name in ("lesion_ids", "lesions", "tracklets", "tracklet_vectors"):
        np.testing.assert_array_equal(getattr(again.load("a/1"), name), getattr(ONE, name))
    assert again.load("a/1").proposals_sha256 == ONE.proposals_sha256
    assert (again.load("b").tracklet_vectors.shape, again.load("b").proposals_sha256) == ((0, 2), "")
    assert EmbeddingStore.create(tmp_path / "store", HEADER).volumes == ["a/1", "b"]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"config_sha256": "x"}, "an embedder of settings"),
        ({"checkpoint": "ef" * 32}, "weights"),
        ({"annotations": "x"}, "annotations"),
        ({"proposals": "y"}, "proposals"),
        ({"size": 3}, "length"),
        ({"box_score": 0.5}, "box_score"),
    ],
)
def test_a_store_of_something_else_is_refused(tmp_path, change, what):
    EmbeddingStore.create(tmp_path, HEADER).save(ONE)
    EmbeddingStore.create(tmp_path, replace(HEADER, config="renamed"))
    with pytest.raises(InputError, match=rf"embeddings\.json: these embeddings are of {what} .*give another folder"):
        EmbeddingStore.create(tmp_path, replace(HEADER, **change))


def test_faulty_stores(tmp_path):
    with pytest.raises(InputError, match="mmpluld embed"):
        EmbeddingStore(tmp_path)
    path = tmp_path / "embeddings.json"
    path.write_text("{}")
    with pytest.raises(InputError, match="schema is None"):
        EmbeddingStore(tmp_path)
    path.write_text(json.dumps({"schema": "mmpluld.embeddings/2", "config": "net"}))
    with pytest.raises(InputError, match="has no config_sha256"):
        EmbeddingStore(tmp_path)


def test_vectors_that_do_not_fit_are_refused(tmp_path):
    store = EmbeddingStore.create(tmp_path, HEADER)
    for broken in (
        replace(ONE, lesion_ids=np.array([7])),
        replace(ONE, lesions=ONE.lesions * 2),
        replace(ONE, tracklet_vectors=np.full((1, 2), np.nan, np.float32)),
    ):
        with pytest.raises(InputError, match=r"volume a/1"):
            store.save(broken)
    assert store.volumes == []
