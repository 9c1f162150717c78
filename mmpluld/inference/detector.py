"""From a scan on disk to findings: the detector that Python callers and ``mmpluld detect`` use."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmpluld.errors import InputError, counted, printable
from mmpluld.evaluation.operating_points import OperatingPoint, OperatingPoints
from mmpluld.inference.findings import Findings
from mmpluld.inference.formats import check_formats, check_scan
from mmpluld.inference.model_choice import ModelFiles, check_weights, choose_model
from mmpluld.inference.running import (
    FPRMode,
    Precision,
    check_batch_size,
    check_device_name,
    check_fpr_mode,
    check_precision,
)
from mmpluld.inference.scan_store import RESERVED
from mmpluld.inference.settings import DetectionSettings, is_number
from mmpluld.io import read_scan
from mmpluld.io.archives import is_archive
from mmpluld.io.hounsfield import Units, check_finite, check_units, units_note
from mmpluld.io.hu_check import volume_fault
from mmpluld.io.readers import odd_slices
from mmpluld.io.scan_choice import choose_scans, result_names
from mmpluld.io.scans import ScanReader, find_scans, scan_title
from mmpluld.progress import note
from mmpluld.structures import CTVolume, read_tag_names
from mmpluld.structures.model_line import RescoringLine
from mmpluld.typing import StrPath

if TYPE_CHECKING:
    from mmpluld.inference.volume_detector import VolumeDetector

__all__ = ["Detector"]


class Detector:
    """A detector that turns CT scans into findings.

    Scans are read and checked before anything of the network is loaded, so that a wrong one is refused at once; the
    network is loaded for the first scan and kept for the next.

    Args:
        model: Name of a model of the zoo, with or without ``zoo:`` before it, or path or web address of a bundle; None
            with ``config`` and ``checkpoint`` means these, and without them the zoo's default.
        config: Path, or name of a config of the zoo, for weights of one's own.
        checkpoint: Weights that belong to the config's model: a path, a web address, or ``zoo:NAME``.
        device: ``cpu``, ``cuda``, ``cuda:N``, or ``auto``: the first CUDA device if there is one, else the CPU.
        precision: See :class:`~mmpluld.inference.VolumeDetector`.
        batch_size: Slices examined at once; None: 1 on a CPU, on a CUDA device as its memory allows.
        fp_rate: False positives per volume or image, as the operating points count them, that the score threshold is
            chosen for; None: ``score_thr`` is, or where that is not given either, the threshold that the model was
            published with.
        operating_points: File of ``mmpluld evaluate --operating-points``; None takes those of the bundle.
        tags: File with the names of the tags that the model predicts, see
            :func:`~mmpluld.structures.read_tag_names`; None numbers them.
        twin: Take the config's miniature.
        cfg_options: Changes to the config as "key.sub=value" strings.
        fpr: Weights of false-positive reduction; None takes those that the config is tested with or that the bundle
            holds, if there are such.
        fpr_config, fpr_mode: ``config`` and ``mode`` of :func:`~mmpluld.inference.rescore.load_rescorer`.
        no_fpr: Leave false-positive reduction out.
        **rules: Changes to the rules that the config carries, such as ``score_thr=0.5``; see
            :class:`~mmpluld.inference.DetectionSettings` and its ``from_config``.

    Raises:
        InputError: If the model is unknown, weights or config are missing, arguments contradict each other, there is
            no such rule, or a value is not allowed.
    """

    def __init__(
        self,
        model: StrPath | None = None,
        *,
        config: StrPath | None = None,
        checkpoint: StrPath | None = None,
        device: str = "auto",
        precision: Precision = "fp32",
        batch_size: int | None = None,
        fp_rate: float | None = None,
        operating_points: StrPath | None = None,
        tags: StrPath | None = None,
        twin: bool = False,
        cfg_options: Sequence[str] | None = None,
        fpr: StrPath | None = None,
        fpr_config: StrPath | None = None,
        fpr_mode: FPRMode | None = None,
        no_fpr: bool = False,
        **rules: Any,
    ) -> None:
        check_device_name(device)
        check_precision(precision)
        if batch_size is not None:
            check_batch_size(batch_size)
        if fpr_mode is not None:
            check_fpr_mode(fpr_mode)
        if no_fpr and (fpr or fpr_config or fpr_mode):
            raise InputError("--no-fpr contradicts the other options of false-positive reduction; leave one out")
        if fp_rate is not None and not is_number(fp_rate):
            raise InputError(f"--fp-rate is {fp_rate!r}; needed is a number of false positives")
        if fp_rate is not None and "score_thr" in rules:
            raise InputError(
                f"--fp-rate {fp_rate:g} and --score-thr {rules['score_thr']} both give the threshold; leave one out"
            )
        if fp_rate is None and operating_points is not None:
            raise InputError(f"{operating_points}: operating points choose nothing without --fp-rate; give one")
        DetectionSettings.check_changes(rules, rescored=not no_fpr)  # whether they are is known when the model is read
        self.model = choose_model(model, config, checkpoint, twin)
        if fpr is not None:
            check_weights(fpr)
        self.fp_rate = fp_rate
        self.points = None if operating_points is None else OperatingPoints.load(operating_points)
        self.twin, self.cfg_options = twin, cfg_options
        self.device, self.precision, self.batch_size = device, precision, batch_size
        self.tag_names = None if tags is None else read_tag_names(tags)
        self.fpr, self.fpr_config, self.fpr_mode, self.no_fpr = fpr, fpr_config, fpr_mode, no_fpr
        self.rules = rules

    def __repr__(self) -> str:
        return f"<Detector {str(self.model.checkpoint)!r} on {self.device}, {self.precision}>"

    def __call__(
        self,
        scan: StrPath | CTVolume,
        *,
        series: str | int | None = None,
        units: Units | None = None,
        formats: Sequence[str] = (),
    ) -> Findings:
        """Detect lesions in a scan; what was assumed of it is noted on standard error.

        Args:
            scan: NIfTI, MHD/MHA or NRRD/NHDR file, DICOM folder, DICOMDIR, or zip archive of these; or a volume, such
                as ``CTVolume.from_canonical(array, spacing_mm)`` makes of an array, and
                :func:`~mmpluld.io.volume_from_nibabel` or :func:`~mmpluld.io.volume_from_sitk` of an image.
            series: Scan to read, where there are several, or a part of a DICOM series, see
                :func:`~mmpluld.io.scan_choice.choose_scans`.
            units: ``hu`` to take the values for HU where they do not look like it.
            formats: What the findings will be written in: a scan that one of them cannot hold is refused at once.

        Raises:
            InputError: If the scan is missing, unreadable or does not fit the model, or the model does not load.
        """
        if formats:
            check_formats(formats)
        if not isinstance(scan, (str, os.PathLike, CTVolume)):
            raise InputError(
                f"the scan is a {type(scan).__name__}; give a path, or the volume that CTVolume.from_canonical(array, "
                "spacing_mm) makes of an array in HU, or mmpluld.io.volume_from_nibabel or volume_from_sitk of an image"
            )
        series = None if series is None else str(series)
        if isinstance(scan, CTVolume):
            return self.examine(_checked_volume(scan, series, units), printable(scan_title(Path(scan.source))), formats)
        return self.examine(read_scan(scan, series, units), printable(scan_title(Path(scan))), formats)

    def each(
        self, inputs: StrPath | Sequence[StrPath], *, series: str | int | None = None, units: Units | None = None
    ) -> Iterator[tuple[str, Findings | InputError]]:
        """Detect lesions in each scan of some inputs, one after the other; one that is refused stops none.

        Nothing is kept of a scan that the caller does not keep: memory is that of one.

        Args:
            inputs: Files and folders, also of many patients, see :func:`~mmpluld.io.scans.find_scans`.
            series, units: As for a call of the detector; ``all`` takes every series.

        Yields:
            A name that no other has, which is that of the result folder of ``mmpluld detect``; and the findings, or why
            there are none.

        Raises:
            InputError: No scan is meant, or the model does not load.
        """
        places = [inputs] if isinstance(inputs, (str, os.PathLike)) else inputs
        chosen = None if series is None else str(series)
        with ScanReader() as reader:
            scans = choose_scans(find_scans(places, reader, chosen), chosen)
            self.load()
            for name, scan in zip(result_names(scans, RESERVED), scans, strict=True):
                try:
                    volume = reader.read(scan, units)
                    kept = () if is_archive(scan.given) else volume.source_files  # what was unpacked will be removed
                    found = self.examine(replace(volume, source_files=kept), name, place=scan.place)
                except InputError as error:
                    yield name, error
                    continue
                del volume  # the caller has it with the findings, for as long as they are kept
                yield name, found
                del found

    def examine(
        self, volume: CTVolume, name: str, formats: Sequence[str] = (), place: StrPath | None = None
    ) -> Findings:
        """Detect lesions in a scan that is read; what was assumed of it is noted on standard error.

        Args:
            volume: The scan.
            name: Of the scan in records.
            formats: As for a call of the detector.
            place: Where it lies, for the notes; None: the volume's ``source``, which scans of one input share.

        Raises:
            InputError: If the scan does not fit the model or the formats, or the model does not load.
        """
        volume = replace(volume, history=(*volume.history, *odd_slices(volume)))
        for line in volume.history:
            note(f"{volume.source if place is None else printable(str(place))}: {line}")
        check_scan(formats, volume)
        loaded = self._network
        findings = loaded.detector.detect(volume)
        history = (*volume.history, *loaded.detector.history(volume), *loaded.history)
        return Findings(name, replace(volume, history=history), tuple(findings), loaded.details)

    def load(self) -> None:
        """Load the network now, if it is not yet.

        Raises:
            InputError: It does not load, or an option does not fit it.
        """
        _ = self._network

    @property
    def volume_detector(self) -> VolumeDetector:
        """What runs the network over a volume; it is loaded for this, like all below."""
        return self._network.detector

    @property
    def details(self) -> dict[str, str]:
        """What reports say of the model, name to text: ``Model``, ``Weights``, ``Score threshold`` and others."""
        return dict(self._network.details)

    @property
    def settings(self) -> dict[str, Any]:
        """All that decides what is found, in plain values: two detectors that agree in it find the same."""
        return dict(self._network.settings)

    @cached_property
    def _network(self) -> _Loaded:
        # Only now: to import the network's libraries takes seconds.
        from mmpluld.engine.device import chosen_batch_size, chosen_device
        from mmpluld.inference.rescore import rescorer_of_test
        from mmpluld.inference.volume_detector import VolumeDetector

        files = self.model.files(self.cfg_options, self.twin)
        chosen = dict(self.rules)
        device = chosen_device(self.device)
        reduction = None if self.no_fpr else _reduction(self.fpr, self.fpr_config, self.fpr_mode, files)
        rescorer = None if reduction is None else rescorer_of_test(reduction, device, self.precision)
        linking = DetectionSettings.linking_of(files.config, **chosen)
        point = self._operating_point(files, linking, None if rescorer is None else rescorer.line)
        if point is not None:
            chosen["score_thr"] = point.score_thr
        rules = DetectionSettings.from_config(files.config, rescored=rescorer is not None, **chosen)
        batch_size = chosen_batch_size(device) if self.batch_size is None else self.batch_size
        detector = VolumeDetector(
            files.config,
            files.weights,
            rules,
            device,
            self.precision,
            batch_size,
            self.tag_names,
            rescorer=rescorer,
        )
        note(f"model {files.name} on {device}, {self.precision}, {counted(batch_size, 'slice')} at once")
        details = {"Model": files.name, "Weights": files.weights.name, "Score threshold": f"{rules.score_thr:g}"}
        history = [files.describe()]
        if point is not None:
            note(point.describe())
            details["Operating point"] = point.describe().partition(": ")[2]  # the threshold has a field of its own
            history.append(point.describe())
        settings: dict[str, Any] = {
            "config": files.name,
            "config_sha256": files.config_sha256,
            "checkpoint_sha256": files.weights_sha256,
            "rules": asdict(rules),
            "precision": self.precision,
            "fpr": None if detector.rescorer is None else [detector.rescorer.name, detector.rescorer.mode],
            "tags": self.tag_names,
        }
        return _Loaded(detector, tuple(history), details, settings)

    def _operating_point(
        self, files: ModelFiles, linking: str, rescoring: RescoringLine | None
    ) -> OperatingPoint | None:
        """The point of ``fp_rate``, or the model's own where no threshold is given; None: the usual threshold.

        Raises:
            InputError: The rate has no point, or false-positive reduction, config or linking are changed, so that the
                findings are not those that the points were measured with.
        """
        changed = self._change_of_scores(files)
        if self.fp_rate is None:
            given = "score_thr" in self.rules or files.threshold_changed
            point = None if given else files.default_point(linking)
            if point is not None and changed is not None:
                note(
                    f"{files.name}: its score threshold of {point.score_thr:g} does not hold with {changed} and is "
                    "not used"
                )
            return point if changed is None else None
        if self.points is None and changed is not None:
            raise InputError(
                f"{files.name}: its operating points do not hold with {changed}; leave that out, measure new ones and "
                "give them with --operating-points, or use --score-thr"
            )
        return files.operating_point(self.fp_rate, self.points, linking, rescoring)

    def _change_of_scores(self, files: ModelFiles) -> str | None:
        """The option that makes scores others than the model's own, if one does."""
        changed = {
            "--fpr": self.fpr is not None,
            "--fpr-mode": self.fpr_mode is not None,
            "--fpr-config": self.fpr_config is not None,
            "--no-fpr": self.no_fpr and bool(files.reduction()),
            "--cfg-options": files.scores_changed,
        }
        return next((name for name, given in changed.items() if given), None)


