"""``mmpluld download``."""

from __future__ import annotations

import argparse

from mmpluld.cli.outputs import OutputFolder

EXAMPLE = "mmpluld download pluld-a3d_densenet121-fpn_7s_phantom --dest weights"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("name", help="model of the zoo; `mmpluld models` lists them")
    parser.add_argument(
        "--dest", action=OutputFolder, default=".", metavar="DIR", help="folder to write to (default: this one)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a file of other content")


def run(options: argparse.Namespace) -> int:
    """Fetch the bundle, and name it."""
    from mmpluld.engine.model_files import download_model

    print(download_model(options.name, options.dest, options.overwrite))
    return 0
