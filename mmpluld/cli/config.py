"""``mmpluld config``."""

from __future__ import annotations

import argparse

from mmpluld.cli.changes import add_changes
from mmpluld.cli.outputs import OutputFile

EXAMPLE = "mmpluld config pluld-a3d_densenet121-fpn_7s_20e_deeplesion --out my_config.py"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("config", help="name of a config of the zoo, or a config file")
    add_changes(parser)
    parser.add_argument(
        "--out", action=OutputFile, metavar="FILE", help="write to FILE, which ends in .py, instead of the screen"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a FILE of other content")


def run(options: argparse.Namespace) -> int:
    """Print the config with all its bases resolved, or write it and name the file."""
    from mmpluld.engine.config import load_config
    from mmpluld.engine.config_file import write_config

    config = load_config(options.config, options.cfg_options, options.twin)
    if options.out is None:
        print(config.pretty_text, end="")
    else:
        print(write_config(config, options.out, options.overwrite))
    return 0
