"""The twins' phantom: made once, recognised, and refused when it is another."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from mmpluld.cli.main import main
from mmpluld.errors import InputError
from mmpluld.phantom import LAYOUT_REGIONS, PhantomSpec
from mmpluld.phantom.case import make_case
from mmpluld.phantom.radiologist import mark_chance
from mmpluld.reproduce import twin_data
from mmpluld.reproduce.twin_datasets import LENS_SETTINGS


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(twin_data, "PATIENTS", (1, 0, 1))
    settings = {"size": 48, "max_slices": 12, "lesions_per_series": 10, "regions": ("abdomen",)}
    monkeypatch.setattr(twin_data, "SETTINGS", settings)


@pytest.fixture
def calls():
    return []


@pytest.fixture
def command(calls):
    def run(arguments: list[str], log: Path) -> None:
        calls.append(arguments[0])
        assert log.name == "phantom.log"
        assert main(arguments) == 0

    return run


def test_phantom_is_made_once(small, calls, command, tmp_path):
    root = tmp_path / "phantom"
    twin_data.ensure_phantom(root, command)
    assert calls == ["phantom", "convert"]
    assert json.loads((root / "phantom.json").read_text())["regions"] == ["abdomen"]
    twin_data.ensure_phantom(root, command)
    assert calls == ["phantom", "convert"]


def test_interrupted_phantom_is_made_anew(small, calls, command, tmp_path):
    root = tmp_path / "phantom"
    twin_data.ensure_phantom(root, command)
    for name in ("truth/test_subvolumes.json", "annotations/test.json"):
        (root / name).unlink()
    assert (root / "annotations/train.json").is_file()  # what is left does not stand in the way
    twin_data.ensure_phantom(root, command)
    assert calls == ["phantom", "convert"] * 2
    assert (root / "truth/test_subvolumes.json").is_file()


def test_another_phantom_is_refused(small, command, tmp_path, monkeypatch):
    root = tmp_path / "phantom"
    twin_data.ensure_phantom(root, command)
    monkeypatch.setattr(twin_data, "SEED", 1)
    with pytest.raises(InputError, match=r"phantom.json: this phantom was made with other settings"):
        twin_data.ensure_phantom(root, command)


def test_the_command_makes_it_and_says_what_differs_from_the_usual_phantom(small, tmp_path, capsys):
    root = tmp_path / "phantom"
    assert twin_data.describe_phantom(root) is None
    assert main(["phantom", "twins", str(root)]) == 0
    assert (root / "annotations/test.json").is_file()
    text = twin_data.describe_phantom(root)
    assert capsys.readouterr().out.endswith(f"{text}\n")
    assert text.startswith("Phantom of seed 0, 1 training and 1 test patients, size=48, regions=['abdomen']")
    assert "mark_prob" not in text


def test_most_lesions_are_unmarked_and_not_at_random():
    spec = PhantomSpec.from_settings(twin_data.SETTINGS)
    node, kidney = (mark_chance(kind, 20, spec) for kind in (3, 6))
    assert mark_chance(3, 14, spec) < node < kidney < 0.5
    assert min(twin_data.PATIENTS) >= 28  # what is chosen on validation and tested needs patients


def test_digest_depends_on_contents_and_order(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_bytes(b"one")
    second.write_bytes(b"two")
    inner = hashlib.sha256(b"one").digest() + hashlib.sha256(b"two").digest()
    assert twin_data.digest([first, second]) == hashlib.sha256(inner).hexdigest()
    assert twin_data.digest([second, first]) != twin_data.digest([first, second])
    assert twin_data.digest([]) == hashlib.sha256().hexdigest()
    with pytest.raises(InputError, match="missing: no such annotation file"):
        twin_data.digest([tmp_path / "missing"])


FROZEN = [  # of first patients: layout, stream, series, lesions of the first, its mean HU, key slice and box of one
    ("deeplesion", "deeplesion/train", 2, 21, -643.56, 32, (86.8, 47.1, 29.0, 94.9, 56.7, 36.0)),
    ("deeplesion", "deeplesion/test", 3, 21, -569.58, 28, (49.0, 65.4, 27.0, 58.8, 77.2, 31.0)),
    ("luna16", "luna16", 1, 5, -702.07, 1, (64.5, 43.7, 0.0, 74.8, 54.5, 6.0)),
    ("lits", "lits", 1, 7, -687.08, 6, (38.5, 42.5, 3.0, 46.5, 49.6, 9.0)),
]


@pytest.mark.parametrize(("layout", "stream", "series", "lesions", "mean_hu", "key_slice", "box"), FROZEN)
def test_the_phantom_is_frozen(layout, stream, series, lesions, mean_hu, key_slice, box):
    """Figures in the docs are of this phantom: a change of it asks for all of them anew."""
    settings = {"regions": LAYOUT_REGIONS.get(layout, PhantomSpec().regions)} | LENS_SETTINGS[layout]
    case = make_case(twin_data.SEED, stream, 1, PhantomSpec.from_settings(settings))
    assert len(case.series) == series
    assert len(case.lesions) == lesions
    assert case.volume.array.mean() == pytest.approx(mean_hu, abs=0.05)
    assert case.lesions[0].key_slice == key_slice
    assert case.lesions[0].box == pytest.approx(box, abs=0.1)
