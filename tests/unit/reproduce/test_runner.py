"""Planning, skipping, refusing, and child processes that fail or are stopped."""

from __future__ import annotations

import json
import os
import re
import sys
import threading
import time
from dataclasses import replace

import pytest

from mmpluld.cli.main import run as run_command_line
from mmpluld.errors import InputError
from mmpluld.reproduce.children import Children, Resources, RunFailed, run_command
from mmpluld.reproduce.graph import execute
from mmpluld.reproduce.plan import Plan, with_needs
from mmpluld.reproduce.runner import _command
from mmpluld.reproduce.start import random_start
from mmpluld.reproduce.tables import TABLES, Row, Table, with_recipe


def test_plan_takes_the_first_seed_of_every_row_first(planned, tmp_path, phantom):
    runs = planned()
    assert [(run.row.key, run.seed) for run in runs] == [("a3d", 0), ("pluld-a3d", 0), ("a3d", 1), ("pluld-a3d", 1)]
    assert runs[3].folder == tmp_path / "work" / "pluld-a3d_densenet121-fpn_7s_phantom" / "seed1"
    assert runs[0].truth == phantom / "truth/test_key_slices.json"
    assert {run.state for run in runs} == {"waiting"}


def test_identity_tells_config_options_and_data(planned, phantom, tmp_path):
    first, other = planned(seeds=1)
    assert first.identity["config_sha256"] != other.identity["config_sha256"]
    assert first.identity["data_sha256"] == other.identity["data_sha256"]
    changed = planned(seeds=1, cfg_options=["train_cfg.max_epochs=1"])[0]
    assert changed.identity["config_sha256"] != first.identity["config_sha256"]
    copy = tmp_path / "copy"
    for name in ("annotations/train.json", "truth/test_key_slices.json"):
        (copy / name).parent.mkdir(parents=True)
        (copy / name).write_bytes((phantom / name).read_bytes())
    assert planned(seeds=1, data_root=copy)[0].identity == first.identity
    with (copy / "annotations/train.json").open("a") as stream:
        stream.write("\n")
    assert planned(seeds=1, data_root=copy)[0].identity["data_sha256"] != first.identity["data_sha256"]


def test_missing_annotations_are_named(planned, tmp_path):
    with pytest.raises(InputError, match=r"nowhere.*train.json: no such annotation file; make it with"):
        planned(data_root=tmp_path / "nowhere")


def test_finished_runs_are_not_repeated(planned, finish):
    finish(planned()[0], 0.5)
    runs = planned()
    assert [run.state for run in runs] == ["done", "waiting", "waiting", "waiting"]
    before = {path: path.stat().st_mtime_ns for path in runs[0].folder.iterdir()}
    execute(runs[:1], Resources(1, 1))
    assert {path: path.stat().st_mtime_ns for path in runs[0].folder.iterdir()} == before


def test_result_without_detections_is_not_finished(planned, finish):
    finish(planned()[0], 0.5)
    planned()[0].detections.unlink()
    assert planned()[0].state == "waiting"


@pytest.mark.parametrize(
    ("name", "message"), [("config_sha256", "another version of the config"), ("data_sha256", "other data")]
)
def test_run_of_another_config_or_data_is_refused(planned, finish, name, message):
    run = planned()[0]
    finish(run, 0.5)
    path = run.folder / "run.json"
    record = json.loads(path.read_text())
    record["identity"][name] = "0" * 64
    path.write_text(json.dumps(record))
    with pytest.raises(InputError, match=f"seed0: holds a run with {message}; remove the folder or choose"):
        planned()


def test_failing_run_leaves_its_error_and_the_others_are_done(planned, finish):
    runs = planned(seeds=1)
    finish(runs[1], 0.5)
    broken = runs[0]
    broken.folder.mkdir(parents=True)
    record = {"identity": broken.identity, "trained": True, "seconds": {"train": 1.0, "test": 0.0}}
    (broken.folder / "run.json").write_text(json.dumps(record))
    (broken.folder / "last_checkpoint").write_text("epoch_1.pth")
    ticks = []
    execute(runs, Resources(2, 1), lambda: ticks.append(1))
    assert [run.state for run in runs] == ["failed", "done"]
    assert str(broken.folder / "test.log") in broken.error
    assert "no such" in broken.error
    assert "\n" not in broken.error
    assert ticks
    assert json.loads((broken.folder / "run.json").read_text())["seconds"]["test"] > 0


