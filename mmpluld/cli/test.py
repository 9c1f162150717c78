"""``mmpluld test``."""

from __future__ import annotations

import argparse

from mmpluld.cli.changes import add_changes
from mmpluld.cli.launcher import add_launcher
from mmpluld.cli.numbers import score
from mmpluld.cli.outputs import OutputFile, OutputFolder

EXAMPLE = "mmpluld test CONFIG work_dirs/a3d/epoch_20.pth --out detections.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("config", help="config file, or the name of a config of the zoo")
    parser.add_argument("checkpoint", help="weights to test: file, web address, or zoo:NAME")
    parser.add_argument("--work-dir", action=OutputFolder, help="folder for logs (default: work_dirs/<config name>)")
    parser.add_argument(
        "--out", action=OutputFile, metavar="FILE", help="write the detections as a detection record (.json)"
    )
    parser.add_argument(
        "--show-dir",
        action=OutputFolder,
        metavar="DIR",
        help="write pictures of the tested slices, truth and detections",
    )
    parser.add_argument(
        "--show-score-thr",
        type=score,
        default=0.3,
        metavar="SCORE",
        help="pictures show detections above this score (default: %(default)s)",
    )
    add_changes(parser)
    add_launcher(parser)


def run(options: argparse.Namespace) -> int:
    """Test and print the metrics."""
    from mmpluld.compat.processes import is_first
    from mmpluld.engine.run import test

    metrics = test(
        options.config,
        options.checkpoint,
        work_dir=options.work_dir,
        out=options.out,
        show_dir=options.show_dir,
        show_score_thr=options.show_score_thr,
        twin=options.twin,
        cfg_options=options.cfg_options,
        launcher=options.launcher,
        local_rank=options.local_rank,
    )
    if is_first(options.launcher):
        for name, value in metrics.items():
            print(f"{name:<16} {value:.4f}")
    return 0
