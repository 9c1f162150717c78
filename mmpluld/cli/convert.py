"""``mmpluld convert``."""

from __future__ import annotations

import argparse

EXAMPLE = "mmpluld convert deeplesion data/deeplesion"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("dataset", choices=["deeplesion"], help="layout of the raw dataset")
    parser.add_argument("root", help="folder that holds DL_info.csv and Images_png")
    parser.add_argument("--csv", default="DL_info.csv", metavar="NAME", help="name of the table (default: %(default)s)")
    parser.add_argument("--keep-noisy", action="store_true", help="keep the rows marked Possibly_noisy")
    parser.add_argument("--no-images", action="store_true", help="do not require the slices to be there")
    parser.add_argument(
        "--masks",
        choices=["none", "exact", "legacy"],
        default="exact",
        help="masks from the RECIST marks, which detectors with a mask head train on; "
        "legacy repeats the published code's (default: %(default)s)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace existing annotation files")


def run(options: argparse.Namespace) -> int:
    """Convert and print what was kept and what was dropped."""
    from mmpluld.datasets.converters.deeplesion import convert_deeplesion

    report = convert_deeplesion(
        options.root,
        csv_name=options.csv,
        drop_noisy=not options.keep_noisy,
        require_images=not options.no_images,
        masks=None if options.masks == "none" else options.masks,
        overwrite=options.overwrite,
    )
    print(report.summary())
    return 0
