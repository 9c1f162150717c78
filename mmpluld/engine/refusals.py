"""A run that is refused ends as bad input, and leaves no work folder that it made itself."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from mmengine.config import Config
from mmengine.registry import build_functions
from mmengine.visualization import Visualizer

from mmpluld.errors import InputError

__all__ = ["refusals"]

# What constructors raise for values that they cannot use.
_BAD_VALUES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
)


@contextmanager
def refusals(cfg: Config, made: bool | None = None) -> Iterator[None]:
    """Around building and running: see the module.

    Args:
        cfg: Of the run; its ``work_dir`` is removed after a refusal if it was not there before and the run has not
            written more than log and config into it.
        made: Whether the folder was made for this run, where the caller made it; None looks.

    Raises:
        InputError: If a part of the config refused its values while it was built; the message names the part.
    """
    folder = Path(cfg.work_dir)
    was_there = folder.exists() if made is None else not made
    try:
        yield
    except InputError:
        _remove_unused(folder, was_there)
        raise
    except ImportError as error:
        if "pip install" not in str(error):
            raise
        # What a visualizer's backend says at its first use, when its package is not installed.
        _remove_unused(folder, was_there)
        raise InputError(f"{Path(cfg.filename or 'config').stem}: {' '.join(str(error).split())}") from error
    except _BAD_VALUES as error:
        part = _part_being_built(error.__traceback__)
        if part is None or "CUDA" in str(error):
            raise
        _remove_unused(folder, was_there)
        reason = " ".join(str(error).split()) or type(error).__name__
        name = Path(cfg.filename or "config").stem
        raise InputError(
            f"{name}: {part} cannot be built from its values in the config: {reason} (--debug shows where)"
        ) from error


def _part_being_built(traceback: TracebackType | None) -> str | None:
    """Name of the innermost part that mmengine was building from a config, None if it was not."""
    name = None
    while traceback is not None:
        frame = traceback.tb_frame
        if frame.f_code is build_functions.build_from_cfg.__code__:
            kind = frame.f_locals.get("obj_type") or dict(frame.f_locals.get("cfg") or {}).get("type")
            name = kind if isinstance(kind, str) else getattr(kind, "__name__", "a part")
        traceback = traceback.tb_next
    return name


def _remove_unused(folder: Path, was_there: bool) -> None:
    """Remove a new work folder that holds nothing but what a run writes before its first step."""
    if was_there or not folder.is_dir():
        return
    files = [path for path in folder.rglob("*") if not path.is_dir()]
    if all(path.suffix in (".log", ".py") or path.name.startswith(".") for path in files):
        shutil.rmtree(folder, ignore_errors=True)
        # mmengine keeps visualizers by name; the next run in this process would write into the folder that is gone.
        kinds = [Visualizer]
        while kinds:
            kind = kinds.pop()
            kind._instance_dict.clear()
            kinds += kind.__subclasses__()
