"""What is refused before a run."""

import hashlib
import os
import re
import shutil

import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel

from mmpluld import outputs
from mmpluld.cli.main import main
from mmpluld.engine.refusals import refusals
from mmpluld.engine.run import _made_by, train
from mmpluld.engine.run import test as run_test
from mmpluld.engine.runner import TrainingRunner
from mmpluld.errors import InputError
from mmpluld.outputs import folder_lock
from mmpluld.registry import METRICS, MODELS

from .toys import runner


def test_resume_from_a_missing_checkpoint(tmp_path):
    with pytest.raises(InputError, match="nothing.pth: no such checkpoint"):
        train("a3d_densenet121-fpn_7s_20e_deeplesion", work_dir=tmp_path, resume=str(tmp_path / "nothing.pth"))
    assert not list(tmp_path.iterdir())


def test_weights_are_hashed_by_the_process_that_writes_the_record_alone(tmp_path, monkeypatch):
    weights = tmp_path / "w.pth"
    weights.write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()[:16]
    cfg = Config({"model": {"type": "M"}, "test_dataloader": {"dataset": {"pipeline": []}}})
    for rank, written in (("0", True), ("1", False)):
        monkeypatch.setenv("RANK", rank)
        line = _made_by("a", cfg, weights, "pytorch")
        assert (digest in line) if written else line is None
        with pytest.raises(InputError, match="none.pth"):  # by all, or some would wait for the others
            _made_by("a", cfg, tmp_path / "none.pth", "pytorch")
    assert digest in _made_by("a", cfg, weights, "none")


TWIN = "pluld-faster-rcnn_r50-fpn_3s_phantom"


@pytest.fixture
def data_root(tmp_path_factory):
    """A folder whose annotation files are there, which is all that is asked before a network is built."""
    root = tmp_path_factory.mktemp("data")
    for name in ("annotations/train", "truth/val_key_slices"):
        (root / f"{name}.json").parent.mkdir()
        (root / f"{name}.json").touch()
    return root


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("data_root=no such/place", "no such/place/annotations/train.json: no such annotation file"),
        ("model.backbone.depth=51", "ResNet cannot be built from its values in the config: .*invalid depth 51"),
        ("model.neck.out_channels=-5", "ConvModule|FPN cannot be built"),
        ("train_cfg.max_epochs=one", "train_cfg.max_epochs is 'one'"),
        ("train_dataloader.batchsize=2", "did you mean 'batch_size'"),
        ("val_dataloader=None", "val_dataloader: None or missing; .* belong together"),
        ("val_cfg.type=VolumeTestLoop", "val_cfg.type: VolumeTestLoop is for test_cfg; validate on key slices"),
    ],
)
def test_a_refused_training_is_one_line_and_leaves_no_folder(tmp_path, data_root, capsys, option, message):
    data = [] if option.startswith("data_root") else [f"data_root={data_root}"]
    command = ["train", TWIN, "--work-dir", str(tmp_path / "work"), "--cfg-options", option, *data]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert re.search(message, error)
    assert error.splitlines()[-1].startswith("mmpluld: error: ")
    assert not list(tmp_path.iterdir())


def test_missing_files_are_told_before_anything_is_logged(tmp_path, capsys):
    weights = tmp_path / "weights.pth"
    torch.save({"state_dict": {}}, weights)
    for command, message in (
        (["train", TWIN], "annotations/train.json: no such annotation file"),
        (["test", TWIN, str(tmp_path / "none.pth")], "none.pth: cannot be read (no such file); give weights to test"),
        (["test", TWIN, __file__], "test_run.py: not a checkpoint, or damaged"),
        (["test", TWIN, str(weights)], "test_key_slices.json: no such annotation file"),
    ):
        assert main([*command, "--work-dir", str(tmp_path / "work"), "--cfg-options", f"data_root={tmp_path}"]) == 2
        told = capsys.readouterr()
        assert told.out == "" and message in told.err and len(told.err.splitlines()) == 1


