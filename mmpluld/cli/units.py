"""The option ``--units`` of the commands that read scans."""

from __future__ import annotations

import argparse

__all__ = ["add_units"]


def add_units(parser: argparse.ArgumentParser) -> None:
    """Declare it."""
    parser.add_argument(
        "--units",
        choices=["hu"],
        help="take the values for HU though they do not look like it (default: a scan without air or fat and soft "
        "tissue where HU have them is refused)",
    )
