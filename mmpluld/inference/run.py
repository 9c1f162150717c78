"""From a scan on disk to findings on disk: what ``mmpluld detect`` calls."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmpluld.compat.allocator import tune_allocator
from mmpluld.errors import InputError, printable
from mmpluld.inference.output import output_folder
from mmpluld.inputs import file_size
from mmpluld.io import VOLUME_SUFFIXES, read_volume, write_findings_csv
from mmpluld.io.hounsfield import Units
from mmpluld.progress import note
from mmpluld.structures import CTVolume, DetectionSet, Finding, findings_to_detections, read_tag_names
from mmpluld.zoo.index import get_model, load_index

if TYPE_CHECKING:
    from mmpluld.inference.detector import Precision
    from mmpluld.inference.rescore import FPRMode

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
    units: Units | None = None,
    identifiers: bool = False,
    tags: str | os.PathLike[str] | None = None,
    twin: bool = False,
    cfg_options: Sequence[str] | None = None,
    overwrite: bool = False,
    fpr: str | os.PathLike[str] | None = None,
    fpr_config: str | os.PathLike[str] | None = None,
    fpr_mode: FPRMode | None = None,
    no_fpr: bool = False,
    **settings: Any,
) -> ScanResult:
    """Detect lesions in a scan and write what was found.

    ``out`` becomes a folder with ``detections.json`` (detection record in voxels of the scan's file, under the name
    of the scan without suffix; ``mmpluld evaluate`` reads it), ``findings.csv`` (positions in LPS millimetres) and
    ``report.html``. The folder appears whole at the end, or not at all. The scan is read and checked before anything
    of the network is loaded, so that a wrong one is refused at once; what was assumed of it is noted on standard error.

    Args:
        scan: NIfTI, MHD/MHA or NRRD/NHDR file, or DICOM folder.
        config: Path, or name of a config of the zoo; None takes that of a checkpoint ``zoo:NAME``.
        checkpoint: Weights that belong to the config's model: a path, a web address, or ``zoo:NAME``.
        out: Folder to make.
        device, precision, batch_size: See :class:`~mmpluld.inference.VolumeDetector`.
        series: DICOM series to read, where the folder holds several, or a part of one, see
            :func:`~mmpluld.io.read_volume`.
        units: ``hu`` to take the values for HU where they do not look like it.
        identifiers: Write the scan's path and the UID of its series into the outputs, else its file name alone.
        tags: File with the names of the tags that the model predicts, see
            :func:`~mmpluld.structures.read_tag_names`; None numbers them.
        twin: Take the config's miniature.
        cfg_options: Changes to the config as "key.sub=value" strings.
        overwrite: Replace an earlier output.
        fpr: Weights of false-positive reduction; None takes those that the config is tested with, else those that the
            zoo names for a checkpoint ``zoo:NAME``, if there are such.
        fpr_config, fpr_mode: ``config`` and ``mode`` of :func:`~mmpluld.inference.rescore.load_rescorer`.
        no_fpr: Leave false-positive reduction out.
        **settings: Changes to the rules that the config carries, such as ``score_thr=0.5``; see
            :class:`~mmpluld.inference.DetectionSettings` and its ``from_config``.

    Raises:
        InputError: If an input is missing, unreadable or does not fit, or ``out`` may not be replaced.
    """
    with output_folder(out, OUTPUTS, overwrite) as folder:
        tune_allocator()
        _check_weights(checkpoint)
        if fpr is not None:
            _check_weights(fpr)
        if config is None:
            config = _config_of(checkpoint)
        _check_config(config, twin)
        names = None if tags is None else read_tag_names(tags)
        volume = read_volume(scan, series=series, units=units)
        for line in volume.history:
            note(f"{volume.source}: {line}")
        # Only now: to import the network's libraries takes seconds.
        from mmpluld.engine.config import find_config, load_config
        from mmpluld.engine.config_check import check_config
        from mmpluld.inference.detector import VolumeDetector
        from mmpluld.inference.rescore import rescorer_of_test
        from mmpluld.inference.settings import DetectionSettings
        from mmpluld.visualization import write_report
        from mmpluld.zoo.download import local_checkpoint, sha256_of

        found = find_config(config, twin)
        cfg = load_config(found, cfg_options)
        check_config(cfg)
        rules = DetectionSettings.from_config(cfg, **settings)
        weights = local_checkpoint(checkpoint)
        reduction = None if no_fpr else _reduction(fpr, fpr_config, fpr_mode, cfg, checkpoint)
        rescorer = None if reduction is None else rescorer_of_test(reduction, device, precision)
        detector = VolumeDetector(cfg, weights, rules, device, precision, batch_size, names, rescorer=rescorer)
        findings = detector.detect(volume)
        model = f"{found.name}, weights {weights.name} (SHA-256 {sha256_of(weights)[:16]})"
        volume = _named(volume, identifiers)
        volume = replace(volume, history=(*volume.history, *detector.history(volume), f"model {model}"))
        record = DetectionSet({_scan_name(scan): findings_to_detections(findings, volume)})
        record.save(folder / "detections.json")
        write_findings_csv(folder / "findings.csv", findings)
        details = {"Model": found.name, "Weights": weights.name, "Score threshold": f"{rules.score_thr:g}"}
        write_report(folder / "report.html", volume, findings, details)
    return ScanResult(findings, *(Path(out) / name for name in OUTPUTS))


def _config_of(checkpoint: str | os.PathLike[str]) -> str:
    """Name of the config that weights of the zoo belong to."""
    text = os.fspath(checkpoint)
    if not text.startswith("zoo:"):
        raise InputError(f"{text}: the config of these weights is not known; give it with --config")
    return text.removeprefix("zoo:")


def _reduction(
    fpr: str | os.PathLike[str] | None,
    config: str | os.PathLike[str] | None,
    mode: FPRMode | None,
    cfg: Mapping[str, Any],
    checkpoint: str | os.PathLike[str],
) -> dict[str, Any] | None:
    """False-positive reduction as given, else as the detector is tested, else as the zoo names it; None: none."""
    text = os.fspath(checkpoint)
    named = get_model(text.removeprefix("zoo:")).fpr if text.startswith("zoo:") else None
    default: dict[str, Any] = {"checkpoint": f"zoo:{named}"} if named else {}
    found: dict[str, Any] = {"checkpoint": fpr} if fpr else dict((cfg.get("test_cfg") or {}).get("fpr") or default)
    changes = {"config": config, "mode": mode}
    if not found and (config or mode):
        raise InputError("no weights of false-positive reduction; give them with --fpr")
    return found | {key: value for key, value in changes.items() if value} or None


def _check_weights(checkpoint: str | os.PathLike[str]) -> None:
    """Refuse weights that are not there, as far as that can be told at once."""
    text = os.fspath(checkpoint)
    if text.startswith("zoo:"):
        get_model(text.removeprefix("zoo:"))
    elif not text.startswith(("http://", "https://")):
        file_size(Path(text), "a file of weights, a web address, or zoo:NAME")


def _check_config(config: str | os.PathLike[str], twin: bool) -> None:
    """Refuse a config that is not there; only a name that no model of the zoo has is looked for with MMEngine."""
    if not Path(config).is_file() and os.fspath(config) not in load_index():
        from mmpluld.engine.config import find_config

        find_config(config, twin)


def _named(volume: CTVolume, identifiers: bool) -> CTVolume:
    """The volume as outputs name it; folders above a scan often are named after the patient."""
    if identifiers:
        return replace(volume, history=(*volume.identifiers, *volume.history))
    return replace(volume, source=Path(volume.source).resolve().name, identifiers=())


def _scan_name(scan: str | os.PathLike[str]) -> str:
    """Name of a scan file without its suffix, or of a folder, as text that a record can hold."""
    name = printable(Path(scan).resolve().name)
    for suffix in VOLUME_SUFFIXES:
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name
