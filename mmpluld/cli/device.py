"""The option ``--device`` of the commands that run a network."""

from __future__ import annotations

import argparse

__all__ = ["add_device"]


def add_device(parser: argparse.ArgumentParser) -> None:
    """Declare it."""
    parser.add_argument(
        "--device", default="auto", help="auto (CUDA if there is such a device, else cpu), cpu, cuda, cuda:1 (auto)"
    )