def test_commands_of_a_run(planned):
    run = planned()[1]
    train = _command(run, 0, "train")
    assert train[1:5] == ["-m", "mmpluld", "train", "pluld-a3d_densenet121-fpn_7s_phantom"]
    assert train[train.index("--seed") + 1] == "0"
    assert "--resume" in train
    assert run.options[-1].startswith("data_root=")
    assert "default_hooks.negatives.type=NegativesHook" in run.options
    shared = _command(run, 4, "train")  # as one process with the whole batch would train
    assert shared[-1] == "train_dataloader.batch_size=2"
    with pytest.raises(
        InputError, match="--gpus 3: batches of 8 cannot be shared evenly.* here are 1, 2, 4, 8, with --jobs"
    ):
        _command(run, 3, "train")
    run.folder.mkdir(parents=True)
    (run.folder / "last_checkpoint").write_text("/where/it/was/epoch_22.pth")
    test = _command(run, 2, "test")
    assert test[1:5] == ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    assert str(run.folder / "epoch_22.pth") in test
    assert test[test.index("--launcher") + 1] == "pytorch"


def test_resources_share_cores_and_devices(monkeypatch):
    cores = len(os.sched_getaffinity(0))
    assert Resources.of_machine(None, 0) == Resources(cores, 1, 0)
    assert Resources.of_machine(1, 0) == Resources(1, cores, 0)
    assert Resources.of_machine(None, 4).jobs == 1
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert Resources(2, 3, 2).environment(1)["CUDA_VISIBLE_DEVICES"] == "2,3"
    assert Resources(2, 3, 2).environment(1)["OMP_NUM_THREADS"] == "3"
    assert "CUDA_VISIBLE_DEVICES" not in Resources(2, 3).environment(1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6")
    assert Resources(3, 1, 1).environment(2)["CUDA_VISIBLE_DEVICES"] == "6"


def test_failing_command_shows_log_and_last_line(tmp_path):
    log = tmp_path / "a" / "x.log"
    command = [sys.executable, "-c", "print('one'); print('two'); raise SystemExit(3)"]
    with pytest.raises(RunFailed, match=r"status 3, see .*x\.log: two$"):
        Children().call(command, log, dict(os.environ))
    with pytest.raises(RunFailed, match="status 2"):
        run_command(["phantom", "nonsense"], log)


def test_stop_ends_children_and_their_children(tmp_path):
    children = Children()
    code = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(120)'])\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(120)\n"
    )
    errors: list[str] = []

    def call() -> None:
        try:
            children.call([sys.executable, "-c", code], tmp_path / "log", dict(os.environ))
        except RunFailed as error:
            errors.append(str(error))

    thread = threading.Thread(target=call)
    thread.start()
    deadline = time.monotonic() + 60
    while not (tmp_path / "log").is_file() or not (tmp_path / "log").read_text().strip():
        assert time.monotonic() < deadline
        threading.Event().wait(0.02)
    grandchild = int((tmp_path / "log").read_text())
    children.stop()
    thread.join(timeout=20)
    assert errors == ["interrupted"]
    deadline = time.monotonic() + 20
    while _alive(grandchild):
        assert time.monotonic() < deadline
        threading.Event().wait(0.02)
    with pytest.raises(RunFailed, match="interrupted"):
        children.call([sys.executable, "-c", ""], tmp_path / "log", dict(os.environ))


def _alive(process: int) -> bool:
    """Whether a process runs; one that ended but was not waited for does not."""
    try:
        with open(f"/proc/{process}/stat") as stream:  # noqa: PTH123
            return stream.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


BORROWER = Table(
    "borrower",
    "A row that tests the weights of another",
    (
        Row("borrows", "factor only", "pluld-a3d_densenet121-fpn_factor-only_7s", weights_of="a3d", calibrated=True),
        TABLES["table1"].row("a3d"),
    ),
)


