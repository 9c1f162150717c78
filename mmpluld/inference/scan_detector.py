"""From a scan on disk to findings: the detector that Python callers and ``mmpluld detect`` use."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmpluld.compat.allocator import tune_allocator
from mmpluld.errors import InputError, printable
from mmpluld.inference.findings import Findings
from mmpluld.inference.formats import check_formats, check_scan
from mmpluld.inputs import file_size
from mmpluld.io import VOLUME_SUFFIXES, read_volume
from mmpluld.io.hounsfield import Units
from mmpluld.progress import note
from mmpluld.structures import read_tag_names
from mmpluld.zoo.index import get_model, load_index

if TYPE_CHECKING:
    from mmpluld.inference.detector import Precision, VolumeDetector
    from mmpluld.inference.rescore import FPRMode

__all__ = ["Detector"]


class Detector:
    """A detector that turns CT scans into findings.

    Scans are read and checked before anything of the network is loaded, so that a wrong one is refused at once; the
    network is loaded for the first scan and kept for the next.

    Args:
        config: Path, or name of a config of the zoo; None takes that of a checkpoint ``zoo:NAME``.
        checkpoint: Weights that belong to the config's model: a path, a web address, or ``zoo:NAME``.
        device, precision, batch_size: See :class:`~mmpluld.inference.VolumeDetector`.
        tags: File with the names of the tags that the model predicts, see
            :func:`~mmpluld.structures.read_tag_names`; None numbers them.
        twin: Take the config's miniature.
        cfg_options: Changes to the config as "key.sub=value" strings.
        fpr: Weights of false-positive reduction; None takes those that the config is tested with, else those that the
            zoo names for a checkpoint ``zoo:NAME``, if there are such.
        fpr_config, fpr_mode: ``config`` and ``mode`` of :func:`~mmpluld.inference.rescore.load_rescorer`.
        no_fpr: Leave false-positive reduction out.
        **rules: Changes to the rules that the config carries, such as ``score_thr=0.5``; see
            :class:`~mmpluld.inference.DetectionSettings` and its ``from_config``.

    Raises:
        InputError: If weights or config are missing.
    """

    def __init__(
        self,
        config: str | os.PathLike[str] | None,
        checkpoint: str | os.PathLike[str],
        *,
        device: str = "cpu",
        precision: Precision = "fp32",
        batch_size: int = 1,
        tags: str | os.PathLike[str] | None = None,
        twin: bool = False,
        cfg_options: Sequence[str] | None = None,
        fpr: str | os.PathLike[str] | None = None,
        fpr_config: str | os.PathLike[str] | None = None,
        fpr_mode: FPRMode | None = None,
        no_fpr: bool = False,
        **rules: Any,
    ) -> None:
        _check_weights(checkpoint)
        if fpr is not None:
            _check_weights(fpr)
        self.config = _config_of(checkpoint) if config is None else config
        _check_config(self.config, twin)
        self.checkpoint = checkpoint
        self.twin, self.cfg_options = twin, cfg_options
        self.device, self.precision, self.batch_size = device, precision, batch_size
        self.tag_names = None if tags is None else read_tag_names(tags)
        self.fpr, self.fpr_config, self.fpr_mode, self.no_fpr = fpr, fpr_config, fpr_mode, no_fpr
        self.rules = rules
        self._loaded: _Loaded | None = None

    def __call__(
        self,
        scan: str | os.PathLike[str],
        *,
        series: str | None = None,
        units: Units | None = None,
        formats: Sequence[str] = (),
    ) -> Findings:
        """Detect lesions in a scan; what was assumed of it is noted on standard error.

        Args:
            scan: NIfTI, MHD/MHA or NRRD/NHDR file, or DICOM folder.
            series: DICOM series to read, where the folder holds several, or a part of one, see
                :func:`~mmpluld.io.read_volume`.
            units: ``hu`` to take the values for HU where they do not look like it.
            formats: What the findings will be written in: a scan that one of them cannot hold is refused at once.

        Raises:
            InputError: If the scan is missing, unreadable or does not fit the model, or the model does not load.
        """
        tune_allocator()
        if formats:
            check_formats(formats)
        volume = read_volume(scan, series=series, units=units)
        for line in volume.history:
            note(f"{volume.source}: {line}")
        check_scan(formats, volume)
        loaded = self.load()
        findings = loaded.detector.detect(volume)
        history = (*volume.history, *loaded.detector.history(volume), f"model {loaded.model}")
        return Findings(_scan_name(scan), replace(volume, history=history), tuple(findings), loaded.details)

    def load(self) -> _Loaded:
        """The network and its rules, loaded now if they are not yet."""
        if self._loaded is None:
            self._loaded = self._load()
        return self._loaded

    def _load(self) -> _Loaded:
        # Only now: to import the network's libraries takes seconds.
        from mmpluld.engine.config import find_config, load_config
        from mmpluld.engine.config_check import check_config
        from mmpluld.inference.detector import VolumeDetector
        from mmpluld.inference.rescore import rescorer_of_test
        from mmpluld.inference.settings import DetectionSettings
        from mmpluld.zoo.download import local_checkpoint, sha256_of

        found = find_config(self.config, self.twin)
        cfg = load_config(found, self.cfg_options)
        check_config(cfg)
        rules = DetectionSettings.from_config(cfg, **self.rules)
        weights = local_checkpoint(self.checkpoint)
        reduction = None
        if not self.no_fpr:
            reduction = _reduction(self.fpr, self.fpr_config, self.fpr_mode, cfg, self.checkpoint)
        detector = VolumeDetector(
            cfg,
            weights,
            rules,
            self.device,
            self.precision,
            self.batch_size,
            self.tag_names,
            rescorer=None if reduction is None else rescorer_of_test(reduction, self.device, self.precision),
        )
        details = {"Model": found.name, "Weights": weights.name, "Score threshold": f"{rules.score_thr:g}"}
        return _Loaded(detector, f"{found.name}, weights {weights.name} (SHA-256 {sha256_of(weights)[:16]})", details)


@dataclass(frozen=True)
class _Loaded:
    """A network on its device, its name for histories, and what reports say of it."""

    detector: VolumeDetector
    model: str
    details: dict[str, str]


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


def _scan_name(scan: str | os.PathLike[str]) -> str:
    """Name of a scan file without its suffix, or of a folder, as text that a record can hold."""
    name = printable(Path(scan).resolve().name)
    for suffix in VOLUME_SUFFIXES:
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name
