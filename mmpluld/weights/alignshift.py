"""Checkpoints of the published AlignShift code (A3D, AlignShift, TSM and 2.5D detectors) for the configs of this zoo.

Written for its file layout: a dict with ``state_dict``, ``meta`` and usually ``optimizer``, saved by PyTorch 1.3 under
MMDetection 1.0. The files' tensors are used and their epoch; their embedded config is text to look at and never run.
"""

from __future__ import annotations

import datetime
import re
from collections import OrderedDict
from contextlib import AbstractContextManager
from typing import Any

from torch import Tensor

from mmpluld.compat.unpickling import allow_globals
from mmpluld.engine.checkpoint import load_checkpoint_safely, meta_of
from mmpluld.engine.config import FoundConfig, find_config
from mmpluld.errors import InputError
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

__all__ = ["OPERATORS", "convert_alignshift", "convert_state_dict"]

OPERATORS = ("alignshift", "tsm")
MIXING_WEIGHT = "adaptive_align_weights"

_RENAMES = (
    (re.compile(r"^backbone\.(lateral\d\.)"), r"neck.\1"),
    (re.compile(r"^((?:bbox|mask)_head\.)"), r"roi_head.\1"),
    (re.compile(rf"^(backbone\.denseblock.*)\.{MIXING_WEIGHT}$"), r"\1.mixer.weight"),
)
# A3D's stem and transitions do not mix, but their layers create the weights all the same.
_UNUSED = re.compile(rf"^backbone\.(conv0|transition\d\.conv)\.{MIXING_WEIGHT}$")
# Outputs of the two-class heads, background first; here the lesion comes first or is alone.
_ROWS = {
    "bbox_head.fc_cls": (1, 0),
    "bbox_head.fc_reg": (4, 5, 6, 7),
    "mask_head.conv_logits": (1,),
}
_TYPE_NAME = re.compile(r"""\btype['"]?\s*[=:,]\s*['"]([\w.]+)['"]""")


def convert_alignshift(
    source: StrPath,
    target: StrPath,
    operator: str | None = None,
    config: StrPath | None = None,
    overwrite: bool = False,
) -> ConversionReport:
    """Convert a checkpoint of the published code and write it for a config of the zoo.

    Args:
        source: The published file.
        target: Checkpoint to write, ``.pth``: state dict and plain metadata.
        operator: ``alignshift`` or ``tsm``. Their weights have the same names and shapes; None looks for either name in
            the file's config text.
        config: Path or zoo name of the config that the weights must fit; None takes the zoo's for variant and slices.
        overwrite: Replace an existing ``target``.

    Raises:
        InputError: If the file cannot be read safely, is of no known variant, or a tensor is missing, unexpected or of
            another shape than the config's model; or if ``target`` exists.
    """
    refuse_existing(target, overwrite)
    with _allow_old_metadata():
        checkpoint = load_checkpoint_safely(source)
    weights = published_weights(source, checkpoint.get("state_dict"), checkpoint, "state_dict", "AlignShift")
    variant, evidence = _variant(source, weights, meta_of(checkpoint), operator)
    num_slices = _num_slices(source, weights, variant)
    converted, renamed, reduced, dropped = convert_state_dict(weights, str(source))
    found = _find(source, config, variant, num_slices)
    check_fit(source, converted, renamed, found, "AlignShift")
    meta = {"config": found.name, "variant": variant, "num_slices": num_slices}
    epoch = meta_of(checkpoint).get("epoch")
    if isinstance(epoch, int):
        meta["epoch"] = epoch
    digest = write_converted(target, converted, meta, source)
    return ConversionReport(
        found.name, variant, evidence, num_slices, len(converted), renamed, reduced, dropped, digest
    )