@dataclass(frozen=True)
class _Loaded:
    """A network on its device, what histories and reports say of it, and all that decides what it finds."""

    detector: VolumeDetector
    history: tuple[str, ...]
    details: dict[str, str]
    settings: dict[str, Any]


def _reduction(
    fpr: StrPath | None, config: StrPath | None, mode: FPRMode | None, files: ModelFiles
) -> dict[str, Any] | None:
    """False-positive reduction as given, else as the detector is tested or its bundle has it; None: none."""
    found: dict[str, Any] = {"checkpoint": fpr} if fpr else files.reduction()
    changes = {"config": config, "mode": mode}
    if not found and (config or mode):
        raise InputError("no weights of false-positive reduction; give them with --fpr")
    return found | {key: value for key, value in changes.items() if value} or None


def _checked_volume(volume: CTVolume, series: str | None, units: Units | None) -> CTVolume:
    """A volume of the caller, whose values are looked at as those of a file are.

    Raises:
        InputError: They are not finite, or not HU as far as can be told, or a series is chosen, which a volume has not.
    """
    if series is not None:
        raise InputError(
            f"{volume.source}: series {series!r} chooses among DICOM files; a volume has none, leave it out"
        )
    check_units(units)
    check_finite(volume.array, volume.source)
    if fault := volume_fault(volume.array_to_source()):
        return replace(volume, history=(*volume.history, units_note(volume.source, fault, units)))
    return volume
