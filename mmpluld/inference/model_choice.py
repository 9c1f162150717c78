"""Which model detection runs: one of the zoo, a bundle, or a config with weights of its own."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmpluld.errors import InputError, did_you_mean
from mmpluld.evaluation.operating_points import OperatingPoint, OperatingPoints
from mmpluld.inference.settings import DetectionSettings, reduction_of_test
from mmpluld.inputs import file_size, sha256_of
from mmpluld.progress import note
from mmpluld.structures.model_line import ModelLine, RescoringLine, short_digest
from mmpluld.typing import StrPath
from mmpluld.zoo.bundle import FPR, POINTS, Bundle, is_bundle
from mmpluld.zoo.download import local_checkpoint
from mmpluld.zoo.index import default_model, get_model, load_index
from mmpluld.zoo.transfer import is_web_address

if TYPE_CHECKING:
    from mmengine.config import Config

__all__ = ["ChosenModel", "ModelFiles", "check_weights", "choose_model"]


@dataclass(frozen=True)
class ModelFiles:
    """What a model is made of, on this machine.

    Attributes:
        name: That of its config.
        config: Loaded, with the changes asked for, and checked.
        weights: File of the weights: a bundle or a checkpoint.
        bundle: The bundle; None for a checkpoint.
        scores_changed: The changes make other scores than the bundle's, whose operating points hold no more.
        threshold_changed: The changes give findings another score threshold.
    """

    name: str
    config: Config
    weights: Path
    bundle: Bundle | None
    scores_changed: bool = False
    threshold_changed: bool = False

    @cached_property
    def config_sha256(self) -> str:
        """Digest of what decides in the config what is found."""
        from mmpluld.engine.config_digest import config_digest

        return config_digest(self.config)

    @cached_property
    def weights_sha256(self) -> str:
        """Digest of the file of weights."""
        return sha256_of(self.weights)

    def describe(self) -> str:
        """The line of a history that says which model it was."""
        return ModelLine.text(self.name, self.config_sha256, self.weights.name, self.weights_sha256)

    def reduction(self) -> dict[str, Any]:
        """False-positive reduction that the model is tested with or carries; empty if there is none."""
        tested = reduction_of_test(self.config)
        if tested or self.bundle is None or f"{FPR}config.json" not in self.bundle.members:
            return tested
        return {"checkpoint": self.bundle.path}

    def default_point(self, linking: str) -> OperatingPoint | None:
        """The operating point that the model was published with as its default; None if there is none.

        Args:
            linking: Rules in words by which 2D boxes will be linked; a note says so if the point is of others.
        """
        points = self._own_points()
        if points is None or points.default_rate is None:
            return None
        self._check_linking(points, linking, asked=False)
        return points.at(points.default_rate)

    def operating_point(
        self, fp_rate: float, points: OperatingPoints | None, linking: str, rescoring: RescoringLine | None
    ) -> OperatingPoint:
        """The threshold for a rate of false positives.

        Args:
            fp_rate: False positives per volume or image, as the points count them.
            points: Those to take; None takes the bundle's.
            linking: Rules in words by which 2D boxes will be linked.
            rescoring: False-positive reduction that will take part in the scores; None: none.

        Raises:
            InputError: There are none, they are of other scores or findings, or the rate is none that was measured.
        """
        if points is not None:
            self._check_origin(points)
            self._check_rescoring(points, rescoring)
        points = points or self._own_points()
        if points is None:
            raise InputError(
                f"{self.name}: has no operating points, so --fp-rate {fp_rate:g} has no threshold; give a file of "
                "`mmpluld evaluate --operating-points` with --operating-points, or use --score-thr"
            )
        self._check_linking(points, linking, asked=True)
        return points.at(fp_rate)

    def _check_origin(self, points: OperatingPoints) -> None:
        """Refuse operating points of other weights or settings, and say where a file does not tell whose they are."""
        names, own = {self.name}, {short_digest(self.weights_sha256)}
        if self.bundle is not None:  # it was made of a checkpoint, under a name that may be another
            names.add(self.bundle.provenance.get("config", self.name))
            own.add(short_digest(self.bundle.provenance.get("checkpoint_sha256", "")))
        if points.model not in (None, *names) or (points.weights is not None and points.weights not in own):
            raise InputError(
                f"{self.name}, {self.weights.name}: the operating points given were measured with "
                f"{ModelLine(str(points.model), points.weights)}, whose scores are others; give those of this model "
                "and its weights, or use --score-thr"
            )
        if points.config not in (None, short_digest(self.config_sha256)):
            raise InputError(
                f"{self.name}: the operating points given were measured with other settings of its config, such as "
                "--cfg-options; detect with those of the test, measure new points, or use --score-thr"
            )
        if points.weights is None:
            unknown = "model and weights" if points.model is None else "weights"
            note(f"operating points: of which {unknown} they are is not known; the rate holds for these alone")

    def _check_rescoring(self, points: OperatingPoints, rescoring: RescoringLine | None) -> None:
        """Refuse operating points of scores in which false-positive reduction takes another part, and say where it is
        another network's."""
        if points.fpr is None:
            return
        mode = "none" if rescoring is None else rescoring.mode
        if points.fpr != mode:
            wanted = {"none": "--no-fpr"}.get(points.fpr, f"--fpr WEIGHTS --fpr-mode {points.fpr}")
            raise InputError(
                f"{self.name}: the operating points given were measured with false-positive reduction: {points.fpr}, "
                f"asked for is {mode}; use {wanted}, measure new ones, or use --score-thr"
            )
        if rescoring is not None and points.fpr_network != rescoring.network:
            note(
                f"operating points: measured with false-positive reduction by {points.fpr_network}, now it is "
                f"{rescoring.network}; the rate holds for the former alone"
            )

    def _check_linking(self, points: OperatingPoints, linking: str, asked: bool) -> None:
        """Refuse operating points of boxes that were linked otherwise, or say so where no rate was asked for or where
        those of the config are only supposed."""
        measured = points.linking or DetectionSettings.linking_of(self.config)
        if linking == measured:
            return
        told = "measured" if points.linking is not None else "supposed to be measured, as its config has it,"
        differs = f"{told} with 2D boxes scored {measured}, asked for is {linking}"
        if asked and points.linking is not None:
            raise InputError(
                f"{self.name}: the operating points were {differs}; use the rules of the test, measure new points, or "
                "use --score-thr"
            )
        note(f"operating points: {differs}; the rate holds for the former alone")

    def _own_points(self) -> OperatingPoints | None:
        """Those of the bundle, if it has some."""
        if self.bundle is None or POINTS not in self.bundle.members:
            return None
        return OperatingPoints.parse(self.bundle.json(POINTS), f"{self.bundle.path}, {POINTS}")