def test_seed_and_scaled_rate_enter_the_config_of_a_training(tmp_path, data_root, monkeypatch):
    seen = []

    def stop(cfg):
        seen.append(cfg)
        raise InputError("seen")

    monkeypatch.setattr(TrainingRunner, "from_cfg", stop)
    command = ["train", TWIN, "--work-dir", str(tmp_path / "work"), "--seed", "7", "--auto-scale-lr"]
    assert main([*command, "--cfg-options", "randomness.deterministic=True", f"data_root={data_root}"]) == 2
    assert seen[0].randomness == {"seed": 7, "deterministic": True}
    assert seen[0].auto_scale_lr.enable is True


def test_an_empty_work_folder_is_not_the_one_the_user_is_in(tmp_path, monkeypatch, toy):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(InputError, match="the place to write to is empty"):
        train(toy, cfg_options=["work_dir=''"])
    assert not list((tmp_path / "here").iterdir())


def test_a_folder_that_was_there_or_holds_more_stays(tmp_path):
    cfg = Config({"work_dir": str(tmp_path / "new")})
    for made in ("epoch_1.pth", "20260101_000000/vis_data/scalars.json"):
        file = tmp_path / "new" / made
        with pytest.raises(InputError, match="^refused$"), refusals(cfg):
            file.parent.mkdir(parents=True)
            file.write_text("")
            raise InputError("refused")
        assert file.exists()
        shutil.rmtree(tmp_path / "new")
    (tmp_path / "new").mkdir()
    with pytest.raises(InputError, match="^refused$"), refusals(cfg):
        raise InputError("refused")
    assert (tmp_path / "new").exists()


def test_mistakes_of_the_program_are_not_the_users(tmp_path):
    with pytest.raises(TypeError, match="ours"), refusals(Config({"work_dir": str(tmp_path / "new")})):
        raise TypeError("ours")


