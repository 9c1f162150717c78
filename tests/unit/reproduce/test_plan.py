"""Plans of runs and of the steps between them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mmpluld.errors import InputError
from mmpluld.reproduce.children import Resources
from mmpluld.reproduce.graph import Job, execute
from mmpluld.reproduce.plan import Plan, detectors_behind, plan, with_needs
from mmpluld.reproduce.runner import Run, _command
from mmpluld.reproduce.start import random_start
from mmpluld.reproduce.steps import Step, step_of
from mmpluld.reproduce.tables import TABLES, Row

TABLE2 = TABLES["lens-table2"]
TABLE4 = TABLES["lens-table4"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Annotation files of the four phantoms; plans read their bytes alone."""
    root = tmp_path / "phantoms"
    files = ["deeplesion/annotations/train.json", "deeplesion/annotations/val.json"]
    files += [f"deeplesion/truth/{split}_subvolumes.json" for split in ("val", "test")]
    files += [f"{name}/annotations/{part}.json" for name in ("luna16", "lits", "nih-ln") for part in ("train", "test")]
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    return root


@pytest.fixture
def planned(data, tmp_path):
    def make(*rows: Row, seeds: int = 1, **changes: object) -> list[Run]:
        return plan(rows, seeds, tmp_path / "work", "lens-3d", twins=True, data_root=data, **changes)

    return make


def names(jobs: list[Job]) -> list[str]:
    return [f"{job.name}{'' if not isinstance(job, Run) or job.tested else ' (trained)'}" for job in jobs]


def test_a_row_on_mined_labels_needs_the_steps_that_mine_them(planned):
    (run,) = planned(TABLE2.row("lens-mined"))
    assert names(with_needs([run])) == [
        "lens (trained)", "propose", "embedder", "embed-0.2", "mine-unlabeled", "lens-mined",
    ]  # fmt: skip
    jobs = {job.name: job for job in with_needs([run]) if isinstance(job, Step)}
    mined = jobs["mine-unlabeled"]
    for step in (mined, jobs["embed-0.2"]):  # the tracklets that are mined are those that are embedded
        arguments = step.arguments() if step is mined else step.identity["settings"]
        assert arguments[arguments.index("--box-score") + 1] == "0.2"
    option = f"train_dataloader.dataset.datasets.deeplesion.ann_file={mined.makes}"
    assert option in _command(run, 0, "train")
    assert "steps/lens-afp_densenet121_4datasets_9s_phantom/mine-unlabeled/seed0/mined.json" in str(mined.makes)


def test_the_detector_of_a_row_is_the_row_of_the_table_where_it_is_one(planned):
    runs = planned(TABLE2.row("lens-mined"), TABLE2.row("lens"))
    assert [run.name for run in runs] == ["lens-mined", "lens"]
    assert runs[1] in with_needs([runs[0]])
    assert runs[1].tested


def test_false_positive_reduction_learns_from_patients_that_its_detectors_never_saw(planned):
    runs = planned(TABLE2.row("lens-mined"), TABLE2.row("lens-fpr-average"))
    jobs = with_needs([runs[1]])
    order = names(jobs)
    for name in ("lens-mined-fold0 (trained)", "lens-mined-fold1 (trained)", "propose-fold0", "propose-fold1"):
        assert order.index(name) < order.index("harvest") < order.index("fpr_resnet18") < len(order) - 1
    held_out = next(job for job in jobs if job.name == "lens-mined-fold1")
    assert isinstance(held_out, Run)
    assert "train_dataloader.dataset.datasets.deeplesion.fold=[1,2]" in held_out.options
    assert "train_dataloader.dataset.datasets.deeplesion.fold_part=out" in held_out.options
    proposals = next(job for job in jobs if job.name == "propose-fold1")
    assert isinstance(proposals, Step)
    held_out.folder.mkdir(parents=True)
    (held_out.folder / "last_checkpoint").write_text("epoch_18.pth")
    command = list(proposals.arguments())
    assert command[:3] == ["propose", held_out.config, str(held_out.folder / "epoch_18.pth")]
    assert command[command.index("--fold") + 1] == "1/2"
    assert runs[1].trainer is runs[0]


def test_a_second_round_starts_from_the_labels_of_the_first_and_the_detector_trained_on_them(planned):
    jobs = with_needs(planned(TABLE4.row("lens-second-round")))
    order = names(jobs)
    assert order.index("mine-unlabeled") < order.index("lens-mined (trained)") < order.index("mine-second-round")
    mine = jobs[order.index("mine-second-round")]
    first = jobs[order.index("mine-unlabeled")]
    assert isinstance(mine, Step)
    assert isinstance(first, Step)
    assert list(mine.arguments())[:2] == ["mine", str(first.makes)]


def test_options_of_the_command_reach_the_steps_too(planned):
    options = ["test_dataloader.dataset.pipeline.resize.pixel_mm=1.4"]
    jobs = {job.name: job for job in with_needs(planned(TABLE4.row("lens-distillation"), cfg_options=options))}
    assert "test_dataloader.dataset.pipeline.resize.pixel_mm=1.75" in jobs["propose-0.8"].identity["settings"]


