"""Checkpoints that cannot run code when read and cannot be lost when written."""

from __future__ import annotations

import io
import os
import pickle
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from mmengine.config import Config
from mmengine.fileio import LocalBackend, register_backend
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader
from torch import nn

from mmpluld.atomic import atomic_path, atomic_write_text
from mmpluld.compat.unpickling import ARRAY_MODULES, allow_globals
from mmpluld.engine.config import is_twin
from mmpluld.engine.config_digest import CONFIG_SHA256, config_digest
from mmpluld.engine.finite import non_finite
from mmpluld.engine.wrapped import unwrapped
from mmpluld.errors import InputError, name_some
from mmpluld.zoo.bundle import WEIGHTS, Bundle, is_bundle
from mmpluld.zoo.download import local_checkpoint

__all__ = [
    "AtomicLocalBackend",
    "bundle_checkpoint",
    "checkpoint_bytes",
    "load_checkpoint_safely",
    "load_weights",
    "meta_of",
    "misfits",
    "put_weights",
    "require_own_settings",
    "state_dict_of",
    "trained_with",
]

# Logs and settings, where NaN can be right, such as a metric of nothing.
_NO_WEIGHTS = {"meta", "message_hub"}


def _history_statistic(owner: object, name: str) -> Any:
    """The one use of ``getattr`` in mmengine's checkpoints: naming a statistic of a log history."""
    if owner is not HistoryBuffer or name not in ("min", "max", "mean", "current"):
        raise pickle.UnpicklingError(f"GLOBAL builtins.getattr of {name}")
    return getattr(HistoryBuffer, name)


def _allow_list() -> AbstractContextManager[None]:
    """Permit what mmengine's own checkpoints hold besides tensors: log histories and NumPy arrays and scalars."""
    rebuild, scalar = np.zeros(0).__reduce__()[0], np.float64(0).__reduce__()[0]
    allowed: list[Any] = [HistoryBuffer, np.ndarray, np.dtype]
    allowed += [type(np.dtype(code)) for code in "?bBhHiIlLqQefdSU"]
    for module in ARRAY_MODULES:
        allowed += [(rebuild, f"{module}._reconstruct"), (scalar, f"{module}.scalar")]
    allowed += [(_history_statistic, f"{module}.getattr") for module in ("builtins", "__builtin__")]
    return allow_globals(allowed)


