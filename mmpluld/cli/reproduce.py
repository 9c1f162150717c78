"""``mmpluld reproduce``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mmpluld.cli.numbers import whole
from mmpluld.cli.outputs import OutputFolder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mmpluld.reproduce.children import Resources
    from mmpluld.reproduce.collect import Summary
    from mmpluld.reproduce.runner import Run
    from mmpluld.reproduce.start import StartOf
    from mmpluld.reproduce.tables import Row, Table

EXAMPLE = "mmpluld reproduce table1 --twins --seeds 3"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from mmpluld.reproduce.tables import GROUPS, TABLES

    parser.add_argument("table", help=f"one of {', '.join([*TABLES, *GROUPS])}")
    parser.add_argument("--seeds", type=whole(1), metavar="N", help="trainings per row (default: 3, of the gate 5)")
    parser.add_argument("--twins", action="store_true", help="miniatures on the phantom, which is made if absent")
    parser.add_argument(
        "--recipe", metavar="NAME", help="train every row by this recipe, such as paper (default: the configs' values)"
    )
    parser.add_argument("--rows", metavar="A,B", help="train these rows only (default: all)")
    parser.add_argument(
        "--work-dir",
        action=OutputFolder,
        default="work_dirs/reproduce",
        metavar="DIR",
        help="folder of runs and reports; finished runs are not repeated (default: work_dirs/reproduce)",
    )
    parser.add_argument("--data-root", metavar="DIR", help="dataset (default: the config's, or DIR/phantom for twins)")
    parser.add_argument("--jobs", type=whole(1), metavar="J", help="runs at once (default: one per core, 1 with GPUs)")
    parser.add_argument("--gpus", type=whole(1), default=0, metavar="G", help="GPUs of each run")
    parser.add_argument(
        "--export", action=OutputFolder, metavar="DIR", help="copy the report and each run's figures to DIR/TABLE"
    )
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="changes to the config of every detector",
    )
    parser.add_argument(
        "--pretrained",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=FILE_OR_URL",
        help="ImageNet weights that backbones start from, densenet121=... resnet50=... resnet18=...; none: random "
        "weights, also for twins, which start from trunks of their own",
    )


def run(options: argparse.Namespace) -> int:
    """Train what is missing, then report; 1 if a run failed."""
    from mmpluld.outputs import folder_lock
    from mmpluld.reproduce.children import Resources
    from mmpluld.reproduce.tables import get_tables, without_oracles

    tables = get_tables(options.table)
    if not options.twins:
        tables = tuple(map(without_oracles, tables))
    _check(tables, options)
    if options.recipe is not None:
        tables = tuple(_by_recipe(table, options.recipe) for table in tables)
    resources = Resources.of_machine(options.jobs, options.gpus)
    _check_gpus(resources)
    with folder_lock(options.work_dir):
        results = [_reproduce(table, _chosen(table, options.rows), resources, options) for table in tables]
        if options.table == "gate":
            _conclude([summary for summary, _ in results], options)
    return int(any(failed for _, failed in results))


def _reproduce(
    table: Table, rows: list[Row], resources: Resources, options: argparse.Namespace
) -> tuple[Summary, bool]:
    """Train, test and report one table; also whether a run failed."""
    from mmpluld.reproduce.collect import collect
    from mmpluld.reproduce.display import live_progress
    from mmpluld.reproduce.graph import execute, fail_outdated
    from mmpluld.reproduce.plan import plan, with_needs
    from mmpluld.reproduce.runner import Run

    data_root = _data_root(table, options)
    # All rows are planned, so that the report has them and a folder that cannot be used is found before training.
    runs = plan(
        table.rows,
        options.seeds or table.seeds,
        Path(options.work_dir),
        table.protocol,
        twins=options.twins,
        split=table.split,
        data_root=data_root,
        cfg_options=options.cfg_options,
        start_of=_start_of(table, rows, resources, options),
    )
    wanted = [item for item in runs if item.row in rows]
    jobs = with_needs(wanted, unfinished=True)
    for job in jobs:
        if isinstance(job, Run):
            job.batch_shares(resources.gpus)  # refused before the first training
    with live_progress(wanted, resources.jobs) as refresh:
        execute(jobs, resources, refresh)
    every = with_needs(runs)
    fail_outdated(every)
    failed = [item for item in every if item.state == "failed"]
    for item in failed:
        print(f"failed: {item.name}, seed {item.seed}: {item.error}")
    summary = collect(table, runs)
    _report(summary, runs, options, _description(table, data_root))
    return summary, bool(failed)


def _start_of(table: Table, rows: list[Row], resources: Resources, options: argparse.Namespace) -> StartOf:
    """What backbones start from; trains the trunks that twins lack."""
    from mmpluld.engine.config import load_config
    from mmpluld.reproduce.children import run_command
    from mmpluld.reproduce.plan import detectors_behind
    from mmpluld.reproduce.start import imagenet_starts, random_start, without_weights
    from mmpluld.reproduce.trunks import ensure_trunks

    if options.pretrained == ["none"]:
        return random_start
    # All rows of the table are planned, but only those that are trained, or have been, need a trunk.
    begun = [row for row in table.rows if (Path(options.work_dir) / row.run_name(options.twins, table.split)).exists()]
    begun += detectors_behind([*rows, *begun])
    configs = [
        (row.key, load_config(row.config_name(options.twins), [*row.options, *options.cfg_options]))
        for row in dict.fromkeys([*table.rows, *begun])
        if not options.twins or row in rows or row in begun
    ]
    if options.twins:
        return ensure_trunks(configs, Path(options.work_dir), resources, run_command)
    classifiers = dict.fromkeys(row.fpr.config_name(False) for row in table.rows if row.fpr)
    configs += [(name, load_config(name)) for name in classifiers]
    starts = imagenet_starts(options.pretrained, configs)
    warning = without_weights(starts, configs)
    if warning:
        print(f"warning: {warning}", file=sys.stderr)
    return starts


def _data_root(table: Table, options: argparse.Namespace) -> Path | None:
    """Folder of the data, of twins with the phantom in it; None for the configs'."""
    from mmpluld.reproduce.children import run_command
    from mmpluld.reproduce.twin_data import ensure_phantom
    from mmpluld.reproduce.twin_datasets import ensure_lens_phantoms

    root = Path(options.data_root) if options.data_root else None
    if options.twins and root is None:
        alone = table.phantom == "deeplesion"
        root = Path(options.work_dir) / ("phantom" if alone else "phantom-lens")
        (ensure_phantom if alone else ensure_lens_phantoms)(root, run_command)
    return root / "deeplesion" if root and table.phantom == "lens-deeplesion" else root


