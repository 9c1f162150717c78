"""What the converters of published checkpoints share."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.registry import DefaultScope
from torch import Tensor

from mmpluld.atomic import atomic_path
from mmpluld.engine.checkpoint import checkpoint_bytes
from mmpluld.engine.config import FoundConfig, load_config
from mmpluld.errors import InputError
from mmpluld.registry import build_model
from mmpluld.typing import StrPath
from mmpluld.version import __version__

__all__ = [
    "ConversionReport",
    "check_fit",
    "published_weights",
    "refuse_existing",
    "rename",
    "take_rows",
    "write_converted",
]


@dataclass(frozen=True)
class ConversionReport:
    """What a conversion did.

    Attributes:
        config: Name of the zoo's config that the weights belong to.
        variant: a3d, alignshift, tsm, 25d or mulan.
        evidence: How the variant was recognised.
        num_slices: Slices D of a stack.
        num_tensors: Tensors written.
        renamed: Old and new names, where they differ.
        reduced: Old names of the tensors of which rows were swapped or left out.
        dropped: Old names of the tensors left out.
        sha256: Digest of the written file, in hex.
    """

    config: str
    variant: str
    evidence: str
    num_slices: int
    num_tensors: int
    renamed: dict[str, str]
    reduced: tuple[str, ...]
    dropped: tuple[str, ...]
    sha256: str


def refuse_existing(target: StrPath, overwrite: bool) -> None:
    """Refuse to replace a file unasked.

    Raises:
        InputError: If ``target`` exists and may not be replaced.
    """
    if Path(target).exists() and not overwrite:
        raise InputError(f"{target}: exists already; choose another name or add --overwrite")


def published_weights(
    source: StrPath, weights: Any, keys: Iterable[object], where: str, code: str
) -> dict[str, Tensor]:
    """The state dict of a published checkpoint, without the prefix of a model wrapper.

    Args:
        source: The file, for messages.
        weights: What it holds where its state dict should be.
        keys: What the file holds at its top, for messages.
        where: What that place is called, for messages.
        code: Name of the code base, for messages.

    Raises:
        InputError: It is no dict of tensors by name.
    """
    if (
        not isinstance(weights, dict)
        or not weights
        or not all(isinstance(key, str) and isinstance(item, Tensor) for key, item in weights.items())
    ):
        shown = ", ".join(str(key) for key in list(keys)[:4])
        raise InputError(
            f"{source}: has no {where} of tensors (it holds {shown}); give a checkpoint of the {code} code"
        )
    return {key.removeprefix("module."): value for key, value in weights.items()}


def take_rows(source: str, name: str, value: Tensor, rows: Sequence[int], code: str) -> Tensor:
    """Some rows, in a given order, of an output layer with 2 rows of classes, or 8 of deltas, background first.

    Args:
        source, name: Of the file and the tensor, for error messages.
        value: Weight or bias, its rows first.
        rows: Numbers of the rows to take; four are the deltas of one class, fewer are classes.
        code: Name of the code base for error messages.

    Returns:
        A copy, so that a file does not keep the rows left out.

    Raises:
        InputError: If it does not have the rows of two classes.
    """
    expected = 8 if len(rows) == 4 else 2
    if value.dim() == 0 or len(value) != expected:
        raise InputError(
            f"{source}: {name} has shape {tuple(value.shape)}; expected are {expected} rows, of background and "
            f"lesion, so this is not a checkpoint of the {code} code"
        )
    return value[list(rows)]


def rename(name: str, patterns: Iterable[tuple[re.Pattern[str], str]]) -> str:
    """A name after all replacements, one after the other."""
    for pattern, replacement in patterns:
        name = pattern.sub(replacement, name)
    return name


def check_fit(
    source: StrPath, converted: dict[str, Tensor], renamed: dict[str, str], config: FoundConfig, code: str
) -> None:
    """Compare names and shapes with those of the config's model, which is built without memory for its weights.

    Args:
        source: Name for error messages.
        converted: The state dict to check.
        renamed: Old and new names, where they differ; messages have the old ones.
        config: The config.
        code: Name of the code base for error messages.

    Raises:
        InputError: If a tensor is missing, unexpected or of another shape.
    """
    with DefaultScope.overwrite_default_scope("mmpluld"), torch.device("meta"):
        expected = build_model(load_config(config)).state_dict()
    old = {new: previous for previous, new in renamed.items()}
    problems = []
    for label, keys in (
        ("missing", [key for key in expected if key not in converted]),
        ("unexpected", [key for key in converted if key not in expected]),
        (
            "of another shape",
            [key for key in expected if key in converted and converted[key].shape != expected[key].shape],
        ),
    ):
        if keys:
            shown = ", ".join(old.get(key, key) for key in keys[:3])
            problems.append(f"{len(keys)} {label} ({shown}{', ...' if len(keys) > 3 else ''})")
    if problems:
        raise InputError(
            f"{source}: does not fit {config.name}, of {len(expected)} tensors {'; '.join(problems)}; "
            f"give an unchanged checkpoint of the {code} code"
        )


def write_converted(target: StrPath, converted: dict[str, Tensor], meta: dict[str, Any], source: StrPath) -> str:
    """Write a checkpoint of tensors and plain metadata, whole or not at all; return its SHA-256 in hex."""
    meta = {
        **meta,
        "dataset_meta": {"classes": ("lesion",)},
        "converted_from": Path(source).name,
        "mmpluld_version": __version__,
    }
    content = checkpoint_bytes({"state_dict": converted, "meta": meta})
    with atomic_path(target) as temporary:
        temporary.write_bytes(content)
    return hashlib.sha256(content).hexdigest()
