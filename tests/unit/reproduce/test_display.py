"""How far runs are, read from their logs."""

from __future__ import annotations

import io

from rich.console import Console

from mmpluld.reproduce.display import _remaining, _view, live_progress, standing

LINE = "11/22 05:12:29 - mmengine - INFO - Epoch(train)  [{}][20/31]  lr: 1.3767e-03  eta: {}  time: 0.4979\n"


def test_standing_of_a_training_is_its_last_epoch(planned):
    run = planned()[0]
    assert standing(run) == "waiting"
    run.state = "training"
    assert standing(run) == "training"
    run.folder.mkdir(parents=True)
    run.log.write_text(LINE.format(1, "0:05:29") + "x" * 40000 + "\n" + LINE.format(12, "0:02:50") + "Saving\n")
    assert standing(run) == "epoch 12, 0:02:50 left"
    run.state = "testing"
    assert standing(run) == "testing"


def test_table_has_a_row_per_row_and_a_column_per_seed(planned, finish):
    runs = planned()
    finish(runs[0], 0.5)
    runs[3].state = "failed"
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(_view(runs, ", about 3 min to go"))
    lines = console.export_text().splitlines()
    assert "1 of 4 runs done, about 3 min to go" in lines[0]
    assert [word in next(line for line in lines if "A3D  " in line) for word in ("done", "waiting")] == [True, True]
    assert "failed" in next(line for line in lines if "partial-label" in line)


def test_remaining_time_is_the_mean_of_what_was_done_now(planned):
    runs = planned()
    assert _remaining(runs, 0, 60, 1) == ""
    runs[0].state = "done"
    assert _remaining(runs, 0, 60, 1) == ", about 3 min to go"
    assert _remaining(runs, 1, 60, 1) == ""  # it was done before
    runs[1].state = "failed"
    assert _remaining(runs, 0, 7200, 1) == ", about 4.0 h to go"


def test_nothing_is_shown_without_a_terminal(planned, capsys):
    with live_progress(planned(), 1) as refresh:
        refresh()
    assert capsys.readouterr() == ("", "")
