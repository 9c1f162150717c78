"""Pairs of lesions of a patient, and how well distances tell which are one: by hand."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import numpy as np
import pytest

from mmpluld.cli.main import main
from mmpluld.errors import InputError
from mmpluld.inputs import sha256_of
from mmpluld.io.embeddings import EmbeddingHeader, EmbeddingStore, VolumeEmbeddings
from mmpluld.io.proposals import ProposalHeader, ProposalStore
from mmpluld.mining.lesion_pairs import LesionPairs, MillimetrePlaces, evaluate_pairs, lesion_pairs, nearest_accuracy
from mmpluld.mining.match_table import match_files
from mmpluld.mining.places import LesionPlaces
from mmpluld.structures import AnnotationSet, LesionRecord, VolumeRecord


def _volume(name, study, patient="p"):
    return VolumeRecord(name, patient, study, "1", {"kind": "npy", "path": name}, 0, 10, (100, 100), (5.0, 1.0, 2.0))


def _lesion(number, volume, x, key, **attributes):
    return LesionRecord(number, volume, (x, 40, key, x + 10, 60, key + 1), key_slice=key, attributes=attributes)


@pytest.fixture
def annotations():
    """Lesion 1 in all three volumes of a patient, lesion 2 in two; volume d is another patient's."""
    volumes = [_volume("a", "1"), _volume("b", "1"), _volume("c", "2"), _volume("d", "1", "q")]
    lesions = [
        _lesion(0, "a", 10, 2, lesion=1),
        _lesion(1, "a", 50, 2, lesion=2),
        _lesion(2, "b", 12, 2, lesion=1),
        _lesion(3, "c", 20, 4, lesion=1),
        _lesion(4, "c", 46, 2, lesion=2),
        _lesion(5, "c", 80, 9),
        _lesion(6, "d", 10, 2, lesion=1),
    ]
    return AnnotationSet({"name": "toy", "label_scope": "x"}, volumes, lesions)


def test_pairs_by_hand(annotations):
    pairs = lesion_pairs(annotations, LesionPlaces())
    # a-b and b-a: 2 pairs each way; a-c: 4 each way; b-c: 2 each way. Lesion 5 may be any.
    assert len(pairs.same) == 2 * (2 + 4 + 2)
    assert pairs.same.sum() == 2 * (1 + 2 + 1)
    assert pairs.one_study.sum() == 4
    # Shares of the image and of the length: lesion 1 lies at x 0.15 in a and 0.17 in b, both on slice 2.
    first = pairs.distances[(pairs.question == 0)]
    assert first.tolist() == pytest.approx([0.02])
    # In mm: 10 px of 2 mm and 2 slices of 5 mm from a to c.
    millimetres = lesion_pairs(annotations, MillimetrePlaces())
    assert np.hypot(20, 10) in millimetres.distances[pairs.same]


def test_unmarked_lesions_are_candidates_only(annotations):
    for lesion in annotations.lesions[1:]:
        lesion.attributes["marked"] = False
    pairs = lesion_pairs(annotations, LesionPlaces())
    assert (len(pairs.same), int(pairs.same.sum())) == (3, 2)  # lesion 0 with those of b and c


def test_numbers_come_from_the_truth(annotations):
    plain = AnnotationSet(annotations.dataset, annotations.volumes, [
        LesionRecord(item.id, item.volume, item.box, key_slice=item.key_slice) for item in annotations.lesions
    ])  # fmt: skip
    # Lesion 5 is none of the truth's, so its pairs are of two; lesion 4 is moved too far to be lesion 2.
    x1, y1, z1, x2, y2, z2 = plain.lesions[4].box
    plain.lesions[4].box = (x1 + 6, y1, z1, x2 + 6, y2, z2)
    truth = AnnotationSet(annotations.dataset, annotations.volumes, annotations.lesions[:5])
    pairs = lesion_pairs(plain, LesionPlaces(), truth)
    assert (len(pairs.same), int(pairs.same.sum())) == (2 + 2 + 6 + 2 + 3 + 1, 6)


def test_nearest_candidate():
    pairs = LesionPairs(
        np.array([0.1, 0.2, 0.4, 0.3, 0.5]),
        np.array([True, False, True, False, False]),
        np.zeros(5, bool),
        np.array([0, 0, 1, 1, 2]),
    )
    assert nearest_accuracy(pairs) == 0.5  # right for 0, wrong for 1; 2 has no partner there


