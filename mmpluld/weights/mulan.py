"""Checkpoints of the published MULAN code for the configs of this zoo.

Written for its file layout: a dict with ``model`` (or the bare state dict), usually ``optimizer``, saved by PyTorch 1.1
under its copy of maskrcnn-benchmark.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

from mmpluld.engine.checkpoint import load_checkpoint_safely
from mmpluld.engine.config import find_config, load_config
from mmpluld.errors import InputError
from mmpluld.registry import TASK_UTILS
from mmpluld.typing import StrPath
from mmpluld.weights.conversion import (
    ConversionReport,
    check_fit,
    published_weights,
    refuse_existing,
    rename,
    take_rows,
    write_converted,
)

__all__ = ["convert_mulan", "convert_mulan_state_dict"]

ZOO_CONFIG = "legacy-mulan_densenet121_9s_deeplesion"

_BOX, _MASK = "roi_heads.box", "roi_heads.mask"
_LAYERS = r"\.(weight|bias)$"
_RENAMES = tuple(
    (re.compile(f"^{old}{_LAYERS}"), new)
    for old, new in (
        (r"backbone\.conv_ilf2", r"backbone.transition2.mixer.\1"),
        (r"backbone\.(lateral\d)", r"neck.\1.\2"),
        (r"feature_fuse\.conv", r"neck.fusion.\1"),
        (r"rpn\.head\.conv", r"rpn_head.rpn_conv.\1"),
        (r"rpn\.head\.cls_logits", r"rpn_head.rpn_cls.\1"),
        (r"rpn\.head\.bbox_pred", r"rpn_head.rpn_reg.\1"),
        (rf"{_BOX}\.feature_extractor\.fc6", r"roi_head.bbox_head.shared_fcs.0.\1"),
        (rf"{_BOX}\.feature_extractor\.fc7", r"roi_head.bbox_head.shared_fcs.1.\1"),
        (rf"{_BOX}\.predictor\.cls_score", r"roi_head.bbox_head.fc_cls.\1"),
        (rf"{_BOX}\.predictor\.bbox_pred", r"roi_head.bbox_head.fc_reg.\1"),
        (rf"{_MASK}\.predictor\.conv5_mask", r"roi_head.mask_head.upsample.\1"),
        (rf"{_MASK}\.predictor\.mask_fcn_logits", r"roi_head.mask_head.conv_logits.\1"),
        *(
            (rf"{_MASK}\.feature_extractor\.mask_fcn{i + 1}", rf"roi_head.mask_head.convs.{i}.conv.\1")
            for i in range(4)
        ),
        (r"roi_heads\.tag\.feature_extractor\.fc8", r"roi_head.tag_head.fcs.0.\1"),
        (r"roi_heads\.tag\.feature_extractor\.fc9", r"roi_head.tag_head.fcs.1.\1"),
        (r"roi_heads\.tag\.predictor\.cls_score", r"roi_head.tag_head.fc_tag.\1"),
        (r"roi_heads\.refine\.score_propa_clsf", r"roi_head.refine_head.fc_cls.\1"),
        (r"roi_heads\.refine\.score_propa_tag", r"roi_head.refine_head.fc_tag.\1"),
    )
)
_REFINE_CLS, _REFINE_TAG = "roi_heads.refine.score_propa_clsf", "roi_heads.refine.score_propa_tag"
# Outputs of the two-class heads, background first; here the lesion comes first or is alone.
_ROWS = {
    f"{_BOX}.predictor.cls_score": (1, 0),
    f"{_BOX}.predictor.bbox_pred": (4, 5, 6, 7),
    f"{_MASK}.predictor.mask_fcn_logits": (1,),
    _REFINE_CLS: (1, 0),
}
_ANCHORS = re.compile(r"^rpn\.anchor_generator\.cell_anchors\.\d+$")
_FEATURES = {1: "z", 2: "demographics", 3: "z, demographics", 4: "box", 5: "box, z", 6: "box, demographics"} | {
    7: "box, z, demographics"
}


def convert_mulan(
    source: StrPath,
    target: StrPath,
    config: StrPath | None = None,
    overwrite: bool = False,
) -> ConversionReport:
    """Convert a checkpoint of the published code and write it for a config of the zoo.

    Args:
        source: The published file.
        target: Checkpoint to write, ``.pth``: state dict and plain metadata.
        config: Path or zoo name of the config that the weights must fit; None takes the zoo's.
        overwrite: Replace an existing ``target``.

    Raises:
        InputError: If the file cannot be read safely or is of another code, a tensor is missing, unexpected or of
            another shape than the config's model, its anchors are others than the config's, or ``target`` exists.
    """
    refuse_existing(target, overwrite)
    weights = _weights(source, load_checkpoint_safely(source))
    converted, renamed, reduced, dropped = convert_mulan_state_dict(weights, str(source))
    found = find_config(ZOO_CONFIG if config is None else config)
    model = load_config(found).model
    _check_features(source, weights, model)
    check_fit(source, converted, renamed, found, "MULAN")
    for name in dropped:
        _check_anchors(source, name, weights[name], model)
    num_slices = int(model.backbone.num_slices)
    meta = {"config": found.name, "variant": "mulan", "num_slices": num_slices}
    digest = write_converted(target, converted, meta, source)
    evidence = "its names of layers"
    return ConversionReport(
        found.name, "mulan", evidence, num_slices, len(converted), renamed, reduced, dropped, digest
    )


def convert_mulan_state_dict(
    weights: dict[str, Tensor], source: str = "state_dict"
) -> tuple[dict[str, Tensor], dict[str, str], tuple[str, ...], tuple[str, ...]]:
    """Rename the tensors of a published detector and bring classes into mmdet's order, background last.

    Args:
        weights: The published state dict, without the prefix ``module.``.
        source: Name for error messages.

    Returns:
        The new state dict; old and new names where they differ; names of the tensors that lost or swapped rows or
        columns; names of the tensors left out (the anchors). Names that are not known stay as they are.

    Raises:
        InputError: If an output layer does not have the rows of two classes.
    """
    converted: dict[str, Tensor] = {}
    renamed: dict[str, str] = {}
    reduced, dropped = [], []
    for old, value in weights.items():
        if _ANCHORS.match(old):
            dropped.append(old)
            continue
        layer, _, part = old.rpartition(".")
        rows = _ROWS.get(layer)
        if rows is not None:
            value = take_rows(source, old, value, rows, "MULAN")
        refines = layer in (_REFINE_CLS, _REFINE_TAG) and part == "weight"
        if refines:  # its first two inputs are the logits of background and lesion
            value = value[:, [1, 0, *range(2, value.shape[1])]]
        if rows is not None or refines:
            reduced.append(old)
        new = rename(old, _RENAMES)
        if new != old:
            renamed[old] = new
        converted[new] = value
    return converted, renamed, tuple(reduced), tuple(dropped)


def _weights(source: StrPath, checkpoint: dict[str, Any]) -> dict[str, Tensor]:
    """The state dict of a checkpoint, without the prefix of a model wrapper."""
    weights = published_weights(source, checkpoint.get("model", checkpoint), checkpoint, "model", "MULAN")
    for name in ("backbone.conv_ilf2.weight", "feature_fuse.conv.weight", "rpn.head.conv.weight"):
        if name not in weights:
            raise InputError(
                f"{source}: has no {name} (its first tensor is {next(iter(weights))}); give a checkpoint of the MULAN "
                "code, not of this package or another"
            )
    return weights


def _check_features(source: StrPath, weights: dict[str, Tensor], model: Any) -> None:
    """Say so if the refining layer of the weights has other inputs than the config's."""
    layer = weights.get(f"{_REFINE_TAG}.weight")
    settings = model.roi_head.get("refine_head")
    if layer is None or layer.dim() != 2 or settings is None:
        return  # the comparison of names will tell
    found = _FEATURES.get(layer.shape[1] - layer.shape[0] - 2, "")
    own = ", ".join(name for name in ("box", "z", "demographics") if name in settings.get("features", ()))
    if found != own:
        raise InputError(
            f"{source}: its refining layer has the further inputs [{found}], the config has [{own}]; copy the config, "
            "set features of refine_head, and give the copy with --config"
        )


def _check_anchors(source: StrPath, name: str, anchors: Tensor, model: Any) -> None:
    """Compare the anchors that the file holds, as inclusive pixels, with those of the config."""
    (expected,) = TASK_UTILS.build(model.rpn_head.anchor_generator).base_anchors
    edges = anchors.float() + torch.tensor([0.0, 0.0, 1.0, 1.0]) if anchors.shape == expected.shape else anchors
    if edges.shape != expected.shape or not torch.allclose(edges, expected.float(), atol=1e-3):
        raise InputError(
            f"{source}: {name} holds other anchors ({tuple(anchors.shape)}) than the config {tuple(expected.shape)}; "
            "copy the config, set the scales of anchor_generator (sizes / 4), and give the copy with --config"
        )