def test_labels_are_mined_from_the_dataset_that_options_name(planned, data, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    data.rename(elsewhere)
    options = [f"train_dataloader.dataset.datasets.deeplesion.data_root={elsewhere}"]
    plain = Plan([], tmp_path, "lens-3d", True, "test", None, options, random_start)
    assert plain._training_data(TABLE2.row("lens"))[0] == elsewhere / "deeplesion/annotations/train.json"


def test_oracles_need_no_proposals_and_views_of_distillation_are_three(planned):
    assert names(with_needs(planned(TABLE4.row("lens-oracle-unlabeled")))) == [
        "mine-oracle-unlabeled", "lens-oracle-unlabeled",
    ]  # fmt: skip
    jobs = with_needs(planned(TABLE4.row("lens-distillation")))
    assert {"propose", "propose-0.8", "propose-1.25"} < set(names(jobs))
    larger = next(job for job in jobs if job.name == "propose-1.25")
    assert larger.identity["settings"] == ["test_dataloader.dataset.pipeline.resize.pixel_mm=2.24"]
    published = Plan([], Path(), "lens-3d", False, "test", None, (), random_start)
    resize = "test_dataloader.dataset.pipeline.resize"
    assert published._resized(TABLE4.row("lens-distillation").labels.detector, 1.25) == [
        f"{resize}.pixel_mm=0.64", f"{resize}.max_size=640",
    ]  # fmt: skip


def test_labels_of_other_rules_are_refused_in_a_folder(planned):
    row = TABLE4.row("lens-cross-slice")
    (run,) = planned(row)
    for job in with_needs([run]):
        _ = job.record  # writes it
    planned(row)
    other = replace(row, labels=replace(row.labels, twin_rules=("--theta", "0.4")))
    with pytest.raises(InputError, match="mine-cross-slice/seed0: holds a run with another settings"):
        planned(other)


@pytest.mark.parametrize(
    ("file", "key", "step"),
    [
        ("deeplesion/annotations/train.json", "lens-intra-patient", "steps/embedder"),
        ("deeplesion/truth/train.json", "lens-oracle-unlabeled", "mine-oracle-unlabeled/seed0"),
    ],
)
def test_steps_of_other_data_are_refused(planned, data, file, key, step):
    (data / file).write_text("first")
    (run,) = planned(TABLE4.row(key))
    (made,) = [job for job in with_needs([run]) if str(job.folder).endswith(step)]
    _ = made.record  # writes it
    planned(TABLE4.row(key))
    (data / file).write_text("second")
    with pytest.raises(InputError, match=f"{step}: holds a run with other data"):
        planned(TABLE4.row(key))


def test_what_a_row_is_made_with_is_known_before_it_is_planned():
    rows = [TABLE2.row("lens-fpr-average")]
    assert [row.key for row in detectors_behind(rows)] == ["lens-mined", "lens"]
    assert detectors_behind([TABLE2.row("lens")]) == []


def scan(tmp_path: Path, name: str, needs: list[Job], size: int = 32) -> Step:
    """A step that makes a scan of the phantom."""
    folder = tmp_path / name
    settings = ["--seed", "0", "--set", f"size={size}", "max_slices=3"]
    made = folder / "scan.nii.gz"
    return step_of(name, 0, folder, needs, settings, lambda: ["phantom", "scan", str(made), *settings], made)


def test_steps_are_done_once_and_in_order(tmp_path):
    first = scan(tmp_path, "first", [])
    second = scan(tmp_path, "second", [first])
    execute(with_needs([second]), Resources(2, 1))
    assert (first.state, second.state) == ("done", "done"), first.error or second.error
    written = first.makes.stat().st_mtime_ns
    again = scan(tmp_path, "second", [scan(tmp_path, "first", [])])
    for job in with_needs([again]):
        job.look()
        assert job.state == "done"
    execute(with_needs([again]), Resources(1, 1))
    assert first.makes.stat().st_mtime_ns == written
    first.makes.unlink()
    first = scan(tmp_path, "first", [])
    first.look()
    assert first.state == "waiting", "what it makes is gone"


def test_a_failed_step_stops_what_needs_it_and_nothing_else(tmp_path):
    broken = scan(tmp_path, "broken", [], size=-1)
    after, apart = scan(tmp_path, "after", [broken]), scan(tmp_path, "apart", [])
    execute([broken, after, apart], Resources(1, 1))
    assert [job.state for job in (broken, after, apart)] == ["failed", "failed", "done"]
    assert "size=-1" in broken.error
    assert after.error == "needs broken, which failed"
    assert not after.folder.exists()


def test_negatives_are_compared_with_the_truth_of_the_slices_that_are_drawn(data, planned):
    truth = data / "deeplesion/truth"
    truth.mkdir(exist_ok=True)
    for name in ("train.json", "train_key_slices.json"):
        (truth / name).touch()
    mined, marked = planned(TABLE2.row("lens-mined"), TABLE2.row("lens"))
    for run, name in ((mined, "train.json"), (marked, "train_key_slices.json")):
        assert f"default_hooks.negatives.truth={truth / name}" in run.options
