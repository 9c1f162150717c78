"""``mmpluld config``."""

from __future__ import annotations

import argparse

EXAMPLE = "mmpluld config pluld-a3d_densenet121-fpn_7s_20e_deeplesion --out my_config.py"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("config", help="name of a config of the zoo, or a config file")
    parser.add_argument("--twin", action="store_true", help="the miniature of it that trains on the phantom")
    parser.add_argument("--out", metavar="FILE", help="write to FILE, ending in .py, instead of the screen")
    parser.add_argument("--overwrite", action="store_true", help="replace FILE if it has other content")
    parser.add_argument("--cfg-options", nargs="+", metavar="KEY=VALUE", help="changes to the config")


def run(options: argparse.Namespace) -> int:
    """Print the config, or write it to a file and name the file."""
    from mmpluld.engine.copy_config import config_text, write_config

    text = config_text(options.config, options.cfg_options, options.twin)
    if options.out is None:
        print(text, end="")
    else:
        print(write_config(text, options.out, options.overwrite))
    return 0