def test_row_without_a_training_takes_the_weights_of_its_seed(planned):
    runs = {(run.row.key, run.seed): run for run in planned(BORROWER)}
    borrows, trains = runs["borrows", 1], runs["a3d", 1]
    assert borrows.trainer is trains
    assert trains.trainer is None
    trains.folder.mkdir(parents=True)
    (trains.folder / "last_checkpoint").write_text("/where/it/was/epoch_3.pth")
    calibrate, test = (_command(borrows, 0, stage) for stage in ("calibrate", "test"))
    assert calibrate[3:7] == ["calibrate", borrows.config, str(trains.folder / "epoch_3.pth"), test[5]]
    assert test[5] == str(borrows.folder / "calibrated.pth")
    assert _command(trains, 0, "test")[5] == str(trains.folder / "epoch_3.pth")


def test_row_without_a_training_fails_with_the_training(planned):
    borrows, trains = planned(BORROWER, seeds=1)
    trains.state = "failed"
    execute([borrows], Resources(1, 1))
    assert borrows.state == "failed"
    assert borrows.error == "needs a3d, which failed"


def test_row_without_a_training_depends_on_the_config_of_its_weights(planned, finish):
    finish(planned(BORROWER, seeds=1)[0], 0.5)
    assert planned(BORROWER, seeds=1)[0].state == "done"
    path = planned(BORROWER, seeds=1)[0].folder / "run.json"
    record = json.loads(path.read_text())
    record["identity"]["weights_config_sha256"] = "0" * 64
    path.write_text(json.dumps(record))
    with pytest.raises(InputError, match="another version of the config of its weights"):
        planned(BORROWER, seeds=1)


ONLY_ONE_EPOCH = replace(TABLES["table1"].row("a3d"), key="a3d-short", options=("train_cfg.max_epochs=1",))
SHORT = Table("short", "A row with options beside the plain one", (TABLES["table1"].row("a3d"), ONLY_ONE_EPOCH))


def test_options_of_a_row_make_another_run(planned, finish):
    plain, short = planned(SHORT, seeds=1)
    assert plain.config == short.config
    assert short.folder.parent.name == plain.folder.parent.name + "+a3d-short"
    assert plain.identity["cfg_options"] == []
    assert short.identity["cfg_options"] == ["train_cfg.max_epochs=1"]
    assert plain.identity["config_sha256"] != short.identity["config_sha256"]
    command = _command(short, 0, "train")
    assert "train_cfg.max_epochs=1" in command[command.index("--cfg-options") :]
    finish(plain, 0.5)
    assert [run.state for run in planned(SHORT, seeds=1)] == ["done", "waiting"]


def test_options_of_the_command_come_after_those_of_the_row(planned):
    short = planned(SHORT, seeds=1, cfg_options=["train_cfg.val_interval=3"])[1]
    assert short.identity["cfg_options"] == ["train_cfg.max_epochs=1", "train_cfg.val_interval=3"]
    assert short.options[:2] == short.identity["cfg_options"]


def test_options_that_make_two_rows_the_same_are_refused(planned):
    with pytest.raises(InputError, match=r"max_epochs=3: makes the rows a3d and a3d-short the same; leave out"):
        planned(SHORT, seeds=1, cfg_options=["train_cfg.max_epochs=3"])


@pytest.mark.parametrize(
    ("table", "option", "told"),
    [
        ("choose-threshold", "test_cfg.link_score_thr=0.02", "rows lens and lens-link-score-thr-0.01 the same"),
        ("choose-afp", "model.rpn_head.head.loss_cls=None", "loss_cls is what the row lens-weight-0.01 sets"),
        ("choose-fusion", "model.test_cfg.rcnn.fusion.iou_threshold=0.35", "rows lens and lens-iou-threshold-0.3 the"),
        (
            "choose-epochs-lens",
            "train_cfg.max_epochs=2",
            "train_cfg.max_epochs is what the row lens-single-epochs-8 sets",
        ),
        ("lens-table2", "model.test_cfg.rcnn.experts=[deeplesion]", "rows lens-no-fusion and lens the same"),
    ],
)
def test_options_that_set_what_rows_vary_are_refused(tmp_path, table, option, told):
    """Also of rows that differ in their tests alone."""
    rows = [row for row in TABLES[table].rows if row.labels is None and row.fpr is None]
    planned = Plan(rows, tmp_path, "lens-3d", True, "val", None, [option], random_start)
    with pytest.raises(InputError, match=re.escape(told)):
        planned.refuse_levelling()


