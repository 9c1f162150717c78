"""``mmpluld train``."""

from __future__ import annotations

import argparse

from mmpluld.cli.changes import add_changes
from mmpluld.cli.launcher import add_launcher
from mmpluld.cli.numbers import seed
from mmpluld.cli.outputs import OutputFolder

EXAMPLE = """mmpluld train configs/pluld/pluld-a3d_densenet121-fpn_7s_20e_deeplesion.py --work-dir work_dirs/a3d

its miniature, and the data that it trains on:
  mmpluld phantom twins data/phantom
  mmpluld train pluld-a3d_densenet121-fpn_7s_20e_deeplesion --twin"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("config", help="config file, or the name of a config of the zoo")
    parser.add_argument(
        "--work-dir", action=OutputFolder, help="folder for logs and checkpoints (default: work_dirs/<config name>)"
    )
    parser.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        metavar="CHECKPOINT",
        help="resume from CHECKPOINT, or from the last one in the work folder",
    )
    parser.add_argument("--seed", type=seed, help="random seed (default: that of the config)")
    parser.add_argument("--amp", action="store_true", help="mixed precision")
    add_changes(parser)
    parser.add_argument(
        "--auto-scale-lr",
        action="store_true",
        help="scale the learning rate by the batch size of all processes over the config's base_batch_size",
    )
    add_launcher(parser)


def run(options: argparse.Namespace) -> int:
    """Train."""
    from mmpluld.engine.run import train

    train(
        options.config,
        work_dir=options.work_dir,
        resume=options.resume,
        seed=options.seed,
        amp=options.amp,
        auto_scale_lr=options.auto_scale_lr,
        twin=options.twin,
        cfg_options=options.cfg_options,
        launcher=options.launcher,
        local_rank=options.local_rank,
    )
    return 0
