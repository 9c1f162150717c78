"""``mmpluld calibrate``."""

from __future__ import annotations

import argparse

from mmpluld.cli.changes import add_changes
from mmpluld.cli.device import add_device
from mmpluld.cli.outputs import OutputFile

EXAMPLE = "mmpluld calibrate CONFIG work_dirs/lens/epoch_8.pth work_dirs/lens/calibrated.pth"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("config", help="config file, or name of a config of the zoo; its val_dataloader has the data")
    parser.add_argument("checkpoint", help="trained weights: file, web address, or zoo:NAME")
    parser.add_argument(
        "out", action=OutputFile, help="checkpoint to write: the same with the fitted scale and bias of every expert"
    )
    add_device(parser)
    add_changes(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace an existing OUT")


def run(options: argparse.Namespace) -> int:
    """Calibrate and print what was fitted."""
    from mmpluld.weights.calibration import calibrate, command_to_test

    fits = calibrate(
        options.config,
        options.checkpoint,
        options.out,
        device=options.device,
        twin=options.twin,
        cfg_options=options.cfg_options,
        overwrite=options.overwrite,
    )
    for fit in fits:
        print(
            f"{fit.dataset}: {fit.num_boxes} boxes, {fit.num_hits} hits, scale {fit.scale:.4f}, bias {fit.bias:.4f}, "
            f"log loss {fit.loss_before:.4f} before, {fit.loss_after:.4f} after"
        )
    print(f"test it with: {command_to_test(options.config, options.out, options.cfg_options, options.twin)}")
    return 0
