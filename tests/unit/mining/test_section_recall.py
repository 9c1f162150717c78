"""The tool that counts found cross-sections, by hand."""

from __future__ import annotations

import runpy
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mmpluld.errors import InputError

TOOL = str(Path(__file__).resolve().parents[3] / "tools/section_recall.py")
section_recall = runpy.run_path(TOOL)["section_recall"]

A, B = (10.0, 10.0, 20.0, 20.0), (50.0, 50.0, 60.0, 60.0)


@pytest.fixture
def case(volume, annotated, lesion, store):
    """A lesion on slices 12 to 14 and one on slice 16 of slices 11 to 20, and four boxes, of which one is false."""
    first = lesion(0, "1_01_01", 13, A)
    boxes = {"slice_boxes": [[number, *A] for number in (12, 13, 14)]}
    truth = annotated(
        [volume("1_01_01")],
        [replace(first, box=(*A[:2], 12.0, *A[2:], 15.0), attributes=boxes), lesion(1, "1_01_01", 16, B)],
    )
    beside = (55.0, 50.0, 65.0, 60.0)  # a third of the union with B: neither found nor false
    rows = [(2, A, 0.9, "lits", 0), (3, A, 0.4, "lits", 0), (5, beside, 0.95, "lits", 1), (7, B, 0.6, "deeplesion", 2)]
    return truth, store([(truth.volumes[0], rows)])


def test_shares_by_hand(case):
    truth, proposals = case
    shares = section_recall(truth, proposals)
    # Above the one false box only the middle of the first lesion is found; with it, its section on slice 14 as well.
    assert shares[0].tolist() == [1 / 2, 0, 1 / 2]
    assert shares[1].tolist() == shares[-1].tolist() == [1 / 2, 1 / 2, 1 / 2]


def test_a_lesion_to_be_ignored_counts_neither_way(case):
    truth, proposals = case
    other = replace(truth.lesions[1], id=2, box=(*B[:2], 18.0, *B[2:], 19.0), key_slice=18, ignore=True)
    truth.lesions.append(other)
    # No box is false any more, so that all count.
    assert np.allclose(section_recall(truth, proposals), 1 / 2)


def test_lesions_of_one_section_are_refused(case):
    truth, proposals = case
    del truth.lesions[0]
    with pytest.raises(InputError, match="no lesion of the truth has two cross-sections"):
        section_recall(truth, proposals)


def test_command(case, tmp_path, capsys, monkeypatch):
    truth, proposals = case
    truth.save(tmp_path / "truth.json")
    monkeypatch.setattr(sys, "argv", ["section_recall", str(tmp_path / "truth.json"), *[str(proposals.folder)] * 2])
    with pytest.raises(SystemExit) as done:
        runpy.run_path(TOOL, run_name="__main__")
    assert done.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["0.05", "0.500", "0.000", "0.500"]
    monkeypatch.setattr(sys, "argv", ["section_recall", str(tmp_path / "none.json"), str(proposals.folder)])
    with pytest.raises(SystemExit) as done:
        runpy.run_path(TOOL, run_name="__main__")
    assert done.value.code == 2
    assert "none.json: cannot be read (no such file)" in capsys.readouterr().err
