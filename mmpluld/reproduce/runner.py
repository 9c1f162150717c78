"""Trainings and tests of a table as child processes that survive interruption.

One run is one row with one seed, in ``WORK_DIR/<name of its runs>/seed<k>/``: ``run.json`` says what it is,
``result.json`` appears when it is finished. Children are our own ``mmpluld train`` and ``mmpluld test``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mmpluld.reproduce.graph import RECORD_HINT, Caller, Job, batch_shares, last_weights, launched, save_record
from mmpluld.reproduce.rows import Row
from mmpluld.structures.text_files import read_object

__all__ = ["Run"]


@dataclass(eq=False, kw_only=True)
class Run(Job):
    """One row with one seed.

    Attributes:
        row: What is trained.
        config: Name or path of the config.
        truth: Ground truth of the test.
        protocol: Name of the evaluation's rules.
        options: Changes to the config, as ``--cfg-options`` takes them.
        late_options: Gives further changes to the config, for the test alone; asked when all it needs is done.
        trainer: The run whose weights this one tests; None if it trains its own.
        tested: False for a training alone.
    """

    row: Row
    config: str
    truth: Path
    protocol: str
    options: list[str] = field(default_factory=list)
    late_options: Callable[[], Sequence[str]] = tuple
    trainer: Run | None = None
    tested: bool = True

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
        return last_weights(self.folder) if self.trainer is None else self.trainer.weights

    @property
    def product(self) -> Path:
        """The weights."""
        return self.weights

    def batch_shares(self, gpus: int) -> list[str]:
        """Changes to the config that share out its batch among GPUs; an InputError says that it cannot be."""
        from mmpluld.engine.config import load_config

        return batch_shares(load_config(self.config, self.options), gpus) if gpus > 1 else []

    def result(self) -> dict[str, Any] | None:
        """Result of a finished run, or None."""
        path = self.folder / "result.json"
        if not path.is_file() or not self.detections.is_file():
            return None
        return read_object(path, RECORD_HINT, ())

    def is_done(self) -> bool:
        """Whether it is tested, or trained if that is all."""
        if not self.tested:
            return (self.folder / self.record_name).is_file() and bool(self.record.get("trained"))
        return self.result() is not None

    def perform(self, caller: Caller) -> None:
        """Train, test and evaluate."""
        if self.trainer is None and not self.record.get("trained", False):
            self.state = "training"
            with self.timed("train"):
                caller.call(_command(self, caller.gpus, "train"), self.log)
            self.record["trained"] = True
            self.note_made()
            self.save()
        if not self.tested:
            return
        self.state = "testing"
        with self.timed("test"):
            if self.row.calibrated:
                caller.call(_command(self, min(caller.gpus, 1), "calibrate"), self.log)
            caller.call(_command(self, caller.gpus, "test"), self.log)
        save_record(self.folder / "result.json", _evaluate(self))


def _command(run: Run, gpus: int, stage: Literal["train", "calibrate", "test"]) -> list[str]:
    """The ``mmpluld`` command of a stage."""
    command = launched(gpus, [stage, run.config])
    calibrated = run.folder / "calibrated.pth"
    if stage == "calibrate":
        command += [str(run.weights), str(calibrated), "--overwrite"]
        command += ["--device", "cuda"] if gpus else []
        return [*command, "--cfg-options", *run.options]
    if stage == "test":
        weights = calibrated if run.row.calibrated else run.weights
        command += [str(weights), "--out", str(run.detections)]
    else:
        command += ["--seed", str(run.seed), "--resume"]
    command += ["--work-dir", str(run.folder)]
    command += ["--launcher", "pytorch"] if gpus > 1 else []
    late = run.late_options() if stage == "test" else run.batch_shares(gpus)
    return [*command, "--cfg-options", *run.options, *late]


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
