"""Collecting finished runs, and the reports made of them."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace

import cv2
import numpy as np
import pytest
from rich.console import Console

from mmpluld.errors import InputError
from mmpluld.evaluation import evaluate_files
from mmpluld.reproduce.collect import collect
from mmpluld.reproduce.report import export, markdown, pair_line, runs_csv, table_csv, terminal_table, write_report
from mmpluld.reproduce.twin_data import describe_phantom
from mmpluld.structures import AnnotationSet

from .conftest import CURVE, MINI


@pytest.fixture
def finished(planned, finish):
    """Two seeds of both rows; the loss finds more."""
    runs = planned()
    for run in runs:
        finish(run, 0.9 if run.row.key == "pluld-a3d" else 0.3)
    return runs


def read(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text)))


def test_rows_and_pairs_are_those_of_the_detections(finished):
    summary = collect(MINI, finished, resamples=50)
    assert [item.seeds for item in summary.rows] == [(0, 1), (0, 1)]
    for item in summary.rows:
        own = [run for run in finished if run.row.key == item.row.key]
        averages = [evaluate_files(run.detections, run.truth, "deeplesion-2d")["average"] for run in own]
        np.testing.assert_allclose(item.values[:, -1], averages)
        assert item.mean[-1] == pytest.approx(np.mean(averages))
    difference = summary.pairs[0].difference
    assert difference.value[-1] == pytest.approx(summary.rows[1].mean[-1] - summary.rows[0].mean[-1])
    assert "key slices of 3 patients" in summary.test_set


def test_missing_and_failed_rows_are_marked(planned, finish):
    runs = planned()
    finish(runs[0], 0.5)
    runs[1].state = runs[3].state = "failed"
    summary = collect(MINI, runs, resamples=20)
    assert summary.pairs[0].difference is None
    text = markdown(summary, "mini.png", "mmpluld reproduce mini", None)
    assert "| A3D | 1 |" in text
    assert "| A3D + partial-label loss | failed | - | - |" in text
    assert "\nNot compared: A3D + partial-label loss − A3D (A3D + partial-label loss failed).\n" in text
    assert pair_line(summary.pairs[0]).endswith("A3D: not compared (A3D + partial-label loss failed)")
    summary = collect(MINI, planned(), resamples=20)
    assert "| A3D + partial-label loss | not run |" in markdown(summary, "mini.png", "command", None)
    assert pair_line(summary.pairs[0]).endswith("not compared (A3D + partial-label loss not run)")


def test_single_seeds_are_compared_on_the_patients_alone(planned, finish):
    runs = planned()
    for run in (runs[0], next(item for item in runs if (item.row, item.seed != runs[0].seed) == (runs[1].row, True))):
        finish(run, 0.5)
    summary = collect(MINI, runs, resamples=20)
    assert [len(item.seeds) for item in summary.rows] == [1, 1]
    assert pair_line(summary.pairs[0]).endswith("(1 seed): inconclusive")
    text = markdown(summary, "mini.png", "command", None)
    assert "nan" not in text
    assert "scatters" not in text


@pytest.mark.parametrize("how", ["weights_of", "trained_as"])
def test_rows_on_the_same_trainings_are_compared_on_the_seeds_that_both_have(planned, finish, how):
    tester = replace(MINI.rows[1], **{how: "a3d"})
    table = replace(MINI, rows=(MINI.rows[0], tester))
    runs = planned(table, seeds=3)
    for run in runs:
        if (run.row, run.seed) not in ((tester, 2), (MINI.rows[0], 0)):
            finish(run, 0.5)
    summary = collect(table, runs, resamples=20)
    assert summary.whole.noises[0].rows == 1  # one training is not counted twice
    pair = summary.pairs[0]
    assert pair.difference.paired
    assert pair.difference.seeds == (1, 1)
    for run in runs:
        run.state = "done" if run.seed == (2 if run.row == tester else 0) else "waiting"
        if not run.folder.exists():
            finish(run, 0.5)
    assert pair_line(collect(table, runs, resamples=20).pairs[0]).endswith("(no seed that both have finished)")


def test_rows_tested_on_other_lesions_have_a_spread_of_their_own(planned, finish, tmp_path):
    extra = [
        replace(MINI.rows[0], key=f"other{n}", label=f"other {n}", options=(f"train_cfg.max_epochs={n + 1}",))
        for n in range(2)
    ]
    table = replace(MINI, rows=(*MINI.rows, *extra), pairs=(("pluld-a3d", "a3d"), ("other1", "other0")))
    runs = planned(table, seeds=2)
    for run in runs:
        finish(run, 0.3 + 0.4 * run.seed if run.row in extra else 0.5)
    same = collect(table, runs, resamples=20).whole
    truth = AnnotationSet.load(runs[0].truth)
    truth.save(tmp_path / "other.json")
    for run in runs:
        run.truth = tmp_path / "other.json" if run.row in extra else run.truth
    summary = collect(table, runs, resamples=20)
    assert len(same.noises) == 1
    assert [[row.key for row in noise.tested] for noise in summary.whole.noises] == [
        ["a3d", "pluld-a3d"],
        ["other0", "other1"],
    ]
    quiet, loud = summary.whole.noises
    assert quiet.of_run < loud.of_run
    text = markdown(summary, "x.png", "command", None)
    assert "Rows *other 0* to *other 1*, which are tested on the same:" in text
    for run in runs:  # none of those rows has been trained
        run.state = "waiting" if run.row in extra else run.state
    unfinished = collect(table, runs, resamples=20).whole
    assert [row.seeds for row in unfinished.rows] == [(0, 1), (0, 1), (), ()]
    assert [[row.key for row in noise.tested] for noise in unfinished.noises] == [["a3d", "pluld-a3d"]]


def test_one_test_patient_compares_nothing(finished, tmp_path):
    truth = AnnotationSet.load(finished[0].truth)
    for volume in truth.volumes:
        volume.patient = "alone"
    truth.save(tmp_path / "truth.json")
    for run in finished:
        run.truth = tmp_path / "truth.json"
    summary = collect(MINI, finished, resamples=20)
    assert summary.pairs[0].difference is None
    assert pair_line(summary.pairs[0]).endswith("(one test patient alone, a bootstrap over patients needs at least 2)")
    assert "of 1 patient (no pair is compared, a bootstrap over patients needs at least 2)" in summary.test_set


def test_pair_uses_all_seeds_of_both_rows(planned, finish):
    runs = planned()
    for run in runs[:3]:
        finish(run, 0.5)
    summary = collect(MINI, runs, resamples=20)
    assert sorted(summary.pairs[0].difference.seeds) == [1, 2]
    # The row with one seed has the spread of the other.
    assert all(np.isfinite(item.low).all() for item in summary.rows)
    assert summary.whole.noises[0].rows == 1


def test_report_says_what_chance_does_and_how_many_seeds_the_margin_needs(finished):
    text = markdown(collect(MINI, finished, resamples=50), "mini.png", "command", None)
    assert "(2 rows pooled, 2 degrees of freedom)" in text
    assert "detectable" in text
    assert "| first ahead |" in text and "| inconclusive |" not in text
    wide = markdown(collect(replace(MINI, margin=90.0), finished, resamples=50), "mini.png", "command", None)
    assert re.search(r"A difference of 90 points between two rows is detectable from \d+ seeds of each on", wide)


def test_collapsed_row_is_named_and_keeps_its_own_spread(planned, finish):
    extra = [replace(MINI.rows[0], key=f"calm{number}", label=f"calm {number}") for number in range(2)]
    table = replace(MINI, rows=(*MINI.rows, *extra), pairs=(("pluld-a3d", "a3d"), ("calm0", "a3d")))
    runs = planned(table, seeds=3)
    summary = collect(table, _settled(runs, finish), resamples=20)
    assert [row.key for row, _ in summary.whole.noises[0].loud] == ["pluld-a3d"]
    assert summary.whole.noises[0].rows == 3
    text = markdown(summary, "x.png", "command", None)
    assert re.search(r"Not pooled, scatters clearly more .*: A3D \+ partial-label loss \(\d+\.\d\d\)\.", text)


def _settled(runs, finish):
    """Rows that find nearly all lesions with every seed, but for one that does so with some seeds only."""
    for run in runs:
        if run.row.key.startswith("calm"):
            run.folder = run.folder.parent.with_name(run.row.key) / run.folder.name
        finish(run, 0.0 if (run.row.key, run.seed) == ("pluld-a3d", 1) else 0.97)
    return runs


LUNGS = {"lung": ("lung",), "rest": ("liver", "kidney", "abdomen", "pelvis", "bone", "soft tissue", "mediastinum")}


def test_specialties_are_those_of_the_stratified_evaluation(finished):
    table = replace(MINI, specialties={**LUNGS, "none": ()})
    summary = collect(table, finished, resamples=50)
    assert [part.name for part in summary.specialties] == ["lung", "rest", "all specialties"]
    lung, _, both = summary.specialties
    for result, whole, together in zip(lung.rows, summary.rows, both.rows, strict=True):
        run = next(run for run in finished if (run.row, run.seed) == (result.row, 0))
        strata = evaluate_files(run.detections, run.truth, "deeplesion-2d", strata=["type"])["strata"]
        expected = next(item for item in strata if item["group"] == "lung")
        assert result.values[0, -1] == pytest.approx(expected["average"])
        assert lung.test_set.startswith(f"{expected['num_lesions']} lesion")
        np.testing.assert_allclose(together.values, whole.values)
    text = markdown(summary, "x.png", "command", None)
    assert "| row | lung | rest | all specialties |" in text
    assert "| lung | A3D + partial-label loss − A3D |" in text
    assert all(line.count("|") == 7 for line in text.splitlines() if line.startswith("| lung |"))
    assert ["rest", "pair", "pluld-a3d - a3d"] in [line[:3] for line in read(table_csv(summary))]


def test_shares_of_negatives_on_unmarked_lesions_are_reported(finished):
    for run, told in zip(
        finished, ({"rpn": 0.01, "roi": 0.1, "images": 9}, {}, {"rpn": 0.02}, {"rpn": 0.5}), strict=True
    ):
        (run.folder / "negatives.json").write_text(json.dumps(told))
    keys = [run.row.key for run in finished]
    assert keys[0] == keys[2] != keys[1]
    summary = collect(MINI, finished, resamples=20)
    assert summary.negatives == {keys[0]: pytest.approx({"rpn": 0.015, "roi": 0.1}), keys[1]: {"rpn": 0.5}}
    text = markdown(summary, "x.png", "command", None)
    assert "| row | proposal network or one-stage head | RoI head |" in text
    assert f"| {finished[0].row.label} | 1.50 | 10.00 |" in text
    assert f"| {finished[1].row.label} | 50.00 | - |" in text
    assert {len(line) for line in read(table_csv(summary))} == {15}


@pytest.mark.parametrize("share", ["1.2", "-0.1", '"many"', "true", "null"])
def test_share_that_is_none_is_refused(finished, share):
    path = finished[0].folder / "negatives.json"
    path.write_text(f'{{"rpn": {share}}}')
    with pytest.raises(InputError, match=r"negatives\.json: 'rpn' is .*; a share is a number in \[0, 1\]"):
        collect(MINI, finished, resamples=20)


def test_markdown_labels_the_papers_figures_and_names_its_command(finished, phantom):
    summary = collect(MINI, finished, resamples=50)
    text = markdown(summary, "mini.png", "mmpluld reproduce mini --twins", describe_phantom(phantom), twins=True)
    assert "Twins on the phantom: miniatures" in text
    assert "miniature" not in markdown(summary, "mini.png", "command", describe_phantom(phantom))
    assert "Twins: miniatures" in markdown(summary, "mini.png", "command", None, twins=True)
    header = next(line for line in text.splitlines() if line.startswith("| row"))
    assert "0.5 (paper)" in header
    assert "average (paper)" in header
    row = next(line for line in text.splitlines() if line.startswith("| A3D |"))
    assert row.endswith("| 78.52 | 83.43 | 89.39 | 92.96 | 94.06 | 96.72 | 86.08 |")
    assert len(row.split("|")) == len(header.split("|"))
    assert "mmpluld reproduce mini --twins" in text
    assert "2 training and 3 test patients, size=64, max_slices=16" in text
    assert "lesions are unmarked" in text


def test_table_csv_holds_intervals_and_the_paper(finished):
    lines = read(table_csv(collect(MINI, finished, resamples=50)))
    assert {len(line) for line in lines} == {15}
    kinds = {(line[1], line[2], line[4]) for line in lines[1:]}
    assert ("row", "a3d", "paper") in kinds
    assert ("pair", "pluld-a3d - a3d", "detectable") in kinds
    own = {line[4]: float(line[11]) for line in lines if line[2] == "a3d"}
    assert own["low"] < own["mean"] < own["high"]
    assert own["paper"] == 86.08


def test_runs_csv_has_a_line_per_finished_run(finished):
    finished[2].state = "failed"
    lines = read(runs_csv(finished))
    assert lines[0][:4] == ["row", "seed", "config", "sens@0.5"]
    assert [line[:2] for line in lines[1:]] == [["a3d", "0"], ["pluld-a3d", "0"], ["pluld-a3d", "1"]]
    assert lines[1][-3:] == ["12", "3", "1"]
    assert runs_csv([]) == ""


@pytest.mark.parametrize("table", [MINI, CURVE], ids=["rows", "curve"])
@pytest.mark.parametrize("done", ["all", "some", "none"])
def test_report_files_are_equal_for_equal_runs(planned, finish, tmp_path, table, done):
    runs = planned(table)
    for number, run in enumerate(runs):
        if done == "all" or (done == "some" and number < 2):
            finish(run, 0.3 + 0.1 * number)
    contents = []
    for name in ("first", "second"):
        files = write_report(collect(table, runs, resamples=20), tmp_path / name / "x", "command", None)
        assert [file.name for file in files] == ["x.md", "x.csv", "x.png"]
        contents.append([file.read_bytes() for file in files])
    assert contents[0] == contents[1]
    picture = cv2.imread(str(files[2]))
    assert picture.shape[1] > 900
    assert picture.std() > 5


def test_export_leaves_the_detections_out(finished, tmp_path):
    files = write_report(collect(MINI, finished, resamples=20), tmp_path / "mini", "command", None)
    folder = export(files, finished, tmp_path / "results")
    assert folder == tmp_path / "results" / "mini"
    assert sorted(path.name for path in folder.iterdir()) == ["mini.csv", "mini.md", "mini.png", "runs.csv"]


def test_terminal_table_and_pair_line(finished):
    summary = collect(MINI, finished, resamples=50)
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(terminal_table(summary))
    text = console.export_text()
    assert "paper avg" in text
    assert "86.90" in text
    line = pair_line(summary.pairs[0])
    assert line.startswith("A3D + partial-label loss - A3D: +")
    assert " (2 seeds): " in line
