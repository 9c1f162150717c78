"""A table of the papers from its name to its report: what ``mmpluld reproduce`` calls."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmpluld.atomic import atomic_write_text
from mmpluld.errors import InputError, did_you_mean
from mmpluld.outputs import folder_lock
from mmpluld.reproduce.children import Resources, run_command
from mmpluld.reproduce.collect import Summary, collect
from mmpluld.reproduce.display import live_progress
from mmpluld.reproduce.gate import conditions, verdict
from mmpluld.reproduce.graph import Job, execute, fail_outdated
from mmpluld.reproduce.plan import detectors_behind, plan, with_needs
from mmpluld.reproduce.report import export, pair_line, terminal_table, write_report
from mmpluld.reproduce.runner import Run
from mmpluld.reproduce.start import StartOf, imagenet_starts, random_start, without_weights
from mmpluld.reproduce.tables import Row, Table, get_tables, with_recipe, without_oracles
from mmpluld.reproduce.trunks import ensure_trunks
from mmpluld.reproduce.twin_data import describe_phantom, ensure_phantom
from mmpluld.reproduce.twin_datasets import describe_lens_phantoms, ensure_lens_phantoms
from mmpluld.typing import StrPath

__all__ = ["Outcome", "Request", "chosen_rows", "reproduce"]


@dataclass(frozen=True)
class Request:
    """What is to be reproduced, and with what.

    Attributes:
        table: A name of :data:`~mmpluld.reproduce.tables.TABLES` or :data:`~mmpluld.reproduce.tables.GROUPS`.
        work_dir: Folder of runs and reports; finished runs in it are not repeated.
        seeds: Trainings per row, at least 1; by default the table's.
        twins: Take the miniatures on the phantom, which is made if absent.
        recipe: Train every row by this recipe; by default by the configs' values.
        rows: Keys of the rows to train; by default all.
        data_root: The dataset; by default the config's, or for twins the phantom in ``work_dir``.
        jobs: Runs at once, at least 1; by default one per core, or 1 with GPUs.
        gpus: GPUs of each run; 0 leaves the choice of the device to the framework.
        export: Folder to which report and figures of the runs are copied, too.
        cfg_options: Changes to the config of every detector, as "key.sub=value" strings.
        pretrained: ``NAME=FILE_OR_URL`` of ImageNet weights, see :func:`~mmpluld.reproduce.start.imagenet_starts`, or
            ``none`` alone: random weights, also for twins, which start from trunks of their own.

    Raises:
        InputError: A number is too small.
    """

    table: str
    work_dir: StrPath = "work_dirs/reproduce"
    seeds: int | None = None
    twins: bool = False
    recipe: str | None = None
    rows: Sequence[str] | None = None
    data_root: StrPath | None = None
    jobs: int | None = None
    gpus: int = 0
    export: StrPath | None = None
    cfg_options: Sequence[str] = ()
    pretrained: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Refuse numbers that would be taken for none."""
        for name, value, least in (("seeds", self.seeds, 1), ("jobs", self.jobs, 1), ("gpus", self.gpus, 0)):
            if value is not None and value < least:
                raise InputError(f"{name} is {value}, but must be at least {least}; give more, or leave it out")


@dataclass(frozen=True)
class Outcome:
    """What became of a request.

    Attributes:
        summaries: What the finished runs say, of each table in its order.
        failed: Name, seed and error of each run that failed.
    """

    summaries: tuple[Summary, ...]
    failed: tuple[str, ...]


def reproduce(request: Request) -> Outcome:
    """Train and test what is missing of a table, then write its report; what was cut off goes on in a second call.

    Runs are child processes, which end with this one. Failures and results are printed, and how far the runs are is
    shown where there is a terminal.

    Raises:
        InputError: There is no such table, row, recipe or dataset, what is asked for does not go together, a folder
            holds other runs, or there are fewer GPUs.
        BusyError: Another process works in ``work_dir``.
        RunFailed: The phantom or a trunk, which all runs need, could not be made.
    """
    tables = get_tables(request.table)
    if not request.twins:
        tables = tuple(map(without_oracles, tables))
    _check(tables, request)
    if request.recipe is not None:
        tables = tuple(_by_recipe(table, request.recipe) for table in tables)
    resources = Resources.of_machine(request.jobs, request.gpus)
    _check_gpus(resources)
    with folder_lock(request.work_dir):
        starts = _imagenet_starts(tables, request)
        parts = [
            _Part(table, chosen_rows(table, request.rows), _data_root(table, request), resources, request, starts)
            for table in tables
        ]
        if len(parts) > 1:  # so that what is refused is refused before the training of the first
            for part in parts:
                part.planned()
        outcomes = [part.reproduced() for part in parts]
        found = Outcome(
            tuple(item for part in outcomes for item in part.summaries),
            tuple(item for part in outcomes for item in part.failed),
        )
        if request.table == "gate":
            _conclude(found.summaries, request)
    return found


