"""``mmpluld convert-checkpoint``."""

from __future__ import annotations

import argparse
import shlex

from mmpluld.cli.outputs import OutputFile

EXAMPLE = "mmpluld convert-checkpoint alignshift downloads/epoch_20.pth weights/a3d.pth"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "code", choices=["alignshift", "mulan"], help="code base that wrote the checkpoint (alignshift also has A3D)"
    )
    parser.add_argument("source", help="published checkpoint")
    parser.add_argument("target", action=OutputFile, help="checkpoint to write")
    parser.add_argument(
        "--operator",
        choices=["alignshift", "tsm"],
        help="what the weights mix slices with; needed where the file's config text does not tell these two apart",
    )
    parser.add_argument("--config", help="config the weights must fit (default: the zoo's for this kind of weights)")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing target")


def run(options: argparse.Namespace) -> int:
    """Convert, and print what was done and what to test with."""
    from mmpluld.errors import InputError
    from mmpluld.weights.alignshift import convert_alignshift
    from mmpluld.weights.mulan import convert_mulan

    given = {"config": options.config, "overwrite": options.overwrite}
    if options.code == "alignshift":
        report = convert_alignshift(options.source, options.target, operator=options.operator, **given)
    elif options.operator is not None:
        raise InputError("--operator: is no option of mulan, only of alignshift; leave it out")
    else:
        report = convert_mulan(options.source, options.target, **given)
    print(f"{report.variant} weights for {report.num_slices} slices, recognised by {report.evidence}")
    print(f"{report.num_tensors} tensors written, {len(report.renamed)} of them under new names")
    for label, names in (("without background, or lesion first", report.reduced), ("left out", report.dropped)):
        if names:
            print(f"{label}: {', '.join(names)}")
    print(f"SHA-256 {report.sha256}  {options.target}")
    print(f"test it with: {shlex.join(['mmpluld', 'test', options.config or report.config, options.target])}")
    return 0
