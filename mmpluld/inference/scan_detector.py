"""From a scan on disk to findings: the detector that Python callers and ``mmpluld detect`` use."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmpluld.compat.allocator import tune_allocator
from mmpluld.errors import InputError, counted, printable
from mmpluld.inference.findings import Findings
from mmpluld.inference.formats import check_formats, check_scan
from mmpluld.inputs import file_size
from mmpluld.io import read_scan
from mmpluld.io.hounsfield import Units
from mmpluld.io.scans import without_suffix
from mmpluld.progress import note
from mmpluld.structures import CTVolume, read_tag_names
from mmpluld.zoo.index import default_model, get_model, load_index

if TYPE_CHECKING:
    from mmpluld.inference.detector import Precision, VolumeDetector
    from mmpluld.inference.rescore import FPRMode

__all__ = ["Detector"]


class Detector:
    """A detector that turns CT scans into findings.

    Scans are read and checked before anything of the network is loaded, so that a wrong one is refused at once; the
    network is loaded for the first scan and kept for the next.

    Args:
        model: Name of a model of the zoo, with or without ``zoo:`` before it; None with ``config`` and ``checkpoint``
            means these, and without them the zoo's default.
        config: Path, or name of a config of the zoo, for weights of one's own.
        checkpoint: Weights that belong to the config's model: a path, a web address, or ``zoo:NAME``.
        device: ``cpu``, ``cuda``, ``cuda:N``, or ``auto``: the first CUDA device if there is one, else the CPU.
        precision: See :class:`~mmpluld.inference.VolumeDetector`.
        batch_size: Slices examined at once; None: 1 on a CPU, on a CUDA device as its memory allows.
        tags: File with the names of the tags that the model predicts, see
            :func:`~mmpluld.structures.read_tag_names`; None numbers them.
        twin: Take the config's miniature.
        cfg_options: Changes to the config as "key.sub=value" strings.
        fpr: Weights of false-positive reduction; None takes those that the config is tested with, else those that the
            zoo names for the model, if there are such.
        fpr_config, fpr_mode: ``config`` and ``mode`` of :func:`~mmpluld.inference.rescore.load_rescorer`.
        no_fpr: Leave false-positive reduction out.
        **rules: Changes to the rules that the config carries, such as ``score_thr=0.5``; see
            :class:`~mmpluld.inference.DetectionSettings` and its ``from_config``.

    Raises:
        InputError: If the model is unknown, weights or config are missing, or they contradict each other.
    """

    def __init__(
        self,
        model: str | None = None,
        *,
        config: str | os.PathLike[str] | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        device: str = "auto",
        precision: Precision = "fp32",
        batch_size: int | None = None,
        tags: str | os.PathLike[str] | None = None,
        twin: bool = False,
        cfg_options: Sequence[str] | None = None,
        fpr: str | os.PathLike[str] | None = None,
        fpr_config: str | os.PathLike[str] | None = None,
        fpr_mode: FPRMode | None = None,
        no_fpr: bool = False,
        **rules: Any,
    ) -> None:
        self.config, self.checkpoint = _chosen(model, config, checkpoint)
        _check_weights(self.checkpoint)
        if fpr is not None:
            _check_weights(fpr)
        _check_config(self.config, twin)
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
            scan: NIfTI, MHD/MHA or NRRD/NHDR file, DICOM folder, DICOMDIR, or zip archive of these.
            series: Scan to read, where there are several, or a part of a DICOM series, see
                :func:`~mmpluld.io.scan_choice.choose_scans`.
            units: ``hu`` to take the values for HU where they do not look like it.
            formats: What the findings will be written in: a scan that one of them cannot hold is refused at once.

        Raises:
            InputError: If the scan is missing, unreadable or does not fit the model, or the model does not load.
        """
        tune_allocator()
        if formats:
            check_formats(formats)
        return self.examine(read_scan(scan, series, units), _scan_name(scan), formats)

    def examine(self, volume: CTVolume, name: str, formats: Sequence[str] = ()) -> Findings:
        """Detect lesions in a scan that is read; what was assumed of it is noted on standard error.

        Args:
            volume: The scan.
            name: Of the scan in records.
            formats: As for a call of the detector.

        Raises:
            InputError: If the scan does not fit the model or the formats, or the model does not load.
        """
        for line in volume.history:
            note(f"{volume.source}: {line}")
        check_scan(formats, volume)
        loaded = self.load()
        findings = loaded.detector.detect(volume)
        history = (*volume.history, *loaded.detector.history(volume), f"model {loaded.model}")
        return Findings(name, replace(volume, history=history), tuple(findings), loaded.details)

    def load(self) -> _Loaded:
        """The network and its rules, loaded now if they are not yet."""
        if self._loaded is None:
            self._loaded = self._load()
        return self._loaded

    def _load(self) -> _Loaded:
        # Only now: to import the network's libraries takes seconds.
        from mmpluld.engine.config import find_config, load_config
        from mmpluld.engine.config_check import check_config
        from mmpluld.engine.device import chosen_batch_size, chosen_device
        from mmpluld.inference.detector import VolumeDetector
        from mmpluld.inference.rescore import rescorer_of_test
        from mmpluld.inference.settings import DetectionSettings, config_digest
        from mmpluld.zoo.download import local_checkpoint, sha256_of

        found = find_config(self.config, self.twin)
        cfg = load_config(found, self.cfg_options)
        check_config(cfg)
        rules = DetectionSettings.from_config(cfg, **self.rules)
        device = chosen_device(self.device)
        batch_size = chosen_batch_size(device) if self.batch_size is None else self.batch_size
        weights = local_checkpoint(self.checkpoint)
        reduction = None
        if not self.no_fpr:
            reduction = _reduction(self.fpr, self.fpr_config, self.fpr_mode, cfg, self.checkpoint)
        detector = VolumeDetector(
            cfg,
            weights,
            rules,
            device,
            self.precision,
            batch_size,
            self.tag_names,
            rescorer=None if reduction is None else rescorer_of_test(reduction, device, self.precision),
        )
        note(f"model {found.name} on {device}, {self.precision}, {counted(batch_size, 'slice')} at once")
        details = {"Model": found.name, "Weights": weights.name, "Score threshold": f"{rules.score_thr:g}"}
        digest = sha256_of(weights)
        settings: dict[str, Any] = {
            "config": found.name,
            "config_sha256": config_digest(cfg),
            "checkpoint_sha256": digest,
            "rules": asdict(rules),
            "precision": self.precision,
            "fpr": None if detector.rescorer is None else [detector.rescorer.name, detector.rescorer.mode],
            "tags": self.tag_names,
        }
        model = f"{found.name}, weights {weights.name} (SHA-256 {digest[:16]})"
        return _Loaded(detector, model, details, settings)


@dataclass(frozen=True)
class _Loaded:
    """A network on its device, its name for histories, what reports say of it, and all that decides what it finds."""

    detector: VolumeDetector
    model: str
    details: dict[str, str]
    settings: dict[str, Any]


def _chosen(
    model: str | None, config: str | os.PathLike[str] | None, checkpoint: str | os.PathLike[str] | None
) -> tuple[str | os.PathLike[str], str | os.PathLike[str]]:
    """Config and weights that are meant."""
    if model is None and config is None and checkpoint is None:
        model = default_model().name
    if model is None:
        if checkpoint is None:
            raise InputError(f"{config}: is a config without weights; give them with --checkpoint, or --model alone")
        if config is None:
            raise InputError(
                f"{os.fspath(checkpoint)}: the config of these weights is not known; give it with --config, or a model "
                "of the zoo with --model NAME"
            )
        return config, checkpoint
    if config is not None or checkpoint is not None:
        other = "--config" if config is not None else "--checkpoint"
        raise InputError(f"--model {model} has config and weights of its own, which {other} contradicts; leave one out")
    name = get_model(model.removeprefix("zoo:")).name
    return name, f"zoo:{name}"


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
    return without_suffix(printable(Path(scan).resolve().name))