def chosen_rows(table: Table, keys: Sequence[str] | None) -> list[Row]:
    """The rows to train, with those whose weights they test.

    Args:
        table: Of which table; keys that it has not are left out.
        keys: Which rows, None for all.
    """
    if keys is None:
        return list(table.rows)
    chosen = [row for row in table.rows if row.key in keys]
    trained = {row.key for row in chosen} | {row.weights_of for row in chosen}
    return [row for row in table.rows if row.key in trained]


@dataclass(frozen=True)
class _Part:
    """One table of a request: the rows to train, and what they need."""

    table: Table
    rows: list[Row]
    data_root: Path | None
    resources: Resources
    request: Request
    starts: StartOf | None

    def planned(self) -> tuple[list[Run], list[Job]]:
        """All runs of the table, so that the report has them; and what is to be done.

        Raises:
            InputError: A folder cannot be used, a batch cannot be shared among the GPUs, or as of :func:`plan`.
        """
        runs = plan(
            self.table.rows,
            self.request.seeds or self.table.seeds,
            Path(self.request.work_dir),
            self.table.protocol,
            twins=self.request.twins,
            split=self.table.split,
            data_root=self.data_root,
            cfg_options=self.request.cfg_options,
            start_of=self.starts or _trunks(self.table, self.rows, self.resources, self.request),
        )
        jobs = with_needs([item for item in runs if item.row in self.rows], unfinished=True)
        for job in jobs:
            if isinstance(job, Run):
                job.batch_shares(self.resources.gpus)
        return runs, jobs

    def reproduced(self) -> Outcome:
        """Train, test and report the table."""
        runs, jobs = self.planned()
        with live_progress([item for item in runs if item.row in self.rows], self.resources.jobs) as refresh:
            execute(jobs, self.resources, refresh)
        every = with_needs(runs)
        fail_outdated(every)
        failed = tuple(f"{item.name}, seed {item.seed}: {item.error}" for item in every if item.state == "failed")
        for line in failed:
            print(f"failed: {line}")
        summary = collect(self.table, runs)
        _report(summary, runs, self.request, _description(self.table, self.data_root))
        return Outcome((summary,), failed)


def _trunks(table: Table, rows: list[Row], resources: Resources, request: Request) -> StartOf:
    """What the backbones of twins start from; trains the trunks that are lacking."""
    from mmpluld.engine.config import load_config

    # All rows of the table are planned, but only those that are trained, or have been, need a trunk.
    begun = [row for row in table.rows if (Path(request.work_dir) / row.run_name(request.twins, table.split)).exists()]
    needed = dict.fromkeys([*rows, *begun, *detectors_behind([*rows, *begun])])
    configs = [
        (row.key, load_config(row.config_name(request.twins), [*row.options, *request.cfg_options])) for row in needed
    ]
    return ensure_trunks(configs, Path(request.work_dir), resources, run_command)


def _imagenet_starts(tables: Sequence[Table], request: Request) -> StartOf | None:
    """What backbones start from, random ones or those of the papers' size; None: from trunks."""
    from mmpluld.engine.config import load_config

    if list(request.pretrained) == ["none"]:
        return random_start
    if request.twins:
        return None
    rows = dict.fromkeys(row for table in tables for row in table.rows)
    configs = [
        (row.key, load_config(row.config_name(False), [*row.options, *request.cfg_options]))
        for row in dict.fromkeys([*rows, *detectors_behind(rows)])
    ]
    classifiers = dict.fromkeys(row.fpr.config_name(False) for row in rows if row.fpr)
    configs += [(name, load_config(name)) for name in classifiers]
    starts = imagenet_starts(request.pretrained, configs)
    if warning := without_weights(starts, configs):
        print(f"warning: {warning}", file=sys.stderr)
    return starts