def test_the_nearest_candidates_alone():
    distances = np.array([0.4, 0.2, 0.3, 0.1, 0.5, 0.5])
    pairs = LesionPairs(distances, np.ones(6, bool), np.zeros(6, bool), np.array([0, 0, 0, 1, 2, 2]))
    inf = np.inf
    assert pairs.limited(1).distances.tolist() == [inf, 0.2, inf, 0.1, 0.5, inf]
    assert pairs.limited(2).distances.tolist() == [inf, 0.2, 0.3, 0.1, 0.5, 0.5]
    assert pairs.limited(None).distances.tolist() == distances.tolist()


def test_nobody_is_numbered(annotations):
    for lesion in annotations.lesions:
        lesion.attributes.clear()
    with pytest.raises(InputError, match="no lesion with a number"):
        evaluate_pairs(lesion_pairs(annotations, LesionPlaces()))
    with pytest.raises(InputError, match="tracklets have no numbers"):
        lesion_pairs(annotations, LesionPlaces(), proposals=object())  # type: ignore[arg-type]


def test_command(tmp_path, annotations, capsys):
    path, out = tmp_path / "ann.json", tmp_path / "rows.json"
    annotations.save(path)
    store = EmbeddingStore.create(tmp_path / "store", EmbeddingHeader("net", "y", "x", sha256_of(path), "", 2))
    angles = {1: 0.0, 2: 1.5, None: 3.0}
    for volume in annotations.volumes:
        own = [lesion for lesion in annotations.lesions if lesion.volume == volume.id]
        turned = [angles[lesion.attributes.get("lesion")] + 0.01 * lesion.id for lesion in own]
        vectors = np.array([[np.cos(angle), np.sin(angle)] for angle in turned], np.float32)
        ids = np.array([lesion.id for lesion in own])
        store.save(VolumeEmbeddings(volume.id, ids, vectors, np.zeros(0, int), np.zeros((0, 2), np.float32)))
    assert main(["match", str(path), "--embeddings", str(store.folder), "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert "delta of embedding for a precision of at least 0.9" in text
    rows = {(row["space"], row["pairs"]): row for row in json.loads(out.read_text())["rows"]}
    best = rows["embedding", "all"]
    assert (best["precision"], best["recall"], best["average_precision"], best["nearest"]) == (1, 1, 1, 1)
    assert 0.03 < best["delta"] < 1.4
    assert rows["position", "two studies"]["num_pairs"] == 12
    assert main(["match", str(tmp_path / "none.json")]) == 2


def test_a_number_that_is_null_is_unknown(annotations):
    none, null = copy.deepcopy(annotations), copy.deepcopy(annotations)
    del none.lesions[0].attributes["lesion"]
    null.lesions[0].attributes["lesion"] = None
    known, first, second = (
        lesion_pairs(content, LesionPlaces()).distances.tolist() for content in (annotations, none, null)
    )
    assert first == second
    assert len(first) < len(known)


def test_without_a_voxel_size_there_are_no_places_in_mm(tmp_path, annotations, capsys):
    annotations.volumes[0] = replace(annotations.volumes[0], spacing_mm=(float("nan"), 1.0, 1.0))
    annotations.save(tmp_path / "ann.json")
    assert main(["match", str(tmp_path / "ann.json")]) == 0
    said = capsys.readouterr()
    assert f"voxel size is unknown of 1 volume ({annotations.volumes[0].id})" in said.err
    assert "position mm" not in said.out and "position" in said.out


def test_proposals_that_do_not_fit_are_refused(tmp_path, annotations):
    path = tmp_path / "ann.json"
    annotations.save(path)
    header = ProposalHeader("c", "", "w", "", "ann.json", "other", ("toy",), {})
    ProposalStore.create(tmp_path / "other", header)
    with pytest.raises(InputError, match=r"other: proposals of another annotation file"):
        match_files(path, truth=path, proposals=tmp_path / "other")
    ProposalStore.create(tmp_path / "cut", replace(header, annotations_sha256=sha256_of(path)))
    with pytest.raises(InputError, match=r"cut: no proposals of 4 volumes .*run `mmpluld propose` again"):
        match_files(path, truth=path, proposals=tmp_path / "cut")


def test_the_truth_is_that_of_all_volumes_and_what_it_ignores_is_no_lesion(tmp_path, annotations):
    path, truth = tmp_path / "ann.json", tmp_path / "truth.json"
    annotations.save(path)
    AnnotationSet(annotations.dataset, annotations.volumes[:2], annotations.lesions[:3]).save(truth)
    with pytest.raises(InputError, match=r"truth\.json: lacks volumes of the annotations \(c, d\)"):
        match_files(path, truth=truth)
    (row, *_) = match_files(path, truth=path)
    for lesion in annotations.lesions[2:4]:  # lesion 1 in two of its three volumes
        lesion.ignore = True
    annotations.save(truth)
    (other, *_) = match_files(path, truth=truth)
    assert (row.num_same, other.num_same) == (8, 2)
