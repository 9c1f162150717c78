"""``mmpluld rescore``."""

from __future__ import annotations

import argparse

from mmpluld.cli.device import add_device
from mmpluld.cli.fpr import add_fpr
from mmpluld.cli.outputs import OutputFile
from mmpluld.errors import InputError, counted, printable

EXAMPLE = (
    "mmpluld rescore detections.json annotations/manual_test.json --data-root data/deeplesion --fpr WEIGHTS "
    "--out rescored.json"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("detections", metavar="DETECTIONS", help="detection record of `mmpluld test` on whole volumes")
    parser.add_argument("annotations", metavar="ANN", help="annotation file with these volumes")
    parser.add_argument("--data-root", required=True, metavar="ROOT", help="folder that the volumes' paths start from")
    parser.add_argument(
        "--out", required=True, action=OutputFile, metavar="FILE", help="detection record to write (.json)"
    )
    add_fpr(parser, required=True)
    add_device(parser)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32", help="arithmetic of the network")


def run(options: argparse.Namespace) -> int:
    """Rescore and name the file written."""
    from mmpluld.engine.device import chosen_device
    from mmpluld.inference.rescore import load_rescorer, rescore_detections

    if not str(options.out).endswith(".json"):
        raise InputError(f"--out {options.out}: a detection record is a .json file; change the suffix")
    device = chosen_device(options.device)
    rescorer = load_rescorer(options.fpr, options.fpr_config, options.fpr_mode, device, options.precision)
    found = rescore_detections(options.detections, options.annotations, options.data_root, rescorer)
    found.save(options.out)
    count = sum(len(item.boxes) for item in found.volumes.values())
    print(
        f"{printable(str(options.out))}: {counted(count, 'detection')} in {counted(len(found.volumes), 'volume')}; "
        f"{rescorer.line}"
    )
    return 0
