"""Trainings and tests of a table as child processes that survive interruption.

One run is one row with one seed, in ``WORK_DIR/<name of its runs>/seed<k>/``: ``run.json`` says what it is,
``result.json`` appears when it is finished. Children are our own ``mmpluld train`` and ``mmpluld test``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

from mmpluld.errors import InputError
from mmpluld.reproduce.graph import RECORD_HINT, Caller, Job, config_digest, last_weights, save_record
from mmpluld.reproduce.start import StartOf, random_start
from mmpluld.reproduce.tables import Row
from mmpluld.structures.text_files import read_object

if TYPE_CHECKING:
    from mmengine.config import Config

__all__ = ["Run", "plan"]


@dataclass(eq=False, kw_only=True)
class Run(Job):
    """One row with one seed.

    Attributes:
        row: What is trained.
        config: Name or path of the config.
        truth: Ground truth of the test.
        protocol: Name of the evaluation's rules.
        options: Changes to the config, as ``--cfg-options`` takes them.
        trainer: The run whose weights this one tests; None if it trains its own.
    """

    row: Row
    config: str
    truth: Path
    protocol: str
    options: list[str] = field(default_factory=list)
    trainer: Run | None = None

    @property
    def name(self) -> str:
        """Key of its row."""
        return self.row.key

    @property
    def detections(self) -> Path:
        """Detection record of the test."""
        return self.folder / "detections.json"

    @property
    def log(self) -> Path:
        """Output of the child that runs, ran last, or runs next."""
        return self.folder / ("test.log" if self.trainer or self.state == "testing" else "train.log")

    @property
    def weights(self) -> Path:
        """Checkpoint of the finished training."""
        return last_weights(self.folder)

    def result(self) -> dict[str, Any] | None:
        """Result of a finished run, or None."""
        path = self.folder / "result.json"
        if not path.is_file() or not self.detections.is_file():
            return None
        return read_object(path, RECORD_HINT, ())

    def is_done(self) -> bool:
        """Whether it is tested."""
        return self.result() is not None

    def perform(self, caller: Caller) -> None:
        """Train, test and evaluate."""
        if self.trainer is None and not self.record.get("trained", False):
            self.state = "training"
            with self.timed("train"):
                caller.call(_command(self, caller.gpus, "train"), self.log)
            self.record["trained"] = True
            self.save()
        self.state = "testing"
        with self.timed("test"):
            if self.row.calibrated:
                caller.call(_command(self, min(caller.gpus, 1), "calibrate"), self.log)
            caller.call(_command(self, caller.gpus, "test"), self.log)
        save_record(self.folder / "result.json", _evaluate(self))


def plan(
    rows: Sequence[Row],
    seeds: int,
    work_dir: Path,
    protocol: str,
    *,
    twins: bool = False,
    split: str = "test",
    data_root: Path | None = None,
    cfg_options: Sequence[str] = (),
    start_of: StartOf = random_start,
) -> list[Run]:
    """All runs of some rows, the first seed of every row first.

    Args:
        rows: What to train.
        seeds: How many seeds, from 0.
        work_dir: Folder of all runs, shared by tables.
        protocol: Name of the evaluation's rules.
        twins: Take the configs of phantom size.
        split: ``val`` tests on the validation patients: on the config's truth of the test with that word in its name.
        data_root: Replaces the configs' dataset folder.
        cfg_options: Further changes to every config; they come after the row's own.
        start_of: What the backbones of a config start from.

    Raises:
        InputError: If a config or its annotation files are missing, or a run's folder holds a run of another config,
            data or options.
    """
    runs = []
    for row in rows:
        config, identity, truth, options = _describe(row, twins, split, data_root, cfg_options, start_of)
        for seed in range(seeds):
            run = Run(
                row=row,
                seed=seed,
                config=config,
                folder=work_dir / row.run_name(twins, split) / f"seed{seed}",
                truth=truth,
                protocol=protocol,
                identity={**identity, "seed": seed},
                options=options,
            )
            runs.append(run)
    _link(runs)
    for run in runs:
        run.look()
    return sorted(runs, key=lambda run: run.seed)


def _link(runs: Sequence[Run]) -> None:
    """Tell runs without a training of their own whose weights they test; the result depends on that config too."""
    known = {(run.row.key, run.seed): run for run in runs}
    for run in runs:
        if run.row.weights_of:
            run.trainer = known[run.row.weights_of, run.seed]
            run.needs.append(run.trainer)
            run.identity["weights_config_sha256"] = run.trainer.identity["config_sha256"]


def _describe(
    row: Row, twins: bool, split: str, data_root: Path | None, cfg_options: Sequence[str], start_of: StartOf
) -> tuple[str, dict[str, Any], Path, list[str]]:
    """Config, identity, truth file and options of a row."""
    from mmpluld.engine.config import load_config
    from mmpluld.engine.option_values import written
    from mmpluld.reproduce.twin_data import digest

    name = row.config_name(twins)
    changes = [*row.options, *cfg_options]
    cfg = load_config(name, changes)
    if split != "test":
        changes.append(f"test_dataloader.dataset.ann_file={written(_of_split(cfg, name, split))}")
        cfg = load_config(name, changes)
    start = start_of(cfg)
    # Where data and weights lie and how many checkpoints are kept changes no result: no part of the identity.
    files = _annotation_files(cfg, data_root, row.calibrated)
    identity = {
        "config": name,
        "config_sha256": config_digest(cfg),
        "data_sha256": digest(files),
        "cfg_options": changes,
        "start_sha256": start.sha256,
    }
    options = [*changes, *start.options, "default_hooks.checkpoint.max_keep_ckpts=1"]
    truth = files[0].absolute().parents[1] / "truth" / "train_key_slices.json"
    if twins and truth.is_file():  # measures, and changes no result either
        options += ["default_hooks.negatives.type=NegativesHook"]
        options += [f"default_hooks.negatives.truth={written(str(truth))}"]
    options += [f"data_root={written(str(data_root))}"] if data_root else []
    return name, identity, files[-1], options


def _of_split(cfg: Config, name: str, split: str) -> str:
    """The annotation file of a config's test, of other patients."""
    path = PurePosixPath(cfg.test_dataloader.dataset.ann_file)
    if "test" not in path.name:
        raise InputError(
            f"{name}: it tests on {path}, of which no file of the {split} patients is known; give the test's file a "
            "name with 'test' in it"
        )
    return str(path.with_name(path.name.replace("test", split)))