def load_checkpoint_safely(path: str | os.PathLike[str], map_location: Any = "cpu") -> dict[str, Any]:
    """Read a local checkpoint without running code from it, and only if it is whole and its weights are numbers.

    Args:
        path: File written by ``torch.save``, or a bundle. The check sums of its records are verified; files in the form
            that torch wrote before version 1.6 have none.
        map_location: As for ``torch.load``.

    Raises:
        InputError: If the file is missing, truncated, damaged, no checkpoint, or needs anything else than tensors,
            plain Python values, NumPy arrays and mmengine's log histories; or if a tensor of the weights, their average
            or the optimizer is not finite.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise InputError(f"{path}: no such checkpoint")
    if is_bundle(file):
        return bundle_checkpoint(Bundle.open(file), map_location=map_location)
    _check_sums(file, path)
    try:
        with _allow_list():
            checkpoint = torch.load(file, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        forbidden = re.search(r"GLOBAL (\w+(?:\.\w+)+)", str(error))  # other names are lines of a text
        if forbidden:
            raise InputError(
                f"{path}: refused, because reading it would run '{forbidden[1]}'; checkpoints may hold tensors and "
                "plain values only, so get it from a source you trust and save its state_dict anew"
            ) from error
        raise InputError(f"{path}: not a checkpoint, or damaged; fetch or write it again") from error
    except (EOFError, RuntimeError, ValueError, LookupError, OSError) as error:  # a text is taken for an old pickle
        raise InputError(f"{path}: not a checkpoint, or truncated; fetch or write it again") from error
    if not isinstance(checkpoint, dict):
        raise InputError(f"{path}: holds a {type(checkpoint).__name__}; a checkpoint is a dict with a state_dict")
    _check_finite(checkpoint, path)
    return checkpoint


def bundle_checkpoint(bundle: Bundle, part: str = "", map_location: Any = "cpu") -> dict[str, Any]:
    """The weights in a bundle, as :func:`load_checkpoint_safely` gives them.

    Args:
        bundle: The bundle.
        part: ``zoo.bundle.FPR`` for those of the false-positive reduction.
        map_location: Device.

    Raises:
        InputError: They are damaged, or not finite.
    """
    content = bundle.read(f"{part}{WEIGHTS}")  # what it refuses is an InputError, and so a ValueError, of its own
    try:
        state = safetensors.torch.load(content)
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise InputError(
            f"{bundle.path}: its {part}{WEIGHTS} is damaged ({' '.join(str(error).split())}); fetch the bundle again"
        ) from error
    state = {key: value.to(map_location) for key, value in state.items()}
    checkpoint = {"meta": {"name": bundle.name, **bundle.provenance}, "state_dict": state}
    _check_finite(checkpoint, bundle.path)
    return checkpoint


def _check_finite(checkpoint: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    broken = list(non_finite({key: value for key, value in checkpoint.items() if key not in _NO_WEIGHTS}))
    if broken:
        raise InputError(
            f"{path}: {len(broken)} of its tensors hold NaN or infinity ({name_some(broken)}), so the training that "
            "wrote it had failed; take an earlier checkpoint"
        )


def _check_sums(file: Path, path: str | os.PathLike[str]) -> None:
    """InputError unless the check sum of every record is right: torch itself does not look at them."""
    try:
        with file.open("rb") as stream:
            beginning = stream.read(4)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}); restore the file") from error
    if beginning != b"PK\3\4":  # older than torch 1.6, or no checkpoint: for torch to tell
        return
    try:
        with zipfile.ZipFile(file) as archive:
            packed = [record.filename for record in archive.infolist() if record.compress_type != zipfile.ZIP_STORED]
            damaged = packed[0] if packed else archive.testzip()
    except (zipfile.BadZipFile, EOFError, ValueError, OSError, RuntimeError, struct.error, zlib.error) as error:
        # Also what asks for a position before the file, for a password, or for a name in no code.
        raise InputError(f"{path}: not a checkpoint, or truncated; fetch or write it again") from error
    if damaged:
        raise InputError(
            f"{path}: not a checkpoint, or damaged (the check sum of its record {damaged} is wrong); fetch or write it "
            "again, or take another checkpoint"
        )


def checkpoint_bytes(checkpoint: Mapping[str, Any]) -> bytes:
    """What a checkpoint's file holds; equal for equal contents, whatever the file is called.

    Args:
        checkpoint: State dict and plain metadata.
    """
    buffer = io.BytesIO()  # written to a path, the file would contain its own name
    torch.save(checkpoint, buffer)
    return buffer.getvalue()


@CheckpointLoader.register_scheme(prefixes="", force=True)
def load_from_local(filename: str, map_location: Any) -> dict[str, Any]:
    """What mmengine calls for local files, when resuming for one."""
    return load_checkpoint_safely(filename, map_location)


@CheckpointLoader.register_scheme(prefixes=("http://", "https://", "zoo:"), force=True)
def load_from_elsewhere(filename: str, map_location: Any) -> dict[str, Any]:
    """What mmengine calls for web addresses and ``zoo:NAME``, for example in ``load_from``."""
    return load_checkpoint_safely(local_checkpoint(filename), map_location)


def load_weights(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Load the weights of a checkpoint into a model; every tensor must be there and fit.

    Args:
        model: Takes the weights.
        path: Path, web address, or ``zoo:NAME``.

    Raises:
        DownloadError: If the file cannot be fetched, or is not the one that its name says.
        InputError: If the file cannot be read, or its weights belong to another model; the message counts and names.
    """
    put_weights(model, load_checkpoint_safely(local_checkpoint(path)), path)


