"""From a scan on disk to findings on disk: what ``mmpluld detect`` calls."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmpluld.compat.allocator import tune_allocator
from mmpluld.engine.config import find_config, load_config
from mmpluld.engine.config_check import check_config
from mmpluld.errors import InputError
from mmpluld.inference.detector import Precision, VolumeDetector
from mmpluld.inference.output import output_folder
from mmpluld.inference.settings import DetectionSettings
from mmpluld.io import VOLUME_SUFFIXES, read_volume, write_findings_csv
from mmpluld.structures import CTVolume, DetectionSet, Finding, findings_to_detections, read_tag_names
from mmpluld.visualization import write_report
from mmpluld.zoo.download import local_checkpoint, sha256_of

__all__ = ["OUTPUTS", "ScanResult", "detect_scan"]

OUTPUTS = ("detections.json", "findings.csv", "report.html")


@dataclass(frozen=True)
class ScanResult:
    """What :func:`detect_scan` found, best score first, and the files it wrote."""

    findings: list[Finding]
    detections: Path
    table: Path
    report: Path


def detect_scan(
    scan: str | os.PathLike[str],
    config: str | os.PathLike[str] | None,
    checkpoint: str | os.PathLike[str],
    out: str | os.PathLike[str],
    device: str = "cpu",
    precision: Precision = "fp32",
    batch_size: int = 1,
    series: str | None = None,
    identifiers: bool = False,
    tags: str | os.PathLike[str] | None = None,
    twin: bool = False,
    cfg_options: Sequence[str] | None = None,
    overwrite: bool = False,
    **settings: Any,
) -> ScanResult:
    """Detect lesions in a scan and write what was found.

    ``out`` becomes a folder with ``detections.json`` (detection record in voxels of the scan's file, under the name
    of the scan without suffix; ``mmpluld evaluate`` reads it), ``findings.csv`` (positions in LPS millimetres) and
    ``report.html``. The folder appears whole at the end, or not at all.

    Args:
        scan: NIfTI, MHD/MHA or NRRD file, or DICOM folder.
        config: Path, or name of a config of the zoo; None takes that of a checkpoint ``zoo:NAME``.
        checkpoint: Weights that belong to the config's model: a path, a web address, or ``zoo:NAME``.
        out: Folder to make.
        device, precision, batch_size: See :class:`~mmpluld.inference.VolumeDetector`.
        series: DICOM series to read, where the folder holds several, or a part of one, see
            :func:`~mmpluld.io.read_volume`.
        identifiers: Write the scan's path and the UID of its series into the outputs, else its file name alone.
        tags: File with the names of the tags that the model predicts, see
            :func:`~mmpluld.structures.read_tag_names`; None numbers them.
        twin: Take the config's miniature.
        cfg_options: Changes to the config as "key.sub=value" strings.
        overwrite: Replace an earlier output.
        **settings: Changes to the rules that the config carries, such as ``score_thr=0.5``; see
            :class:`~mmpluld.inference.DetectionSettings` and its ``from_config``.

    Raises:
        InputError: If an input is missing, unreadable or does not fit, or ``out`` may not be replaced.
    """
    with output_folder(out, OUTPUTS, overwrite) as folder:
        tune_allocator()
        found = find_config(_config_of(checkpoint) if config is None else config, twin)
        checkpoint = local_checkpoint(checkpoint)
        cfg = load_config(found, cfg_options)
        check_config(cfg)
        rules = DetectionSettings.from_config(cfg, **settings)
        names = None if tags is None else read_tag_names(tags)
        volume = read_volume(scan, series=series)
        detector = VolumeDetector(cfg, checkpoint, rules, device, precision, batch_size, names)
        findings = detector.detect(volume)
        model = f"{found.name}, weights {checkpoint.name} (SHA-256 {sha256_of(checkpoint)[:16]})"
        volume = _named(volume, identifiers)
        volume = replace(volume, history=(*volume.history, *detector.history(volume), f"model {model}"))
        record = DetectionSet({_scan_name(scan): findings_to_detections(findings, volume)})
        record.save(folder / "detections.json")
        write_findings_csv(folder / "findings.csv", findings)
        details = {"Model": found.name, "Weights": checkpoint.name, "Score threshold": f"{rules.score_thr:g}"}
        write_report(folder / "report.html", volume, findings, details)
    return ScanResult(findings, *(Path(out) / name for name in OUTPUTS))


def _config_of(checkpoint: str | os.PathLike[str]) -> str:
    """Name of the config that weights of the zoo belong to."""
    text = os.fspath(checkpoint)
    if not text.startswith("zoo:"):
        raise InputError(f"{text}: the config of these weights is not known; give it with --config")
    return text.removeprefix("zoo:")


def _named(volume: CTVolume, identifiers: bool) -> CTVolume:
    """The volume as outputs name it; folders above a scan often are named after the patient."""
    if identifiers:
        return replace(volume, history=(*volume.identifiers, *volume.history))
    return replace(volume, source=Path(volume.source).resolve().name, identifiers=())


def _scan_name(scan: str | os.PathLike[str]) -> str:
    """Name of a scan file without its suffix, or of a folder."""
    name = Path(scan).resolve().name
    for suffix in VOLUME_SUFFIXES:
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name
