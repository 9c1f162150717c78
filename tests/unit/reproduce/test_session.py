"""A table from Python: the call that the command makes."""

from __future__ import annotations

import json
import shlex

import pytest

from mmpluld.cli.main import run as run_command_line
from mmpluld.engine.config import load_config
from mmpluld.errors import InputError
from mmpluld.reproduce.session import Request, _imagenet_starts, chosen_rows, reproduce
from mmpluld.reproduce.tables import TABLES, get_tables


def test_call_and_command_report_the_same(planned, finish, phantom, tmp_path, capsys):
    table, work_dir = TABLES["learning-rate"], tmp_path / "work"
    broken, *others = planned(table, seeds=1)
    for run in others:
        finish(run, 0.5)
    broken.folder.mkdir(parents=True)  # trained, but the weights are gone
    (broken.folder / "run.json").write_text(json.dumps({"identity": broken.identity, "trained": True, "seconds": {}}))
    outcome = reproduce(
        Request(table.name, work_dir, seeds=1, twins=True, data_root=phantom, jobs=1, pretrained=("none",))
    )
    (failed,) = outcome.failed
    assert failed == f"{broken.name}, seed 0: {broken.folder}: no checkpoint of a training"
    (summary,) = outcome.summaries
    assert [len(item.seeds) for item in summary.rows] == [0, 1, 1]
    printed, report = capsys.readouterr().out, (work_dir / "learning-rate-twins.md").read_text(encoding="utf-8")
    assert printed.startswith(f"failed: {failed}\n")
    command = ["reproduce", table.name, "--seeds", "1", "--twins", "--data-root", str(phantom), "--pretrained", "none"]
    assert shlex.join(["mmpluld", *command]) in report
    assert run_command_line([*command, "--jobs", "1", "--work-dir", str(work_dir)]) == 1
    assert (capsys.readouterr().out, (work_dir / "learning-rate-twins.md").read_text(encoding="utf-8")) == (
        printed,
        report,
    )


def test_the_report_names_the_rows_that_were_run(planned, finish, phantom, tmp_path):
    table, work_dir = TABLES["learning-rate"], tmp_path / "work"
    keys = [run.row.key for run in planned(table, seeds=1)]
    for run in planned(table, seeds=1)[1:]:
        finish(run, 0.5)
    reproduce(Request(table.name, work_dir, 1, True, data_root=phantom, jobs=1, pretrained=("none",), rows=(keys[1],)))
    report = (work_dir / "learning-rate-twins.md").read_text(encoding="utf-8")
    assert f"--rows {keys[1]},{keys[2]} " in report


@pytest.mark.parametrize("given", [["resnet18=FILE", "densenet121=FILE"], ["resnet50=FILE"]])
def test_weights_that_one_table_of_several_starts_from_are_taken(tmp_path, monkeypatch, given):
    """Whether they fit is not looked at here; an unknown name is refused for all tables."""
    (tmp_path / "file.pth").write_bytes(b"weights")
    monkeypatch.setattr("mmpluld.reproduce.start._check_fits", lambda path, backbone: None)
    given = tuple(item.replace("FILE", str(tmp_path / "file.pth")) for item in given)
    request = Request("lens", tmp_path / "work", pretrained=given)
    if given[0].startswith("resnet50"):
        with pytest.raises(InputError, match="--pretrained resnet50: none of the rows has this backbone"):
            _imagenet_starts(get_tables("lens"), request)
        return
    starts = _imagenet_starts(get_tables("lens"), request)
    for name in ("lens-afp_densenet121_mined_9s_8e_deeplesion", "fpr_resnet18_deeplesion"):
        assert starts(load_config(name)).options


def test_rows_that_are_asked_for_bring_their_training_along():
    assert [row.key for row in chosen_rows(TABLES["lens-table2"], ["lens-no-fusion"])] == ["lens-no-fusion", "lens"]
    assert [row.key for row in chosen_rows(TABLES["table1"], ["a3d", "pluld-a3d"])] == ["a3d", "pluld-a3d"]


@pytest.mark.parametrize(("name", "value", "least"), [("seeds", 0, 1), ("jobs", 0, 1), ("gpus", -1, 0)])
def test_numbers_that_would_be_taken_for_none_are_refused(name, value, least):
    with pytest.raises(InputError, match=f"{name} is {value}, but must be at least {least}"):
        Request("table1", **{name: value})


def test_rows_of_a_command_are_parted(tmp_path):
    command = ["reproduce", "table1", "--work-dir", str(tmp_path / "work"), "--rows", "a3d, a4d"]
    with pytest.raises(InputError, match="--rows a4d: table1 has no such row; did you mean 'a3d'"):
        run_command_line(command)
