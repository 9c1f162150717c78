"""The file of candidates."""

import json
import math

import pytest

from mmpluld.errors import InputError
from mmpluld.structures import VolumeRecord
from mmpluld.structures.candidates import Candidate, CandidateSet


def example():
    volume = VolumeRecord("a", "p", "1", "1", {"kind": "npy", "path": "a.npy"}, 0, 4, (8, 8), (math.nan, 1.0, 1.0))
    candidates = [Candidate("a", (0, 0, 1, 2, 2, 3), 0.5, 7), Candidate("a", (4, 4, 0, 6, 6, 1), 0.25, None)]
    return CandidateSet({"name": "deeplesion", "label_scope": "any"}, [volume], candidates, [{"fold": [0, 2, 0]}], {})


def test_round_trip(tmp_path):
    example().save(tmp_path / "candidates.json")
    found = CandidateSet.load(tmp_path / "candidates.json")
    assert found.candidates == example().candidates
    assert (found.stores, found.dataset) == ([{"fold": [0, 2, 0]}], example().dataset)
    assert math.isnan(found.volumes[0].spacing_mm[0]) and found.volumes[0].id == "a"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"box": [0, 0, 3, 2, 2, 1]}, r"candidate 1: box is \[0, 0, 3, 2, 2, 1\]"),
        ({"box": [0, 0, 1]}, "candidate 1: box is"),
        ({"box": "wide"}, "candidate 1: box is"),
        ({"score": None}, "candidate 1: box is .*, score None"),
        ({"volume": "b"}, "candidate 1: volume 'b' or store 0 is not listed"),
        ({"store": 1}, "candidate 1: volume 'a' or store 1 is not listed"),
    ],
)
def test_faults_are_named(tmp_path, changes, message):
    path = tmp_path / "candidates.json"
    example().save(path)
    data = json.loads(path.read_text())
    data["candidates"][1] |= changes
    path.write_text(json.dumps(data))
    with pytest.raises(InputError, match=message):
        CandidateSet.load(path)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "candidates.json"
    path.write_text('{"schema": "mmpluld.annotations/1"}')
    with pytest.raises(InputError, match="candidates"):
        CandidateSet.load(path)
    with pytest.raises(InputError, match="no such"):
        CandidateSet.load(tmp_path / "missing.json")