def convert_state_dict(
    weights: dict[str, Tensor], source: str = "state_dict"
) -> tuple[dict[str, Tensor], dict[str, str], tuple[str, ...], tuple[str, ...]]:
    """Rename the tensors of a published detector and take from its heads the outputs that this zoo has.

    Args:
        weights: The published state dict, without the prefix ``module.``.
        source: Name for error messages.

    Returns:
        The new state dict; old and new names where they differ; names of the tensors that lost or swapped rows; names
        of the tensors left out. Names that are not known stay as they are.

    Raises:
        InputError: If an output layer does not have the rows of two classes.
    """
    converted: dict[str, Tensor] = {}
    renamed: dict[str, str] = {}
    reduced, dropped = [], []
    for old, value in weights.items():
        if _UNUSED.match(old):
            dropped.append(old)
            continue
        rows = _ROWS.get(old.rpartition(".")[0])
        if rows is not None:
            value = take_rows(source, old, value, rows, "AlignShift")
            reduced.append(old)
        new = rename(old, _RENAMES)
        if new != old:
            renamed[old] = new
        converted[new] = value
    return converted, renamed, tuple(reduced), tuple(dropped)


def _allow_old_metadata() -> AbstractContextManager[None]:
    """Permit what old training code leaves in ``meta``: configs as dicts with attributes, and dates.

    The dict classes are read as plain ordered dicts, and need not be installed.
    """
    dicts = ("addict.addict.Dict", "mmcv.utils.config.ConfigDict", "mmengine.config.config.ConfigDict")
    return allow_globals([datetime.datetime, *((OrderedDict, name) for name in dicts)])


def _variant(
    source: StrPath, weights: dict[str, Tensor], meta: dict[str, Any], operator: str | None
) -> tuple[str, str]:
    """The variant of the detector, and what tells."""
    if operator is not None and operator not in OPERATORS:
        raise InputError(f"operator is {operator!r}; allowed are {', '.join(OPERATORS)}")
    if "backbone.conv0.weight" not in weights or "bbox_head.fc_cls.weight" not in weights:
        raise InputError(
            f"{source}: has no backbone.conv0 and bbox_head.fc_cls (its first tensor is {next(iter(weights))}); "
            "give a checkpoint of the AlignShift code, not of this package or another"
        )
    decided = None
    if any(key.endswith(f".{MIXING_WEIGHT}") for key in weights):
        decided = "a3d", "its weights (slice mixing)"
    elif not any(key.startswith("backbone.reductionz") for key in weights):
        decided = "25d", "its weights (no depth reduction)"
    if decided is not None:
        if operator is not None:
            raise InputError(f"{source}: holds {decided[0]} weights, not {operator}; leave --operator out")
        return decided
    if operator is not None:
        return operator, "--operator"
    named = _operators_named(meta)
    if len(named) != 1:
        found = "names both" if named else "names neither"
        raise InputError(
            f"{source}: AlignShift and TSM weights look alike, and the config text in the file {found}; "
            f"say which with --operator {' or --operator '.join(OPERATORS)}"
        )
    return named.pop(), "the model types in its config text"


def _operators_named(meta: dict[str, Any]) -> set[str]:
    """The operators whose names occur among the ``type`` values of the config text in ``meta``."""
    texts = [str(value) for value in meta.values()]
    types = {
        name.lower()
        for text in texts
        for line in text.splitlines()
        for name in _TYPE_NAME.findall(line.partition("#")[0])
    }
    named = set()
    if any("tsm" in name for name in types):
        named.add("tsm")
    if any("align" in name.replace("roialign", "") for name in types):
        named.add("alignshift")
    return named


def _num_slices(source: StrPath, weights: dict[str, Tensor], variant: str) -> int:
    """Slices D of a stack, from the shape of the layer that depends on it."""
    name, dim = (
        ("backbone.conv0.weight", 1) if variant == "25d" else ("backbone.reductionz1.reduction_z_conv.weight", 2)
    )
    value = weights.get(name)
    if value is None or value.dim() <= dim:
        shape = "missing" if value is None else f"of shape {tuple(value.shape)}"
        raise InputError(f"{source}: {name} is {shape}; this is not a whole checkpoint of the AlignShift code")
    return int(value.shape[dim])


def _find(source: StrPath, config: StrPath | None, variant: str, num_slices: int) -> FoundConfig:
    """The config that the weights belong to: the given one, or the zoo's."""
    if config is not None:
        return find_config(config)
    stem = f"legacy-{variant}_densenet121-fpn"
    try:
        return find_config(f"{stem}_{num_slices}s_deeplesion")
    except InputError as error:
        raise InputError(
            f"{source}: holds {variant} weights for {num_slices} slices, which no config of the zoo is for; make "
            f"one that inherits {stem}_7s_deeplesion.py and sets num_slices = {num_slices}, and give it with --config"
        ) from error