def _description(table: Table, data_root: Path | None) -> str | None:
    """What the phantom holds; None if there is none."""
    from mmpluld.reproduce.twin_data import describe_phantom
    from mmpluld.reproduce.twin_datasets import describe_lens_phantoms

    if data_root is None:
        return None
    if table.phantom != "lens":
        return describe_phantom(data_root, table.split)
    return describe_lens_phantoms(data_root, table.split, held_out=table.protocol == "centre-3d")


def _report(summary: Summary, runs: list[Run], options: argparse.Namespace, data: str | None) -> None:
    """Write the report, print its table and say where it lies."""
    from rich.console import Console

    from mmpluld.reproduce.report import export, pair_line, terminal_table, write_report

    name = summary.table.name
    stem = Path(options.work_dir) / (f"{name}-twins" if options.twins else name)
    files = write_report(summary, stem, _command(options, summary.table), data)
    # Piped output gets the whole width: a table cut at 80 columns is of no use in a file.
    console = Console() if Console().is_terminal else Console(width=200)
    console.print(terminal_table(summary))
    for pair in summary.pairs:
        print(pair_line(pair))
    print(f"report: {files[0]}")
    if options.export:
        print(f"exported: {export(files, runs, Path(options.export))}")


def _by_recipe(table: Table, recipe: str) -> Table:
    from mmpluld.engine.recipes import recipe_file
    from mmpluld.reproduce.tables import with_recipe

    for row in table.rows:
        recipe_file(recipe, row.schedule)
    return with_recipe(table, recipe)


def _conclude(summaries: list[Summary], options: argparse.Namespace) -> None:
    """Write the verdict on the gate and print it."""
    from mmpluld.atomic import atomic_write_text
    from mmpluld.reproduce.gate import conditions, verdict

    found = conditions(summaries)
    text = verdict(found)
    path = Path(options.work_dir) / f"{options.table}-twins.md"
    atomic_write_text(path, text)
    if options.export:
        atomic_write_text(Path(options.export) / path.name, text)
    for item in found:
        print(f"{item.state}: {item.what}: {item.found} (asked: {item.asked})")
    print(f"verdict: {path}")


def _check(tables: Sequence[Table], options: argparse.Namespace) -> None:
    """Refuse what the tables cannot do."""
    from mmpluld.errors import InputError, did_you_mean

    if not options.twins and any(table.twins_only for table in tables):
        raise InputError(
            f"{options.table}: is for miniatures alone: only phantoms have complete labels, and at the papers' size "
            "rates and epochs are the papers'; add --twins"
        )
    if options.twins and options.pretrained not in ([], ["none"]):
        raise InputError(
            f"--pretrained {options.pretrained[0]}: twins start from trunks of their own; leave it out, or say none"
        )
    if any(item.partition("=")[0].strip() == "data_root" for item in options.cfg_options):
        raise InputError(
            "--cfg-options data_root: would not reach the steps between trainings; give the folder by --data-root"
        )
    keys = [row.key for table in tables for row in table.rows]
    for name in _names(options.rows):
        if name not in keys:
            hint = did_you_mean(name, keys, f"it has {', '.join(keys)}")
            raise InputError(f"--rows {name}: {options.table} has no such row{hint}")


def _names(rows: str | None) -> list[str]:
    """The keys in ``A,B``."""
    return [] if rows is None else [name.strip() for name in rows.split(",")]


def _chosen(table: Table, wanted: str | None) -> list[Row]:
    """The rows to train, with those whose weights they test."""
    if wanted is None:
        return list(table.rows)
    chosen = [row for row in table.rows if row.key in _names(wanted)]
    trained = {row.key for row in chosen} | {row.weights_of for row in chosen}
    return [row for row in table.rows if row.key in trained]


def _check_gpus(resources: Resources) -> None:
    from mmpluld.errors import InputError

    if not resources.gpus:
        return
    import torch

    needed, found = resources.jobs * resources.gpus, torch.cuda.device_count()
    if needed > found:
        raise InputError(
            f"--jobs {resources.jobs} --gpus {resources.gpus}: needs {needed} GPUs, {found} found; ask for fewer"
        )


def _command(options: argparse.Namespace, table: Table) -> str:
    """The command without what changes no figure: where results lie, jobs and GPUs."""
    import shlex

    parts = ["mmpluld", "reproduce", options.table, "--seeds", str(options.seeds or table.seeds)]
    parts += ["--twins"] if options.twins else []
    parts += ["--recipe", options.recipe] if options.recipe else []
    parts += ["--data-root", options.data_root] if options.data_root else []
    given = [item.partition("=")[::2] for item in options.pretrained]
    files = [f"{name}={Path(source).name}" if source else name for name, source in given]
    parts += ["--pretrained", *files] if files else []
    parts += ["--cfg-options", *options.cfg_options] if options.cfg_options else []
    return shlex.join(parts)
