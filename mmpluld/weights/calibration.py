"""Making the scores of a detector's experts comparable: Platt scaling of each on the same data."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from scipy.optimize import minimize
from scipy.special import expit, logit

from mmpluld.atomic import atomic_path
from mmpluld.engine.checkpoint import checkpoint_bytes, load_checkpoint_safely, put_weights
from mmpluld.engine.device import checked_device, chosen_device
from mmpluld.engine.run import prepare_config
from mmpluld.errors import InputError
from mmpluld.evaluation.functional import DEEPLESION_2D, match_detections
from mmpluld.models.roi_heads import ExpertBBoxHead
from mmpluld.outputs import check_output_file
from mmpluld.progress import track
from mmpluld.registry import build_model
from mmpluld.structures import instance_boxes, predicted_boxes, to_array
from mmpluld.typing import BoolArray, FloatArray, StrPath
from mmpluld.zoo.download import local_checkpoint

__all__ = [
    "BIAS_SD",
    "MIN_SCALE",
    "SCALE_SD",
    "ExpertFit",
    "calibrate",
    "command_to_test",
    "fit_platt",
    "log_loss",
    "mark_hits",
]

# The prior: scale is normal around 1, bias around 0, with these standard deviations. It weighs as much as a few boxes,
# so it decides only where there are no more.
SCALE_SD, BIAS_SD = 1.0, 5.0
MIN_SCALE = 0.01  # above 0, so that the order of an expert's boxes stays whatever the data say
# A box hits a lesion at IoU 0.5, as in the evaluation of key slices; a second box on the same lesion does not.
_PROTOCOL = replace(DEEPLESION_2D, name="calibration", duplicates="fp")
_PREFIX = "roi_head.bbox_head"


@dataclass(frozen=True)
class ExpertFit:
    """The calibration of one expert.

    Attributes:
        dataset: Name of the expert.
        num_boxes: Boxes it was fitted on.
        num_hits: Those that hit a lesion.
        scale, bias: What margins are multiplied by, above 0, and what is added then.
        loss_before, loss_after: Mean log loss of a box, in nats, without and with them; NaN without boxes.
    """

    dataset: str
    num_boxes: int
    num_hits: int
    scale: float
    bias: float
    loss_before: float
    loss_after: float


def log_loss(margins: FloatArray, hits: BoolArray, scale: float = 1.0, bias: float = 0.0) -> float:
    """Mean negative log likelihood, in nats, of ``hits`` (N,) under sigmoid(scale * margins + bias); NaN for N = 0."""
    if not len(margins):
        return float("nan")
    logits = scale * margins + bias
    return float((np.logaddexp(0, logits) - hits * logits).mean())


def fit_platt(margins: FloatArray, hits: BoolArray) -> tuple[float, float]:
    """Fit the probability sigmoid(scale * margin + bias) of a hit by logistic regression with a weak prior.

    The prior (``SCALE_SD``, ``BIAS_SD``) keeps the result finite with few or no hits, or where margins separate hits
    from misses; without boxes it alone remains: 1 and 0. The problem is convex, so there is one solution.

    Args:
        margins: Logit margins over background (N,), finite.
        hits: Whether each box hit a lesion (N,).

    Returns:
        Scale, at least ``MIN_SCALE``, and bias.

    Source: J. Platt, "Probabilistic Outputs for Support Vector Machines", 1999; a prior on the parameters replaces its
    smoothed targets.
    """
    count = max(len(margins), 1)  # a mean keeps the tolerances apart from the number of boxes

    def objective(point: FloatArray) -> tuple[float, FloatArray]:
        scale, bias = point
        logits = scale * margins + bias
        off_scale, off_bias = (scale - 1) / SCALE_SD, bias / BIAS_SD
        value = (np.logaddexp(0, logits) - hits * logits).sum() + (off_scale**2 + off_bias**2) / 2
        error = expit(logits) - hits
        slope = np.array([error @ margins + off_scale / SCALE_SD, error.sum() + off_bias / BIAS_SD])
        return value / count, slope / count

    found = minimize(
        objective,
        x0=np.array([1.0, 0.0]),
        jac=True,
        method="L-BFGS-B",
        bounds=[(MIN_SCALE, None), (None, None)],
        options={"ftol": 0.0, "gtol": 1e-10, "maxiter": 1000},
    )
    return float(found.x[0]), float(found.x[1])


def mark_hits(
    boxes: Sequence[FloatArray],
    margins: Sequence[FloatArray],
    truth: Sequence[FloatArray],
    ignored: Sequence[FloatArray],
) -> tuple[FloatArray, BoolArray]:
    """Say of each box of an expert whether it hits a lesion.

    A lesion is hit by the box of highest margin among those that overlap it with an IoU of 0.5 or more; every other box
    is a miss. Boxes that overlap an ignored lesion so, and hit none, are left out.

    Args:
        boxes, margins: Of each image (N, 4) and (N,).
        truth, ignored: Of each image (M, 4) lesions that count and (K, 4) that do not.

    Returns:
        Margins and hits (n,) of the boxes that are not left out, of all images, by falling margin.
    """
    matches = match_detections(boxes, margins, truth, _PROTOCOL, ignored=ignored)
    hits = np.zeros(len(matches.score), dtype=np.bool_)
    hits[matches.found_by[matches.found_by < len(hits)]] = True
    kept = hits | matches.false_positive
    return matches.score[kept], hits[kept]


def calibrate(
    config: StrPath,
    checkpoint: StrPath,
    out: StrPath,
    device: str = "auto",
    cfg_options: Sequence[str] | None = None,
    overwrite: bool = False,
    twin: bool = False,
) -> list[ExpertFit]:
    """Fit scale and bias of every expert on the config's validation data and write the weights with them.

    All experts examine the same slices, so that their scores mean the same: the probability of hitting a marked lesion.
    Each is fitted on the boxes left after its own threshold and suppression, as they are without calibration, gate and
    fusion. Earlier values in the checkpoint have no influence.

    Args:
        config: Path, or name of a config of the zoo, of a detector with an ``ExpertBBoxHead``.
        checkpoint: Its weights: path, web address, or ``zoo:NAME``.
        out: Checkpoint to write: all that ``checkpoint`` holds, with other ``scale`` and ``bias``.
        device: ``cpu``, ``cuda``, ``cuda:N``, or ``auto``: a GPU where there is one.
        cfg_options: Changes as "key.sub=value" strings.
        overwrite: Replace an existing ``out``; never the checkpoint itself.
        twin: Take the config's miniature.

    Returns:
        The fits, in the order of the experts.

    Raises:
        InputError: Bad config, one without these experts, missing data or data without lesions, weights of another
            model, no box to fit, a device that is not there, or ``out`` exists.
    """
    source = local_checkpoint(checkpoint)
    _check_out(out, source, overwrite)
    where = checked_device(chosen_device(device))
    cfg = prepare_config(config, None, cfg_options, "none", 0, twin)
    if cfg.get("val_dataloader") is None:
        raise InputError(f"{config}: has no val_dataloader; calibration needs one, of key slices with marked lesions")
    init_default_scope(cfg.get("default_scope", "mmpluld"))
    model = build_model(cfg)
    head = _expert_head(model, config)
    weights = load_checkpoint_safely(source)
    put_weights(model, weights, source)
    # As the experts alone score, and with nothing lost in the fusion.
    model.roi_head.test_cfg.update(calibrated=False, gated=False, experts=None, fusion=None, max_per_img=sys.maxsize)
    experts, truth, ignored = _examine(model.to(where).eval(), cfg.val_dataloader, len(head.datasets))
    if not sum(map(len, truth)):
        raise InputError(
            f"{config}: none of the {len(truth)} slices of val_dataloader has a lesion; check its ann_file, and that "
            "its pipeline has LoadAnnotations"
        )
    fits = [
        _fit(name, *mark_hits(boxes, margins, truth, ignored))
        for name, (boxes, margins) in zip(head.datasets, experts, strict=True)
    ]
    _write(weights, out, fits, config)
    return fits


def command_to_test(config: StrPath, out: StrPath, cfg_options: Sequence[str] | None = None, twin: bool = False) -> str:
    """The command that tests what :func:`calibrate` wrote with these arguments, calibration in effect."""
    changes = [*(cfg_options or []), "model.test_cfg.rcnn.calibrated=True"]
    miniature = ["--twin"] if twin else []
    return shlex.join(["mmpluld", "test", str(config), str(out), *miniature, "--cfg-options", *changes])


def _check_out(out: StrPath, source: Path, overwrite: bool) -> None:
    path = Path(out)
    if path.resolve() == source.resolve() or (path.exists() and source.exists() and path.samefile(source)):
        raise InputError(f"{out}: is the checkpoint itself; choose another name for the calibrated one")
    check_output_file(path)
    if path.exists() and not overwrite:
        raise InputError(f"{out}: exists already; choose another name or add --overwrite")


def _expert_head(model: Any, config: StrPath) -> ExpertBBoxHead:
    head = getattr(getattr(model, "roi_head", None), "bbox_head", None)
    if not isinstance(head, ExpertBBoxHead):
        raise InputError(
            f"{config}: model.roi_head.bbox_head is no ExpertBBoxHead, so there are no experts to calibrate; give a "
            "config of LENS on several datasets"
        )
    if head.num_classes != 1:
        raise InputError(f"{config}: num_classes is {head.num_classes}; calibration is for detectors of one class")
    return head


@torch.inference_mode()
def _examine(
    model: Any, dataloader: dict[str, Any], num_experts: int
) -> tuple[list[tuple[list[FloatArray], list[FloatArray]]], list[FloatArray], list[FloatArray]]:
    """Boxes and margins of each expert, lesions, and ignored lesions; all of them per image."""
    experts: list[tuple[list[FloatArray], list[FloatArray]]] = [([], []) for _ in range(num_experts)]
    truth, ignored = [], []
    for data in track(Runner.build_dataloader(dataloader), "calibrating"):
        for sample in model.test_step(data):
            truth.append(instance_boxes(sample.get("gt_instances", {})))
            ignored.append(instance_boxes(sample.get("ignored_instances", {})))
            found = sample.pred_instances
            boxes, margins = predicted_boxes(sample), _margins(to_array(found.scores))
            owner = to_array(found.expert)
            for number, (all_boxes, all_margins) in enumerate(experts):
                all_boxes.append(boxes[owner == number])
                all_margins.append(margins[owner == number])
    return experts, truth, ignored


def _margins(scores: FloatArray) -> FloatArray:
    """Logit margins over background; for one class they are the logits of the scores."""
    single = np.finfo(np.float32)  # scores come in it; those that were rounded to 0 or 1 stay finite
    margins: FloatArray = logit(np.clip(scores, float(single.tiny), 1 - float(single.epsneg)))
    return margins


def _fit(dataset: str, margins: FloatArray, hits: BoolArray) -> ExpertFit:
    scale, bias = (float(np.float32(value)) for value in fit_platt(margins, hits))  # as the checkpoint holds them
    after = log_loss(margins, hits, scale, bias)
    return ExpertFit(dataset, len(hits), int(hits.sum()), scale, bias, log_loss(margins, hits), after)


def _write(checkpoint: Mapping[str, Any], out: StrPath, fits: Sequence[ExpertFit], config: StrPath) -> None:
    """Write a checkpoint that was read with the fitted values, whole or not at all."""
    if all(fit.scale == 1 and fit.bias == 0 for fit in fits):  # the detector takes this for values never fitted
        raise InputError(
            f"{config}: no expert has boxes to fit ({sum(fit.num_boxes for fit in fits)} in all); lower "
            "model.test_cfg.rcnn.score_thr, or train the detector longer"
        )
    weights = checkpoint.get("state_dict", checkpoint)
    for part in ("scale", "bias"):
        key = next(key for key in weights if key.removeprefix("module.") == f"{_PREFIX}.{part}")
        weights[key] = weights[key].new_tensor([getattr(fit, part) for fit in fits])
    content = checkpoint_bytes(checkpoint)
    with atomic_path(out) as temporary:
        temporary.write_bytes(content)
