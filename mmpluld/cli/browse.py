"""``mmpluld browse``."""

from __future__ import annotations

import argparse

from mmpluld.cli.changes import add_changes
from mmpluld.cli.numbers import natural, seed
from mmpluld.cli.outputs import OutputFolder

EXAMPLE = "mmpluld browse pluld-a3d_densenet121-fpn_7s_20e_deeplesion --out samples --number 20"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("config", help="config file, or the name of a config of the zoo")
    parser.add_argument("--out", required=True, action=OutputFolder, metavar="DIR", help="folder of the pictures")
    parser.add_argument("--number", type=natural, default=20, help="how many pictures (default: %(default)s)")
    parser.add_argument(
        "--part",
        choices=["train", "val", "test"],
        default="train",
        help="whose data and pipeline (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=seed, default=0, help="of the choice and the augmentations (default: %(default)s)"
    )
    add_changes(parser)


def run(options: argparse.Namespace) -> int:
    """Draw the pictures."""
    from mmpluld.engine.browse import browse

    paths = browse(
        options.config,
        options.out,
        number=options.number,
        part=options.part,
        seed=options.seed,
        cfg_options=options.cfg_options,
        twin=options.twin,
    )
    fewer = f", of all samples for {options.part}" if len(paths) < options.number else ""
    print(f"{options.out}: {len(paths)} pictures{fewer}")
    return 0
