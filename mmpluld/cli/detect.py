"""``mmpluld detect``."""

from __future__ import annotations

import argparse

from mmpluld.cli.twin import add_twin

EXAMPLE = "mmpluld detect scan.nii.gz --config CONFIG --checkpoint WEIGHTS --out findings"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("scan", help="NIfTI, MHD, MHA or NRRD file, or a folder with one DICOM series")
    parser.add_argument(
        "--config", help="config file, or the name of a config of the zoo (default: the one of zoo:NAME as weights)"
    )
    parser.add_argument("--checkpoint", required=True, help="weights of the config: file, web address, or zoo:NAME")
    parser.add_argument("--out", required=True, help="folder for detections.json, findings.csv and report.html")
    parser.add_argument(
        "--score-thr", type=float, default=0.3, help="lowest score of a finding, 0..1 (default: %(default)s)"
    )
    parser.add_argument("--series", metavar="UID", help="DICOM series to read when the folder holds several")
    parser.add_argument(
        "--tags", metavar="FILE", help="names of the model's tags: LesaNet's JSON of labels, or an annotation file"
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 (default: %(default)s)")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32", help="arithmetic of the network")
    add_twin(parser)
    parser.add_argument("--cfg-options", nargs="+", metavar="KEY=VALUE", help="changes to the config")
    parser.add_argument("--overwrite", action="store_true", help="replace the output folder")


def run(options: argparse.Namespace) -> int:
    """Detect and name the files written."""
    from mmpluld.inference.run import detect_scan

    result = detect_scan(
        options.scan,
        config=options.config,
        checkpoint=options.checkpoint,
        out=options.out,
        score_thr=options.score_thr,
        series=options.series,
        device=options.device,
        precision=options.precision,
        tags=options.tags,
        twin=options.twin,
        cfg_options=options.cfg_options,
        overwrite=options.overwrite,
    )
    print(f"{len(result.findings)} findings; report: {result.report}")
    return 0
