"""Options of the commands that can run in several processes."""

from __future__ import annotations

import argparse

from mmpluld.cli.numbers import natural


def add_launcher(parser: argparse.ArgumentParser) -> None:
    """Declare how the processes are started; the local rank is what some launchers hand to each of them."""
    parser.add_argument(
        "--launcher",
        choices=["none", "pytorch", "slurm", "mpi"],
        default="none",
        help="what starts the processes (default: %(default)s, one process)",
    )
    parser.add_argument("--local-rank", "--local_rank", type=natural, default=0, help=argparse.SUPPRESS)
