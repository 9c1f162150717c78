"""``mmpluld evaluate``."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from mmpluld.cli.numbers import natural, whole
from mmpluld.cli.outputs import OutputFile, OutputPicture
from mmpluld.errors import InputError

if TYPE_CHECKING:
    from mmpluld.evaluation.operating_points import OperatingPoints

_MOST_RESAMPLES = 1_000_000  # 40 MB a curve; the interval has long stopped moving
EXAMPLE = (
    "mmpluld evaluate detections.json annotations/test.json --protocol deeplesion-2d --bootstrap 1000\n"
    "  mmpluld evaluate submission.csv luna16/evaluation --protocol luna16"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("predictions", metavar="PRED", help="detection record (.json); luna16: or submission (.csv)")
    parser.add_argument(
        "truth",
        metavar="GT",
        help="annotation file, or a detection record without scores; luna16: folder with annotations.csv, "
        "annotations_excluded.csv, seriesuids.csv",
    )
    parser.add_argument(
        "--protocol",
        required=True,
        choices=["deeplesion-2d", "lens-3d", "centre-3d", "luna16"],
        help="deeplesion-2d: IoU >= 0.5 on key slices; lens-3d: 3D IoBB >= 0.3 per sub-volume; centre-3d: LUNA16's "
        "rule of hits for 3D boxes; luna16: rules and files of the LUNA16 challenge",
    )
    parser.add_argument(
        "--scans",
        metavar="FILE",
        help="luna16: evaluate only the volumes of this annotation file, such as annotations/test.json",
    )
    parser.add_argument("--strict", action="store_true", help="strict rules instead of those of the published code")
    parser.add_argument(
        "--bootstrap",
        type=whole(0, _MOST_RESAMPLES),
        default=0,
        metavar="N",
        help="95 %% interval from N resamples of patients (luna16: of scans)",
    )
    parser.add_argument("--seed", type=natural, default=0, help="seed of the bootstrap")
    parser.add_argument(
        "--by",
        nargs="+",
        choices=["type", "size", "interval"],
        help="also by lesion type, size (long diameter), slice interval",
    )
    parser.add_argument(
        "--others",
        choices=["ignored", "fp"],
        help="with --by type or size, detections on lesions of another group are ignored (default) or false "
        "positives, as the author of DeepLesion evaluates",
    )
    parser.add_argument(
        "--same",
        nargs=2,
        action="append",
        metavar=("PRED_ID", "GT_ID"),
        help="volume PRED_ID of the detections is GT_ID of the truth, where ids differ; may be given several times",
    )
    parser.add_argument(
        "--first-slice",
        type=natural,
        metavar="N",
        help="the first slice of the one scan is slice N of its series, where the truth counts these (DeepLesion) "
        "and the scan is not named SERIES_FIRST-LAST",
    )
    _add_outputs(parser)


def _add_outputs(parser: argparse.ArgumentParser) -> None:
    """Declare the files that are written if they are asked for."""
    parser.add_argument("--json", action=OutputFile, metavar="OUT", help="write the result as JSON")
    parser.add_argument(
        "--operating-points",
        action=OutputFile,
        metavar="OUT",
        help="write score thresholds by false positives, and the calibration of scores, for `mmpluld detect --fp-rate`",
    )
    parser.add_argument(
        "--reliability",
        action=OutputPicture,
        metavar="OUT",
        help="write the share of findings that are a lesion by score as a picture (.png, .svg or .pdf)",
    )
    parser.add_argument(
        "--plot", action=OutputPicture, metavar="OUT", help="write the FROC curve as a picture (.png, .svg or .pdf)"
    )


def run(options: argparse.Namespace) -> int:
    """Evaluate, print the table, write what was asked for."""
    from mmpluld.atomic import atomic_write_text
    from mmpluld.evaluation.report import format_table

    result, points = _luna16(options) if options.protocol == "luna16" else _evaluate(options)
    print(format_table(result))
    if options.json:
        atomic_write_text(options.json, json.dumps(result, indent=2) + "\n")
    if options.plot:
        from mmpluld.visualization.froc_plot import plot_froc

        plot_froc({"detections": result}, options.plot)
    if points is not None:
        _write_points(points, options)
    return 0


def _write_points(points: OperatingPoints, options: argparse.Namespace) -> None:
    """Write operating points and their picture, and print the calibration."""
    from mmpluld.evaluation.operating_points import calibration_table

    if options.reliability:
        from mmpluld.visualization.reliability_plot import plot_reliability

        plot_reliability(points, options.reliability)
    if options.operating_points:
        points.save(options.operating_points)
    print("score       findings  lesions  95 %")
    for scores, count, share, interval in calibration_table(points):
        print(f"{scores}  {count:>8}  {share:>7}  {interval}".rstrip())


def _luna16(options: argparse.Namespace) -> tuple[dict[str, Any], None]:
    """Result by the rules of LUNA16, which have no operating points."""
    from mmpluld.evaluation.luna16 import evaluate_luna16

    for name in ("strict", "by", "others", "same", "first_slice", "operating_points", "reliability"):
        if getattr(options, name) is not None and getattr(options, name) is not False:  # 0 is a slice
            raise InputError(
                f"--{name.replace('_', '-')} is not part of the LUNA16 rules; leave it out or use another protocol"
            )
    result = evaluate_luna16(
        options.predictions, options.truth, options.scans, bootstrap=options.bootstrap, seed=options.seed
    )
    return result, None


def _evaluate(options: argparse.Namespace) -> tuple[dict[str, Any], OperatingPoints | None]:
    """Result of the protocol asked for, and operating points if asked for; nothing is written before both are there."""
    if options.scans:
        raise InputError(f"--scans is not part of {options.protocol}; give the truth of the scans that you mean")
    if options.others and not set(options.by or ()) & {"type", "size"}:
        raise InputError(f"--others {options.others} says nothing without --by type or --by size; add one of these")
    from mmpluld.evaluation.evaluate import evaluate_matched, match_files
    from mmpluld.evaluation.operating_points import matched_operating_points

    found = match_files(
        options.predictions,
        options.truth,
        options.protocol,
        strict=options.strict,
        same=[(pred, true) for pred, true in options.same or ()],
        first_slice=options.first_slice,
    )
    result = evaluate_matched(found, options.bootstrap, options.seed, options.by, options.others or "ignored")
    wanted = options.operating_points or options.reliability
    return result, matched_operating_points(found) if wanted else None