def test_options_that_leave_what_rows_vary_are_taken(tmp_path):
    Plan(TABLES["choose-fusion"].rows, tmp_path, "lens-3d", True, "val", None, ["train_cfg.max_epochs=2"], random_start
         ).refuse_levelling()  # fmt: skip


def test_files_of_which_nothing_is_known_are_refused(planned, finish):
    run = planned(seeds=1)[0]
    finish(run, 0.5)
    assert planned(seeds=1)[0].state == "done"
    (run.folder / "run.json").unlink()
    with pytest.raises(InputError, match=r"seed0: has files and no run\.json, .*; remove the folder"):
        planned(seeds=1)


def test_what_only_a_finished_run_needed_is_not_made_again(planned, finish):
    run = planned(seeds=1, split="val")[0]
    finish(run, 0.5)
    (done, *_), (waiting, *_) = planned(seeds=1, split="val"), planned(seeds=2, split="val")[2:]
    assert done.state == "done"
    assert [job.state for job in with_needs([done])] == ["waiting", "done"], "its training is not here"
    assert with_needs([done], unfinished=True) == []
    assert with_needs([waiting], unfinished=True) == [waiting.trainer, waiting]


def test_other_options_of_a_row_are_refused(planned, finish):
    finish(planned(SHORT, seeds=1)[1], 0.5)
    longer = replace(ONLY_ONE_EPOCH, options=("train_cfg.max_epochs=2",))
    with pytest.raises(InputError, match=r"\+a3d-short/seed0: holds a run with another version of the config"):
        planned(replace(SHORT, rows=(longer,)), seeds=1)


def test_validation_patients_have_runs_and_truth_of_their_own(planned, phantom):
    tested, validated = planned(seeds=1)[0], planned(seeds=1, split="val")[0]
    assert validated.truth == phantom / "truth/val_key_slices.json"
    assert validated.folder.parent.name == tested.folder.parent.name + "-val"
    assert validated.trainer is not None
    assert not validated.trainer.tested
    assert (validated.trainer.folder, validated.trainer.identity) == (tested.folder, tested.identity), "trained once"
    tested.folder.mkdir(parents=True)
    (tested.folder / "last_checkpoint").write_text("epoch_3.pth")
    command = _command(validated, 0, "test")
    assert "test_dataloader.dataset.ann_file=truth/val_key_slices.json" in command
    assert str(tested.folder / "epoch_3.pth") in command
    assert validated.identity["config_sha256"] != tested.identity["config_sha256"]
    assert validated.identity["data_sha256"] != tested.identity["data_sha256"]


def test_validation_of_a_config_whose_test_has_no_such_name_is_refused(planned):
    named = ["test_dataloader.dataset.ann_file=truth/all.json"]
    with pytest.raises(InputError, match=r"tests on truth/all.json, of which no file of the val patients is known"):
        planned(seeds=1, split="val", cfg_options=named)


def test_a_recipe_makes_runs_of_its_own(planned):
    table = TABLES["table2"]
    two = replace(table, rows=table.rows[:2])
    plain, recipe = planned(two, seeds=1), planned(with_recipe(two, "paper"), seeds=1)
    for own, other in zip(plain, recipe, strict=True):
        assert "_paper_" in other.config
        assert other.folder != own.folder
        assert other.identity["config"] == other.folder.parent.name == other.config
        assert other.identity["config_sha256"] != own.identity["config_sha256"]
        assert other.config in _command(other, 0, "train")


@pytest.mark.parametrize(
    ("table", "recipe", "message"),
    [
        ("table1", "papr", "recipe 'papr' is not known; did you mean 'paper'?"),
        ("lens-table2", "paper", "recipe 'paper' is for rows of 20e, not of 8e; leave it out"),
    ],
)
def test_a_recipe_that_is_not_for_the_rows_is_refused(table, recipe, message, tmp_path):
    work_dir = tmp_path / "work"
    with pytest.raises(InputError, match=re.escape(message)):
        run_command_line(["reproduce", table, "--recipe", recipe, "--work-dir", str(work_dir)])
    assert not work_dir.exists()
