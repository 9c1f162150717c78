"""Options of the commands that read a config."""

from __future__ import annotations

import argparse


def add_changes(parser: argparse.ArgumentParser) -> None:
    """Declare that the miniature of the config is meant, and changes to it."""
    parser.add_argument(
        "--twin", action="store_true", help="take the config's miniature, which trains on the phantom in minutes"
    )
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action="extend",
        metavar="KEY=VALUE",
        help="changes to the config, such as train_cfg.max_epochs=2 or data_root=data/mine; VALUE is a number, a text, "
        "a,b or [a, b], (a, b), {key: value}, or a text in quotes of its own",
    )
