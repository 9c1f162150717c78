"""The option of the commands that read a config."""

from __future__ import annotations

import argparse


def add_twin(parser: argparse.ArgumentParser) -> None:
    """Declare that the miniature of the config is meant."""
    parser.add_argument(
        "--twin", action="store_true", help="take the config's miniature, which trains on the phantom in minutes"
    )