@dataclass(frozen=True)
class ChosenModel:
    """A model that was chosen and looked for, as far as that takes no time.

    Attributes:
        config: Path or name; None for a bundle, which has its own.
        checkpoint: Weights or bundle: a path, a web address, or ``zoo:NAME``.
    """

    config: StrPath | None
    checkpoint: StrPath

    def files(self, cfg_options: Sequence[str] | None, twin: bool) -> ModelFiles:
        """Fetch and read them.

        Args:
            cfg_options: Changes to the config as "key.sub=value" strings.
            twin: Take the config's miniature.

        Raises:
            InputError: A file is missing, damaged or not accepted.
        """
        from mmpluld.engine.bundle_config import bundle_config
        from mmpluld.engine.config import apply_options, find_config, load_config
        from mmpluld.engine.config_check import check_config
        from mmpluld.engine.config_digest import config_digest

        weights = local_checkpoint(self.checkpoint)
        if self.config is not None:
            found = find_config(self.config, twin)
            cfg = load_config(found, cfg_options)
            check_config(cfg)
            return ModelFiles(found.name, cfg, weights, None)
        bundle = Bundle.open(weights)
        cfg = bundle_config(bundle)
        own, threshold = (config_digest(cfg), reduction_of_test(cfg)), _threshold(cfg)
        if cfg_options:
            apply_options(cfg, cfg_options, weights)
            check_config(cfg)
        changed = own != (config_digest(cfg), reduction_of_test(cfg))
        return ModelFiles(bundle.name, cfg, weights, bundle, changed, threshold != _threshold(cfg))


def _threshold(config: Config) -> Any:
    """The score from which on boxes are findings, as a config has it; None where it has none."""
    return (config.get("test_cfg") or {}).get("score_thr")


def choose_model(
    model: StrPath | None, config: StrPath | None, checkpoint: StrPath | None, twin: bool = False
) -> ChosenModel:
    """The model that is meant, looked for without loading a network's libraries.

    Args:
        model: Name in the zoo, with or without ``zoo:``, or path or web address of a bundle.
        config, checkpoint: A config and its weights, instead. None of the three: the zoo's default model.
        twin: Take the config's miniature.

    Raises:
        InputError: What is meant is unknown, missing, or contradicts itself.
    """
    if model is not None or (config is None and checkpoint is None):
        if config is not None or checkpoint is not None:
            other = "--config" if config is not None else "--checkpoint"
            raise InputError(f"--model {model} brings config and weights, which {other} contradicts; leave one out")
        if twin:
            raise InputError("--twin makes a config its miniature, and a model has its own config; leave one out")
        return ChosenModel(None, _bundle_of(os.fspath(default_model().name if model is None else model)))
    if checkpoint is None:
        raise InputError(f"{config}: is a config without weights; give them with --checkpoint, or --model alone")
    if config is None:
        raise InputError(
            f"{os.fspath(checkpoint)}: the config of these weights is not known; give it with --config, or a "
            "bundle or a model of the zoo with --model"
        )
    check_weights(checkpoint)
    _check_config(config, twin)
    return ChosenModel(config, checkpoint)


def _bundle_of(model: str) -> str:
    """Where the bundle of a model is, as ``local_checkpoint`` takes it."""
    models = load_index()
    name = model.removeprefix("zoo:")
    if name in models:
        _ = models[name].weights_url  # says what to do where there are none
        return f"zoo:{name}"
    if model != name:
        get_model(name)  # says what is nearest
    if is_web_address(model):
        return model
    if not Path(model).exists():
        hint = did_you_mean(model, models, "`mmpluld models` lists those of the zoo")
        raise InputError(f"{model!r} is no model of the zoo, and no file{hint}")
    if not is_bundle(model):
        raise InputError(f"{model}: is no bundle; a checkpoint is given as --checkpoint {model} with --config CONFIG")
    Bundle.open(model)
    return model


def check_weights(checkpoint: StrPath) -> None:
    """Refuse weights that are not there, as far as that can be told at once.

    Raises:
        InputError: If so.
    """
    text = os.fspath(checkpoint)
    if text.startswith("zoo:"):
        get_model(text.removeprefix("zoo:"))
    elif not is_web_address(text):
        file_size(Path(text), "a file of weights, a web address, or zoo:NAME")


def _check_config(config: StrPath, twin: bool) -> None:
    """Refuse a config that is not there; only a name that no model of the zoo has is looked for with MMEngine."""
    if not Path(config).is_file() and os.fspath(config) not in load_index():
        from mmpluld.engine.config import find_config

        find_config(config, twin)
