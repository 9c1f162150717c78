"""The verdict of the gate, on differences that are known."""

from __future__ import annotations

import numpy as np
import pytest

from mmpluld.cli.main import main
from mmpluld.reproduce.collect import PairResult, Summary
from mmpluld.reproduce.gate import conditions, verdict
from mmpluld.reproduce.stats import Sample, paired_difference
from mmpluld.reproduce.tables import get_tables


def pair(first, second, points, scatter, seeds=5, patients=2000):
    """Two rows of a given difference, in points, whose runs scatter and whose patients hardly do."""
    rng = np.random.default_rng(0)
    offsets = (np.arange(seeds) - (seeds - 1) / 2) * scatter / 100
    drawn = rng.normal(0, 0.001, (200, 2))
    rows = [
        [Sample(np.full(2, value + offset), value + drawn * sign, patients) for offset in offsets * sign]
        for value, sign in ((0.5 + points / 100, 1), (0.5, -1))
    ]
    return PairResult(first, second, paired_difference(*rows))


def summary(table, points, scatter=0.1, **more):
    pairs = tuple(
        pair(table.row(first), table.row(second), value, scatter, **more)
        for (first, second), value in zip(table.pairs, points, strict=True)
    )
    return Summary(table, (1.0,), (0,), table.protocol, (), pairs, "")


LENS, ONE_STAGE = get_tables("gate")


def states(points, **more):
    return [item.state for item in conditions([summary(LENS, points, **more)])]


def test_all_is_met_where_complete_labels_help():
    found = conditions([summary(LENS, (7, 3, 4, 4)), summary(ONE_STAGE, (6, 2, 4))])
    assert {item.state for item in found} == {"met"}
    assert len(found) == 5 + 3
    text = verdict(found)
    assert "All conditions are met." in text
    assert "| DeepLesion alone, complete labels − DeepLesion alone, marked only |" in text
    assert "+7.00 (" in text


@pytest.mark.parametrize(
    ("points", "which"),
    [((4.9, 3, 2, 4), 0), ((7, -1, 8, 4), 1), ((7, 3, 4, 0.1), 2)],
)
def test_what_is_missing_is_named(points, which):
    found = states(points)
    assert found[which] == "not met"
    assert [state for place, state in enumerate(found) if place != which] == ["met"] * 4


def test_a_gain_within_its_errors_is_not_enough():
    found = conditions([summary(LENS, (7, 3, 4, 4), scatter=4)])
    assert [item.state for item in found[:3]] == ["not met", "cannot be told", "not met"]
    few = found[3]
    assert few.state == "not met"
    assert "points with 5 seeds; about" in few.found


def test_one_seed_tells_nothing():
    assert set(states((7, 3, 4, 4), seeds=1)) == {"cannot be told"}


def test_rows_that_were_not_trained_are_named():
    table = ONE_STAGE
    pairs = tuple(PairResult(table.row(a), table.row(b), None, "not run") for a, b in table.pairs)
    found = conditions([Summary(table, (1.0,), (0,), "image", (), pairs, "")])
    assert {(item.state, item.found) for item in found} == {("cannot be told", "not run")}
    assert "3 of 3 conditions are not met." in verdict(found)


def test_the_gate_needs_phantoms(tmp_path, capsys):
    assert main(["reproduce", "gate", "--work-dir", str(tmp_path / "work")]) == 2
    assert capsys.readouterr().err.strip().endswith("only the phantoms have; add --twins")
    assert not (tmp_path / "work").exists()


def test_unknown_row_of_the_gate_is_refused(tmp_path, capsys):
    arguments = ["reproduce", "gate", "--twins", "--rows", "retinanet-a3", "--work-dir", str(tmp_path / "work")]
    assert main(arguments) == 2
    assert "gate has no such row; did you mean 'retinanet-a3d'" in capsys.readouterr().err