def put_weights(model: nn.Module, checkpoint: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Put the weights of a checkpoint that was read into a model; every tensor must be there and fit.

    Args:
        model: Takes the weights.
        checkpoint: As from :func:`load_checkpoint_safely`.
        path: Where it is from, for messages.

    Raises:
        InputError: If the weights belong to another model; the message counts and names.
    """
    weights = {key.removeprefix("module."): value for key, value in state_dict_of(checkpoint, path).items()}
    target = unwrapped(model)
    problems = misfits(weights, target)
    if problems:
        raise InputError(
            f"{path}: weights of another model, {problems}; use the config that the checkpoint was trained with"
            f"{_own_config(meta_of(checkpoint), Path(path).parent)}"
        )
    target.load_state_dict(weights)


def state_dict_of(checkpoint: Mapping[str, Any], path: str | os.PathLike[str]) -> dict[str, Any]:
    """The weights of a checkpoint by name, whether it holds more beside them or nothing else.

    Args:
        checkpoint: As from :func:`load_checkpoint_safely`.
        path: Where it is from, for the message.

    Raises:
        InputError: If it has no names in the place of the weights.
    """
    weights = checkpoint.get("state_dict", checkpoint)
    if not isinstance(weights, dict) or not all(isinstance(name, str) for name in weights):
        raise InputError(f"{path}: holds no state_dict of tensors by name; take a checkpoint of a training")
    return dict(weights)


def meta_of(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint tells of how it was made; empty where it tells nothing, such as weights alone."""
    meta = checkpoint.get("meta")
    return meta if isinstance(meta, dict) else {}


def trained_with(meta: Mapping[str, Any]) -> str:
    """Name of the config that a checkpoint, by its metadata, was trained with; empty where it does not tell."""
    names = meta.get("name"), meta.get("experiment_name")
    return re.sub(r"_\d{8}_\d{6}$", "", next((text for text in names if isinstance(text, str)), ""))


def require_own_settings(cfg: Config, name: str, meta: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Refuse a config of the zoo that nobody chose for a checkpoint, if the training had other settings.

    They may have come from ``--cfg-options`` or a changed copy. Checkpoints of other programs tell nothing of them.

    Args:
        cfg: The config.
        name: Its name.
        meta: Of the checkpoint.
        path: The checkpoint.

    Raises:
        InputError: The training had others for what decides what is found.
    """
    if meta.get(CONFIG_SHA256) not in (None, config_digest(cfg)):
        copy = Path(path).parent / f"{trained_with(meta)}.py"
        raise InputError(
            f"{path}: was trained with other settings than {name} has, such as --cfg-options; give its own config"
            + (f", {copy}" if copy.is_file() else "")
        )


def _own_config(meta: Mapping[str, Any], folder: Path) -> str:
    """What a checkpoint, by its metadata, was trained with, and where a copy of it lies beside the checkpoint."""
    name = trained_with(meta)
    if not name:
        return ""
    copy = folder / f"{name}.py"
    told = f", {name}" + (f" (its own is {copy})" if copy.is_file() else "")
    return told + (", or add --twin to that of full size" if is_twin(name) else "")


def misfits(weights: Mapping[str, Any], model: nn.Module) -> str:
    """In what weights differ from those of a model: how many are missing and so on; empty where all fit.

    Args:
        weights: State dict, its names without ``module.``.
        model: Not wrapped for several processes.
    """
    expected = model.state_dict()
    problems = []
    for label, keys in (
        ("missing", [key for key in expected if key not in weights]),
        ("unexpected", [key for key in weights if key not in expected]),
        (
            "of another shape",
            [key for key in expected if key in weights and np.shape(weights[key]) != expected[key].shape],
        ),
    ):
        if keys:
            problems.append(f"{len(keys)} {label} (first: {keys[0]})")
    return f"of {len(expected)} tensors {', '.join(problems)}" if problems else ""


@register_backend("atomic")
class AtomicLocalBackend(LocalBackend):
    """mmengine's local files, written whole or not at all; removals can wait until a replacement is complete."""

    def __init__(self) -> None:
        self._postponed: list[tuple[str, os.stat_result]] | None = None

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes to ``filepath``."""
        with atomic_path(filepath) as temporary:
            temporary.write_bytes(obj)

    def put_text(self, obj: str, filepath: str | Path, encoding: str = "utf-8") -> None:
        """Write text to ``filepath``; always UTF-8."""
        atomic_write_text(filepath, obj)

    def remove(self, filepath: str | Path) -> None:
        """Delete a file, at once or when the surrounding :meth:`removals_last` ends."""
        if self._postponed is None:
            super().remove(filepath)
        else:
            self._postponed.append((str(filepath), Path(filepath).stat()))

    @contextmanager
    def removals_last(self) -> Iterator[None]:
        """Carry out the removals of this block when it has succeeded, but of files that it has replaced itself."""
        self._postponed = []
        try:
            yield
            outdated = self._postponed
        finally:
            self._postponed = None
        for path, removed in outdated:
            if os.path.samestat(removed, Path(path).stat()):
                super().remove(path)
