"""``mmpluld reproduce``."""

from __future__ import annotations

import argparse

from mmpluld.cli.numbers import whole
from mmpluld.cli.outputs import OutputFolder

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
    parser.add_argument("--rows", type=_names, metavar="A,B", help="train these rows only (default: all)")
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
    from mmpluld.reproduce.session import Request, reproduce

    request = Request(
        options.table,
        options.work_dir,
        seeds=options.seeds,
        twins=options.twins,
        recipe=options.recipe,
        rows=options.rows,
        data_root=options.data_root,
        jobs=options.jobs,
        gpus=options.gpus,
        export=options.export,
        cfg_options=options.cfg_options,
        pretrained=options.pretrained,
    )
    return int(bool(reproduce(request).failed))


def _names(rows: str) -> list[str]:
    """The keys in ``A,B``."""
    return [name.strip() for name in rows.split(",")]