def test_two_trainings_in_one_folder(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(outputs, "_PATIENCE_S", 0.0)
    monkeypatch.setenv("LOCAL_RANK", "0")
    config = "a3d_densenet121-fpn_7s_phantom"
    for lock, command in ((".lock", ["train", config]), (".lock-test", ["test", config, "weights.pth"])):
        with folder_lock(tmp_path / "work", lock):
            assert main([*command, "--work-dir", str(tmp_path / "work")]) == 2
        assert capsys.readouterr().err == (
            f"mmpluld: error: {tmp_path / 'work'}: is being written by another process (pid {os.getpid()}); "
            "wait for it, or choose another place\n"
        )


class OneNumber(BaseModel):
    """Comes nearer to the mean of its samples, each step by the learning rate."""

    def __init__(self):
        super().__init__()
        self.number = torch.nn.Parameter(torch.zeros(()))

    def forward(self, inputs, mode="loss"):
        if mode == "predict":
            return [{"number": float(self.number)}] * len(inputs)
        return {"loss": (self.number - torch.tensor(inputs)).square().mean()}


class NumberMetric(BaseMetric):
    default_prefix = "toy"

    def process(self, data_batch, data_samples):
        self.results += [sample["number"] for sample in data_samples]

    def compute_metrics(self, results):
        return {"number": results[0]}


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """The file of a config that trains one number for an epoch."""
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setitem(MODELS.module_dict, "OneNumber", OneNumber)
    monkeypatch.setitem(METRICS.module_dict, "NumberMetric", NumberMetric)
    samples = [{"inputs": float(2**index)} for index in range(6)]
    path = tmp_path / "toy.py"
    path.write_text(f"""
default_scope = "mmpluld"
log_level = "WARNING"
experiment_name = "{tmp_path.name}"
model = dict(type="OneNumber")
_loader = dict(batch_size=2, dataset={samples}, sampler=dict(type="DefaultSampler", shuffle=True))
train_dataloader = _loader
test_dataloader = _loader
test_evaluator = dict(type="NumberMetric")
test_cfg = dict()
train_cfg = dict(by_epoch=True, max_epochs=1)
optim_wrapper = dict(optimizer=dict(type="SGD", lr=0.1))
default_hooks = dict(checkpoint=dict(type="SafeCheckpointHook", interval=1))
randomness = dict(seed=3)
""")
    return path


def number(checkpoint):
    return torch.load(checkpoint, weights_only=True)["state_dict"]["number"].item()


def test_the_config_beside_a_resumed_run_resumes_nothing_by_itself(tmp_path, toy):
    one, two, three = (tmp_path / name for name in ("one", "two", "three"))
    train(toy, one)
    train(toy, two, resume=str(one / "epoch_1.pth"), cfg_options=["train_cfg.max_epochs=2"])
    assert number(one / "epoch_1.pth") != number(two / "epoch_2.pth")
    assert run_test(two / "toy.py", one / "epoch_1.pth") == {"toy/number": number(one / "epoch_1.pth")}
    train(two / "toy.py", three)
    assert sorted(path.name for path in three.glob("*.pth")) == ["epoch_1.pth", "epoch_2.pth"]


def test_resuming_without_a_checkpoint_starts_from_the_weights_of_the_config(tmp_path, toy, capsys):
    weights = tmp_path / "seven.pth"
    torch.save({"state_dict": {"number": torch.tensor(7.0)}}, weights)
    options = [f"load_from={weights}", "optim_wrapper.optimizer.lr=0.0", "default_hooks.checkpoint.max_keep_ckpts=1"]
    train(toy, tmp_path / "one", resume="auto", cfg_options=options)
    assert f"no checkpoint to resume from, so training starts from {weights}" in capsys.readouterr().out
    assert number(tmp_path / "one" / "epoch_1.pth") == 7
    train(toy, tmp_path / "one", resume="auto", cfg_options=[*options, "train_cfg.max_epochs=2"])
    assert [path.name for path in (tmp_path / "one").glob("*.pth")] == ["epoch_2.pth"]


@pytest.mark.parametrize("other", ["4", "None"])
def test_a_resumed_run_keeps_its_seed(tmp_path, toy, capsys, other):
    train(toy, tmp_path / "whole", seed=5, cfg_options=["train_cfg.max_epochs=2"])
    train(toy, tmp_path / "broken", seed=5)
    capsys.readouterr()
    options = ["train_cfg.max_epochs=2", f"randomness.seed={other}"]
    train(toy, tmp_path / "broken", resume="auto", cfg_options=options)
    assert number(tmp_path / "broken" / "epoch_2.pth") == number(tmp_path / "whole" / "epoch_2.pth")
    assert ("its seed stays, 5 and not 4" in capsys.readouterr().out) is (other == "4")


def test_the_weights_named_are_tested_whatever_the_config_resumes(tmp_path, toy):
    train(toy, tmp_path / "one")
    torch.save({"state_dict": {"number": torch.tensor(7.0)}}, tmp_path / "seven.pth")
    tested = run_test(toy, tmp_path / "seven.pth", tmp_path / "one", cfg_options=["resume=True"])
    assert tested == {"toy/number": 7.0}


def test_a_scaled_rate_counts_the_batches_of_a_step(tmp_path):
    optimizer = {"type": "SGD", "lr": 0.8}
    changes = {"auto_scale_lr": {"enable": True, "base_batch_size": 8}}
    for batches, rate in ((1, 0.2), (4, 0.8)):
        wrapper = {"type": "OptimWrapper", "optimizer": optimizer, "accumulative_counts": batches}
        run = runner(tmp_path / str(batches), ["good"] * 4, 1, optim_wrapper=wrapper, **changes)
        run.train()
        assert run.optim_wrapper.param_groups[0]["lr"] == pytest.approx(rate)


def test_a_step_of_other_samples_than_the_rate_is_for_is_told(tmp_path, toy, capsys):
    told = "a step has 2 samples, and the learning rate is meant for 8; --auto-scale-lr scales it"
    for base, scaled, says in ((8, False, True), (8, True, False), (2, False, False)):
        options = [f"auto_scale_lr.base_batch_size={base}"]
        train(toy, tmp_path / f"{base}-{scaled}", auto_scale_lr=scaled, cfg_options=options)
        assert (told in capsys.readouterr().out) is says
