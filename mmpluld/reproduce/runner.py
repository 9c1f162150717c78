"""Trainings and tests of a table as child processes that survive interruption.

One run is one row with one seed, in ``WORK_DIR/<name of its runs>/seed<k>/``: ``run.json`` says what it is,
``result.json`` appears when it is finished. Children are our own ``mmpluld train`` and ``mmpluld test``, because a
runner leaves global state behind.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Literal

from mmpluld.atomic import atomic_write_text
from mmpluld.compat.follow import following
from mmpluld.compat.system import usable_cores
from mmpluld.errors import InputError, MMPluldError
from mmpluld.reproduce.start import StartOf, random_start
from mmpluld.reproduce.tables import Row
from mmpluld.structures.text_files import read_object

if TYPE_CHECKING:
    from mmengine.config import Config

__all__ = [
    "Resources",
    "Run",
    "RunFailed",
    "config_digest",
    "execute",
    "last_weights",
    "plan",
    "run_command",
    "run_commands",
    "save_record",
]

_RECORD = "the record of a run as it was written, or remove its folder to run it again"
_GRACE_S = 10.0  # what a child may take to end before it is killed


class RunFailed(MMPluldError):
    """A child process failed; the message names its log."""


@dataclass
class Run:
    """One row with one seed, and how far it is.

    Attributes:
        row, seed: What is trained.
        config: Name or path of the config.
        folder: Where everything of the run lies.
        truth: Ground truth of the test.
        protocol: Name of the evaluation's rules.
        identity: What the result depends on; a folder of another identity is refused.
        options: Changes to the config, as ``--cfg-options`` takes them.
        trainer: The run whose weights this one tests; None if it trains its own.
        state: How far it is.
        error: Why it failed, one line.
    """

    row: Row
    seed: int
    config: str
    folder: Path
    truth: Path
    protocol: str
    identity: dict[str, Any]
    options: list[str] = field(default_factory=list)
    trainer: Run | None = None
    state: Literal["waiting", "training", "testing", "done", "failed"] = "waiting"
    error: str = ""

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
        return read_object(path, _RECORD, ())


@dataclass(frozen=True)
class Resources:
    """What the runs may use.

    Attributes:
        jobs: Runs at the same time.
        threads: CPU threads of each.
        gpus: GPUs of each; 0 leaves the choice of the device to the framework.
    """

    jobs: int
    threads: int
    gpus: int = 0

    @classmethod
    def of_machine(cls, jobs: int | None, gpus: int) -> Resources:
        """Share the machine's cores among jobs; by default one job per core, or one in all with GPUs."""
        cores = usable_cores()
        jobs = jobs or (1 if gpus else cores)
        return cls(jobs, max(1, cores // jobs), gpus)

    def environment(self, slot: int) -> dict[str, str]:
        """Environment of the children in a slot, 0 to ``jobs - 1``."""
        changes = {"OMP_NUM_THREADS": str(self.threads), "MKL_NUM_THREADS": str(self.threads)}
        if self.gpus:
            visible = os.environ.get("CUDA_VISIBLE_DEVICES")
            devices = visible.split(",") if visible else list(map(str, range(self.jobs * self.gpus)))
            changes["CUDA_VISIBLE_DEVICES"] = ",".join(devices[slot * self.gpus : (slot + 1) * self.gpus])
        return {**os.environ, **changes}


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
        _refuse_other(run)
        if run.result() is not None:
            run.state = "done"
    return sorted(runs, key=lambda run: run.seed)


def _link(runs: Sequence[Run]) -> None:
    """Tell runs without a training of their own whose weights they test; the result depends on that config too."""
    known = {(run.row.key, run.seed): run for run in runs}
    for run in runs:
        if run.row.weights_of:
            run.trainer = known[run.row.weights_of, run.seed]
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


def config_digest(cfg: Config) -> str:
    """SHA-256 of all settings of a config."""
    return hashlib.sha256(json.dumps(cfg.to_dict(), sort_keys=True, default=str).encode()).hexdigest()


def last_weights(folder: Path) -> Path:
    """Checkpoint of the finished training in a folder."""
    # The file beside the weights holds the path as it was when they were written; the folder may have moved.
    return folder / Path((folder / "last_checkpoint").read_text().strip()).name


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


def _refuse_other(run: Run) -> None:
    path = run.folder / "run.json"
    if not path.is_file():
        return
    known = read_object(path, _RECORD, ("identity",))["identity"]
    changed = [name for name, value in run.identity.items() if known.get(name) != value]
    if changed:
        what = {
            "config_sha256": "another version of the config",
            "weights_config_sha256": "another version of the config of its weights",
            "data_sha256": "other data",
            "start_sha256": "another start of its backbone",
        }
        raise InputError(
            f"{run.folder}: holds a run with {' and '.join(what.get(name, f'another {name}') for name in changed)}; "
            "remove the folder or choose another --work-dir"
        )


class _Children:
    """Child processes of this process, to be stopped together."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self.stopped = False

    def call(self, command: Sequence[str], log: Path, environment: dict[str, str]) -> None:
        """Run a command with its output appended to ``log``.

        Raises:
            RunFailed: If it fails.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as stream:
            with self._lock:
                if self.stopped:
                    raise RunFailed("interrupted")
                # Children get a session of their own: an interrupt reaches them through `stop`, once.
                child = subprocess.Popen(
                    following(command), stdout=stream, stderr=stream, env=environment, start_new_session=True
                )
                self._running.add(child)
            try:
                status = child.wait()
            finally:
                with self._lock:
                    self._running.discard(child)
        if self.stopped:
            raise RunFailed("interrupted")
        if status != 0:
            raise RunFailed(f"status {status}, see {log}: {_last_line(log)}")

    def stop(self) -> None:
        """End all children and refuse new ones."""
        with self._lock:
            self.stopped = True
            running = list(self._running)
        for number, deadline in ((signal.SIGTERM, time.monotonic() + _GRACE_S), (signal.SIGKILL, None)):
            for child in running:
                if child.poll() is None:
                    os.killpg(child.pid, number)
            while deadline and time.monotonic() < deadline and any(child.poll() is None for child in running):
                time.sleep(0.05)


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "(empty)"


def run_command(arguments: Sequence[str], log: Path) -> None:
    """Run one ``mmpluld`` command with all cores and its output in ``log``.

    Raises:
        RunFailed: If it fails.
    """
    children = _Children()
    try:
        children.call([sys.executable, "-m", "mmpluld", *arguments], log, dict(os.environ))
    except BaseException:
        children.stop()
        raise


def _slots(resources: Resources) -> SimpleQueue[int]:
    """Numbers of the jobs at once, each with GPUs of its own; who takes one puts it back."""
    slots: SimpleQueue[int] = SimpleQueue()
    for slot in range(resources.jobs):
        slots.put(slot)
    return slots


def run_commands(commands: Sequence[tuple[Sequence[str], Path]], resources: Resources) -> None:
    """Run several ``mmpluld`` commands, each with its log, as many at once as the resources allow.

    Raises:
        RunFailed: If one fails; the others are stopped.
    """
    children, slots = _Children(), _slots(resources)

    def perform(arguments: Sequence[str], log: Path) -> None:
        slot = slots.get()
        try:
            children.call([sys.executable, "-m", "mmpluld", *arguments], log, resources.environment(slot))
        finally:
            slots.put(slot)

    pool = ThreadPoolExecutor(resources.jobs)
    try:
        for future in as_completed([pool.submit(perform, *command) for command in commands]):
            future.result()
    finally:
        children.stop()
        pool.shutdown(cancel_futures=True)


def execute(runs: Sequence[Run], resources: Resources, on_tick: Callable[[], None] = lambda: None) -> None:
    """Do what is not done; a failing run leaves its error and the others go on.

    An exception in this thread, such as an interrupt, stops the children; the next call resumes each training from its
    last checkpoint.

    Args:
        runs: As from :func:`plan`; ``state`` and ``error`` are kept up to date.
        resources: How much may run at once.
        on_tick: Called about twice a second, in this thread.
    """
    children, slots = _Children(), _slots(resources)
    pool = ThreadPoolExecutor(resources.jobs)
    waiting: set[Future[None]] = set()
    try:
        for training in (True, False):  # weights first, then those that only test them
            mine = [run for run in runs if run.state != "done" and (run.trainer is None) == training]
            waiting = {pool.submit(_perform, run, resources, slots, children) for run in mine}
            while waiting:
                finished, waiting = wait(waiting, timeout=0.5)
                for future in finished:
                    future.result()  # an error that is not the run's is ours
                on_tick()
    finally:
        children.stop()
        pool.shutdown(cancel_futures=True)


def _perform(run: Run, resources: Resources, slots: SimpleQueue[int], children: _Children) -> None:
    """Train, test and evaluate one run in a free slot."""
    slot = slots.get()
    try:
        environment = resources.environment(slot)
        record = _open_record(run)
        if run.trainer is not None:
            if run.trainer.state != "done":
                raise RunFailed(f"its weights are those of {run.trainer.row.key}, which {run.trainer.state}")
        elif not record["trained"]:
            run.state = "training"
            with _timed(run, record, "train"):
                children.call(_command(run, resources.gpus, "train"), run.log, environment)
            record["trained"] = True
            save_record(run.folder / "run.json", record)
        run.state = "testing"
        with _timed(run, record, "test"):
            if run.row.calibrated:
                children.call(_command(run, min(resources.gpus, 1), "calibrate"), run.log, environment)
            children.call(_command(run, resources.gpus, "test"), run.log, environment)
        save_record(run.folder / "result.json", _evaluate(run, record))
        run.state = "done"
    except MMPluldError as error:
        run.state, run.error = "failed", str(error)
    finally:
        slots.put(slot)


def _open_record(run: Run) -> dict[str, Any]:
    """What ``run.json`` knows, after writing it if it is new."""
    path = run.folder / "run.json"
    if path.is_file():
        record = read_object(path, _RECORD, ("identity", "trained", "seconds"))
    else:
        record = {"identity": run.identity, "trained": False, "seconds": {"train": 0.0, "test": 0.0}}
        save_record(path, record)
    return record


@contextmanager
def _timed(run: Run, record: dict[str, Any], stage: str) -> Iterator[None]:
    """Add the seconds of a stage to the record, also when it is interrupted."""
    begin = time.monotonic()
    try:
        yield
    finally:
        record["seconds"][stage] = round(record["seconds"][stage] + time.monotonic() - begin, 1)
        save_record(run.folder / "run.json", record)


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


def _evaluate(run: Run, record: dict[str, Any]) -> dict[str, Any]:
    from mmpluld.evaluation import evaluate_files
    from mmpluld.version import __version__

    found = evaluate_files(run.detections, run.truth, run.protocol)
    kept = ("protocol", "levels", "sensitivity", "average", "num_images", "num_patients", "num_lesions")
    return {
        **run.identity,
        "version": __version__,
        **{name: found[name] for name in kept},
        "seconds": record["seconds"],
    }


def save_record(path: Path, data: dict[str, Any]) -> None:
    """Write what is known of a run, whole or not at all."""
    atomic_write_text(path, json.dumps(data, indent=1) + "\n")