def _annotation_files(cfg: Config, data_root: Path | None, calibrated: bool) -> list[Path]:
    """Those of the training, of every dataset that is put together there, of a calibration, and last of the test."""
    from mmpluld.datasets.named_concat import dataset_settings

    parts = [*dataset_settings(cfg.train_dataloader.dataset), *([cfg.val_dataloader.dataset] if calibrated else ())]
    parts.append(cfg.test_dataloader.dataset)
    return [Path(data_root or part["data_root"]) / part["ann_file"] for part in parts]


def _command(run: Run, gpus: int, stage: Literal["train", "calibrate", "test"]) -> list[str]:
    """The ``mmpluld`` command of a stage."""
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={gpus}"] if gpus > 1 else []
    command = [sys.executable, *launch, "-m", "mmpluld", stage, run.config]
    calibrated = run.folder / "calibrated.pth"
    if stage == "calibrate":
        command += [str((run.trainer or run).weights), str(calibrated), "--overwrite"]
        command += ["--device", "cuda"] if gpus else []
        return [*command, "--cfg-options", *run.options]
    if stage == "test":
        weights = calibrated if run.row.calibrated else (run.trainer or run).weights
        command += [str(weights), "--out", str(run.detections)]
    else:
        command += ["--seed", str(run.seed), "--resume"]
    command += ["--work-dir", str(run.folder)]
    command += ["--launcher", "pytorch"] if gpus > 1 else []
    return [*command, "--cfg-options", *run.options]


def _evaluate(run: Run) -> dict[str, Any]:
    from mmpluld.evaluation import evaluate_files
    from mmpluld.version import __version__

    found = evaluate_files(run.detections, run.truth, run.protocol)
    kept = ("protocol", "levels", "sensitivity", "average", "num_images", "num_patients", "num_lesions")
    return {
        **run.identity,
        "version": __version__,
        **{name: found[name] for name in kept},
        "seconds": {"train": 0.0, "test": 0.0, **run.record["seconds"]},
    }
