"""``mmpluld evaluate``."""

from __future__ import annotations

import argparse
import json

EXAMPLE = "mmpluld evaluate detections.json annotations/test.json --protocol deeplesion-2d --bootstrap 1000"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("predictions", metavar="PRED", help="detection record (.json)")
    parser.add_argument("truth", metavar="GT", help="annotation file, or a detection record without scores")
    parser.add_argument(
        "--protocol",
        required=True,
        choices=["deeplesion-2d", "lens-3d"],
        help="deeplesion-2d: IoU >= 0.5 on key slices; lens-3d: 3D IoBB >= 0.3 per sub-volume",
    )
    parser.add_argument("--strict", action="store_true", help="strict rules instead of those of the published code")
    parser.add_argument(
        "--bootstrap", type=int, default=0, metavar="N", help="95 %% interval from N resamples of patients"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the bootstrap")
    parser.add_argument(
        "--strata", nargs="+", choices=["type", "size", "interval"], help="also by lesion type, size, slice interval"
    )
    parser.add_argument("--json", metavar="OUT", help="write the result as JSON")
    parser.add_argument("--plot", metavar="OUT", help="write the FROC curve as a picture (.png, .svg or .pdf)")


def run(options: argparse.Namespace) -> int:
    """Evaluate, print the table, write what was asked for."""
    from mmpluld.atomic import atomic_write_text
    from mmpluld.evaluation.evaluate import evaluate_files, format_table

    result = evaluate_files(
        options.predictions,
        options.truth,
        protocol=options.protocol,
        strict=options.strict,
        bootstrap=options.bootstrap,
        seed=options.seed,
        strata=options.strata,
    )
    print(format_table(result))
    if options.json:
        atomic_write_text(options.json, json.dumps(result, indent=2) + "\n")
    if options.plot:
        from mmpluld.visualization.froc_plot import plot_froc

        plot_froc({"detections": result}, options.plot)
    return 0
