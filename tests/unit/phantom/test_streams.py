"""No patient is in two data sets, or in two parts of one."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmpluld.cli.main import main
from mmpluld.phantom import case
from mmpluld.phantom.streams import patient_stream

TINY = {"size": 32, "max_slices": 3}
COUNTS = {"deeplesion": ["3", "2", "2"], "luna16": ["3"], "lits": ["3"], "nih-ln": ["3"], "scan": []}


def test_every_patient_of_every_layout_and_split_has_a_body_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bodies = []

    def make_patient(rng, phases):
        body = made(rng, phases)
        bodies.append((body.frame.scale, body.fat_mm, tuple(body.shift.values()), body.benign))
        return body

    made = case.make_patient
    monkeypatch.setattr(case, "make_patient", make_patient)
    monkeypatch.setattr("mmpluld.phantom.pool.usable_cores", lambda: 1)  # so that all are drawn in this process
    for layout, counts in COUNTS.items():
        out = tmp_path / ("scan.nii" if layout == "scan" else layout)
        patients = ["--patients", *counts] if counts else []
        settings = [f"{name}={value}" for name, value in TINY.items()]
        assert main(["phantom", layout, str(out), *patients, "--seed", "0", "--set", *settings]) == 0
    assert len(bodies) >= 7 + 3 * 3 + 1  # patients of nih-ln are drawn until they have a node
    for index in range(4):
        assert len({body[index] for body in bodies}) == len(bodies)


def test_streams_differ_in_every_part_of_their_name() -> None:
    names = [
        (0, "a", 1),
        (0, "a", 2),
        (1, "a", 1),
        (0, "b", 1),
        (0, "a/b", 1),
        (11, "a", 1),
        (1, "a", 11),
        (0, "a", 10),
    ]
    drawn = [patient_stream(*name).random() for name in names]
    assert len(set(drawn)) == len(names)
    assert drawn == [patient_stream(*name).random() for name in names]
