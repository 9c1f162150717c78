"""Draw docs/images/phantom.png: ``python tools/phantom_picture.py OUT.png [--seed N] [--size N]``."""

from __future__ import annotations

import argparse

from mmpluld.cli.numbers import natural
from mmpluld.phantom.picture import save_picture
from mmpluld.reproduce.twin_data import SETTINGS


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw a synthetic CT with its marked and unmarked lesions.")
    parser.add_argument("out", help="PNG file to write")
    parser.add_argument("--seed", type=natural, default=3)
    parser.add_argument("--size", type=natural, default=256, help="rows and columns of the CT (default: %(default)s)")
    arguments = parser.parse_args()
    # A torso is three times as long as a scan of the miniatures' phantom; 40 is the most that may be asked for.
    save_picture(arguments.out, arguments.seed, arguments.size, **{**SETTINGS, "lesions_per_series": 40})


if __name__ == "__main__":
    main()