def _data_root(table: Table, request: Request) -> Path | None:
    """Folder of the data, of twins with the phantom in it; None for the configs'."""
    root = Path(request.data_root) if request.data_root else None
    if request.twins and root is None:
        alone = table.phantom == "deeplesion"
        root = Path(request.work_dir) / ("phantom" if alone else "phantom-lens")
        (ensure_phantom if alone else ensure_lens_phantoms)(root, run_command)
    return root / "deeplesion" if root and table.phantom == "lens-deeplesion" else root


def _description(table: Table, data_root: Path | None) -> str | None:
    """What the phantom holds; None if there is none."""
    if data_root is None:
        return None
    if table.phantom != "lens":
        return describe_phantom(data_root, table.split)
    return describe_lens_phantoms(data_root, table.split, held_out=table.protocol == "centre-3d")


def _report(summary: Summary, runs: list[Run], request: Request, data: str | None) -> None:
    """Write the report, print its table and say where it lies."""
    from rich.console import Console

    name = summary.table.name
    stem = Path(request.work_dir) / (f"{name}-twins" if request.twins else name)
    files = write_report(summary, stem, _command(request, summary), data, request.twins)
    # Piped output gets the whole width: a table cut at 80 columns is of no use in a file.
    console = Console() if Console().is_terminal else Console(width=200)
    console.print(terminal_table(summary))
    for pair in summary.pairs:
        print(pair_line(pair))
    print(f"report: {files[0]}")
    if request.export:
        print(f"exported: {export(files, runs, Path(request.export))}")


def _by_recipe(table: Table, recipe: str) -> Table:
    from mmpluld.engine.recipes import recipe_file

    for row in table.rows:
        recipe_file(recipe, row.schedule)
    return with_recipe(table, recipe)


def _conclude(summaries: Sequence[Summary], request: Request) -> None:
    """Write the verdict on the gate and print it."""
    found = conditions(summaries)
    text = verdict(found)
    path = Path(request.work_dir) / f"{request.table}-twins.md"
    atomic_write_text(path, text)
    if request.export:
        atomic_write_text(Path(request.export) / path.name, text)
    for item in found:
        print(f"{item.state}: {item.what}: {item.found} (asked: {item.asked})")
    print(f"verdict: {path}")


def _check(tables: Sequence[Table], request: Request) -> None:
    """Refuse what the tables cannot do."""
    if not request.twins and any(table.twins_only for table in tables):
        raise InputError(
            f"{request.table}: is for miniatures alone: only phantoms have complete labels, and at the papers' size "
            "rates and epochs are the papers'; add --twins"
        )
    if request.twins and list(request.pretrained) not in ([], ["none"]):
        raise InputError(
            f"--pretrained {request.pretrained[0]}: twins start from trunks of their own; leave it out, or say none"
        )
    if any(item.partition("=")[0].strip() == "data_root" for item in request.cfg_options):
        raise InputError(
            "--cfg-options data_root: would not reach the steps between trainings; give the folder by --data-root"
        )
    keys = [row.key for table in tables for row in table.rows]
    for name in request.rows or ():
        if name not in keys:
            hint = did_you_mean(name, keys, f"it has {', '.join(keys)}")
            raise InputError(f"--rows {name}: {request.table} has no such row{hint}")


def _check_gpus(resources: Resources) -> None:
    if not resources.gpus:
        return
    import torch

    needed, found = resources.jobs * resources.gpus, torch.cuda.device_count()
    if needed > found:
        raise InputError(
            f"--jobs {resources.jobs} --gpus {resources.gpus}: needs {needed} GPUs, {found} found; ask for fewer"
        )


def _command(request: Request, summary: Summary) -> str:
    """The command for the rows that are wanted or were run, without what changes no figure: places, jobs, GPUs."""
    parts = ["mmpluld", "reproduce", request.table, "--seeds", str(request.seeds or summary.table.seeds)]
    parts += ["--twins"] if request.twins else []
    wanted = chosen_rows(summary.table, request.rows)
    rows = [item.row.key for item in summary.rows if item.seeds or item.row in wanted]
    parts += ["--rows", ",".join(rows)] if len(rows) < len(summary.rows) else []
    parts += ["--recipe", request.recipe] if request.recipe else []
    parts += ["--data-root", str(request.data_root)] if request.data_root else []
    given = [item.partition("=")[::2] for item in request.pretrained]
    files = [f"{name}={Path(source).name}" if source else name for name, source in given]
    parts += ["--pretrained", *files] if files else []
    parts += ["--cfg-options", *request.cfg_options] if request.cfg_options else []
    return shlex.join(parts)
