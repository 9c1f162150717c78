"""The verdict of the gate, on differences that are known."""

from __future__ import annotations

import numpy as np
import pytest

from mmpluld.cli.main import main
from mmpluld.reproduce.collect import ALL_SPECIALTIES, Noise, PairResult, Part, RowResult, Summary
from mmpluld.reproduce.gate import conditions, verdict
from mmpluld.reproduce.stats import Sample, compare, pool_runs
from mmpluld.reproduce.tables import get_tables


def pair(first, second, points, scatter, seeds):
    """Two rows of a given difference, in points, whose runs scatter and whose patients hardly do."""
    rng = np.random.default_rng(0)
    offsets = (np.arange(seeds) - (seeds - 1) / 2) * scatter / 100
    drawn = rng.normal(0, 0.001, (200, 2))
    rows = [
        [Sample(np.full(2, value + offset), value + offset + drawn * sign, 2000) for offset in offsets * sign]
        for value, sign in ((0.5 + points / 100, 1), (0.5, -1))
    ]
    pool = pool_runs(rows)
    return PairResult(first, second, compare(*rows, (pool.row(0), pool.row(1)), 0.02))


def summary(table, points, scatter=0.1, seeds=5, needed=5):
    """Of the specialties, only all together count."""
    pairs = tuple(
        pair(table.row(first), table.row(second), value, scatter, seeds)
        for (first, second), value in zip(table.pairs, points, strict=True)
    )
    nothing = np.zeros(2)
    rows = tuple(
        RowResult(row, tuple(range(seeds)), np.zeros((seeds, 2)), nothing, nothing, nothing, 0) for row in table.rows
    )
    tested = tuple(item.row for item in rows)
    noises = (Noise(tested, 0.01, 12.0, len(rows), (), (), 0.004, needed),) if seeds > 1 else ()
    whole = Part("", "", rows, pairs, noises)
    parts = (Part("lung", "", rows, pairs[:0], ()), Part(ALL_SPECIALTIES, "", rows, pairs, noises))
    return Summary(table, (1.0,), (0,), "volume", whole, parts if table.specialties else (), {})


LENS, ONE_STAGE = get_tables("gate")


def states(points, **more):
    return [item.state for item in conditions([summary(LENS, points, **more)])]


def test_all_is_met_where_complete_labels_help():
    found = conditions([summary(LENS, (7, 3, 4, 4)), summary(ONE_STAGE, (6, 2, 4))])
    assert {item.state for item in found} == {"met"}
    assert len(found) == 4 + 3
    text = verdict(found)
    assert "All conditions are met." in text
    assert "| DeepLesion alone, complete labels − DeepLesion alone, marked only |" in text
    assert "| four datasets, all experts − DeepLesion alone, marked only, on all specialties |" in text
    assert "+7.00 (" in text


@pytest.mark.parametrize(
    ("points", "which"),
    [((4.9, 3, 2, 4), 0), ((7, -1, 8, 4), 1), ((7, 3, 4, 0.1), 2)],
)
def test_what_is_missing_is_named(points, which):
    found = states(points)
    assert found[which] == "not met"
    assert [state for place, state in enumerate(found) if place != which] == ["met"] * 3


def test_a_gain_within_its_errors_is_not_enough():
    found = conditions([summary(LENS, (7, 3, 4, 4), scatter=4)])
    assert [item.state for item in found[:3]] == ["not met", "inconclusive", "not met"]


@pytest.mark.parametrize(
    ("needed", "state", "text"),
    [(4, "met", "4 seeds of each"), (9, "not met", "9 seeds of each"), (None, "not met", "lack of patients")],
)
def test_the_number_of_seeds_that_would_do_is_told(needed, state, text):
    last = conditions([summary(ONE_STAGE, (7, 3, 4), needed=needed)])[-1]
    assert last.state == state
    assert text in last.found


def test_single_trainings_tell_nothing():
    assert set(states((7, 3, 4, 4), seeds=1)) == {"inconclusive"}


def test_rows_that_were_not_trained_are_named():
    for table, count in ((LENS, 4), (ONE_STAGE, 3)):
        pairs = tuple(PairResult(table.row(a), table.row(b), None, "not run") for a, b in table.pairs)
        found = conditions([Summary(table, (1.0,), (0,), "image", Part("", "", (), pairs, ()), (), {})])
        assert {item.state for item in found} == {"inconclusive"}
        assert [item.found for item in found[:-1]] == ["not run"] * (count - 1)
        assert f"{count} of {count} conditions are not met or inconclusive." in verdict(found)


def test_the_gate_needs_phantoms(tmp_path, capsys):
    assert main(["reproduce", "gate", "--work-dir", str(tmp_path / "work")]) == 2
    assert capsys.readouterr().err.strip().endswith("rates and epochs are the papers'; add --twins")
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rows", ""], "--rows : gate has no such row"),
        (["--recipe", ""], "recipe '' is not known; one of paper"),
        (["--pretrained", "densenet121=a.pth"], "twins start from trunks of their own"),
    ],
)
def test_bad_options_are_refused_before_anything_is_made(arguments, message, tmp_path, capsys):
    work_dir = tmp_path / "work"
    assert main(["reproduce", "gate", "--twins", *arguments, "--work-dir", str(work_dir)]) == 2
    assert message in capsys.readouterr().err
    assert not work_dir.exists()


def test_unknown_row_of_the_gate_is_refused(tmp_path, capsys):
    arguments = ["reproduce", "gate", "--twins", "--rows", "retinanett", "--work-dir", str(tmp_path / "work")]
    assert main(arguments) == 2
    assert "gate has no such row; did you mean 'retinanet'" in capsys.readouterr().err
