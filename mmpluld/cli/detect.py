"""``mmpluld detect``."""

from __future__ import annotations

import argparse
from pathlib import Path

from mmpluld.cli.changes import add_changes
from mmpluld.cli.fpr import add_fpr
from mmpluld.cli.numbers import natural, not_negative, score, whole
from mmpluld.cli.outputs import OutputFolder
from mmpluld.cli.units import add_units
from mmpluld.errors import InputError, counted, printable
from mmpluld.inference.formats import DEFAULT_FORMATS, FORMATS, parse_formats

EXAMPLE = "mmpluld detect scan.nii.gz --out findings"

# Those of DetectionSettings that a user may want to change for a scan; the others belong to a config.
RULES = {
    "score_thr": (score, "lowest score of a finding, 0..1 (0.3)"),
    "link_score_thr": (score, "lowest score of 2D boxes that are linked along z, 0..1, not above --score-thr (0.05)"),
    "iou_thr": (score, "2D boxes of neighbouring slices are linked above this overlap, 0..1 (0.5)"),
    "max_gap": (natural, "slices of the grid without a box that a finding may bridge (0)"),
    "min_slices": (whole(1), "fewest slices of the grid with a box of a finding (1)"),
    "max_boxes": (whole(1), "most findings, those with the best scores (all)"),
    "tag_thr": (score, "lowest score of a finding's tags, 0..1 (0.5)"),
}


class Formats(argparse.Action):
    """Names of formats, as words or with commas; refused with an InputError if one is unknown."""

    def __call__(self, parser: object, namespace: argparse.Namespace, values: object, option: object = None) -> None:
        """Check and store the names."""
        assert isinstance(values, list)  # nargs="+"
        setattr(namespace, self.dest, parse_formats(values))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("scan", help="NIfTI, MHD, MHA, NRRD or NHDR file, or a folder with one DICOM series")
    add_model(parser)
    parser.add_argument("-o", "--out", required=True, action=OutputFolder, help="folder for the files of --formats")
    listed = [f"{name:<9} {kind.file:<20} {kind.text}" for name, kind in FORMATS.items()]
    formats = parser.add_argument_group("what is written", "\n".join(listed))
    formats.add_argument(
        "--formats",
        nargs="+",
        action=Formats,
        default=list(DEFAULT_FORMATS),
        metavar="NAME",
        help=f"names of these, as words or with commas (default: {','.join(DEFAULT_FORMATS)})",
    )
    rules = parser.add_argument_group(
        "rules of findings", "default: as the config is tested, else the value in brackets"
    )
    for name, (kind, text) in RULES.items():
        rules.add_argument(f"--{name.replace('_', '-')}", type=kind, metavar="N", help=text)
    rules.add_argument(
        "--fp-rate",
        type=not_negative,
        metavar="N",
        help="instead of --score-thr: false positives per volume (or image) that the model's validation measured",
    )
    rules.add_argument(
        "--operating-points", metavar="FILE", help="with --fp-rate: of `mmpluld evaluate` (default: the bundle's)"
    )
    add_fpr(parser, required=False)
    parser.add_argument(
        "--no-fpr", action="store_true", help="no false-positive reduction, where config or bundle have one"
    )
    parser.add_argument(
        "--series",
        metavar="UID[:ATTRIBUTE=VALUE]",
        help="DICOM series to read when the folder holds several; with an attribute, such as :AcquisitionNumber=2, "
        "the part of it where a series is several volumes",
    )
    add_units(parser)
    parser.add_argument(
        "--tags", metavar="FILE", help="names of the model's tags: LesaNet's JSON of labels, or an annotation file"
    )
    parser.add_argument(
        "--identifiers",
        action="store_true",
        help="write the path of the scan and the UID of its series into the outputs (default: its file name alone)",
    )
    add_machine(parser)
    add_changes(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace the output folder")


def add_model(parser: argparse.ArgumentParser) -> None:
    """Declare the options that choose the model."""
    group = parser.add_argument_group("model", "default: the zoo's own default, see `mmpluld models`")
    group.add_argument("--model", metavar="MODEL", help="model of the zoo by its name, or the file of a bundle")
    group.add_argument("--config", help="instead, with --checkpoint: config file, or the name of a config of the zoo")
    group.add_argument("--checkpoint", help="weights of the config: file, web address, or zoo:NAME")


def add_machine(parser: argparse.ArgumentParser) -> None:
    """Declare the options of where and how the network runs."""
    parser.add_argument(
        "--device", default="auto", help="auto (CUDA if there is such a device, else cpu), cpu, cuda, cuda:1 (auto)"
    )
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32", help="arithmetic (default: fp32)")
    parser.add_argument(
        "--batch-size", type=whole(1), metavar="N", help="slices at once (default: cpu 1, cuda 1 for every 4 GiB)"
    )


def run(options: argparse.Namespace) -> int:
    """Detect and name the files written."""
    from mmpluld.compat.processes import check_alone
    from mmpluld.inference.formats import output_names
    from mmpluld.inference.output import output_folder
    from mmpluld.inference.scan_detector import Detector

    check_alone("detect")
    if options.no_fpr and (options.fpr or options.fpr_config or options.fpr_mode):
        raise InputError("--no-fpr contradicts the other options of false-positive reduction; leave one out")
    given = {name: getattr(options, name) for name in RULES}
    with output_folder(options.out, output_names(), options.overwrite) as folder:
        detector = Detector(
            options.model,
            config=options.config,
            checkpoint=options.checkpoint,
            device=options.device,
            precision=options.precision,
            batch_size=options.batch_size,
            fp_rate=options.fp_rate,
            operating_points=options.operating_points,
            tags=options.tags,
            twin=options.twin,
            cfg_options=options.cfg_options,
            fpr=options.fpr,
            fpr_config=options.fpr_config,
            fpr_mode=options.fpr_mode,
            no_fpr=options.no_fpr,
            **{name: value for name, value in given.items() if value is not None},
        )
        found = detector(options.scan, series=options.series, units=options.units, formats=options.formats)
        names = found.write(folder, options.formats, options.identifiers)
    report = FORMATS["html"].file
    what, file = ("report: ", report) if report in names else ("", names[0] if names else "")
    print(f"{counted(len(found), 'finding')}; {what}{printable(str(Path(options.out, file)))}")
    return 0
