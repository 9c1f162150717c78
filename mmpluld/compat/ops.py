"""Makes mmdet importable, and its detectors usable, where mmcv has no compiled operators (mmcv-lite)."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from mmpluld.compat import torch_ops

__all__ = ["install_ops", "ops_in_use"]

EXTENSION = "mmcv._ext"

_PURE_OPS: dict[str, Callable[..., Any]] = {
    "nms": torch_ops.nms,
    "softnms": torch_ops.softnms,
    "nms_match": torch_ops.nms_match,
    "roi_align_forward": torch_ops.roi_align_forward,
    "roi_align_backward": torch_ops.roi_align_backward,
    "sigmoid_focal_loss_forward": torch_ops.sigmoid_focal_loss_forward,
    "sigmoid_focal_loss_backward": torch_ops.sigmoid_focal_loss_backward,
}


class _PureTorchExtension(ModuleType):
    """Stands in for mmcv's compiled module; an operator it lacks fails when called, not when imported."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)
        if name in _PURE_OPS:
            return _PURE_OPS[name]

        def missing(*_args: Any, **_kwargs: Any) -> Any:
            raise RuntimeError(
                f"mmcv operator '{name}' needs compiled mmcv and has no stand-in here; "
                "install mmcv 2.1.0 instead of mmcv-lite, or use a model without this operator"
            )

        return missing


def install_ops() -> None:
    """Put pure-torch operators in place of mmcv's compiled ones where those are absent.

    Call it before ``mmdet.models`` or ``mmcv.ops`` is imported; further calls change nothing. Compiled
    operators are used wherever they load. Supplied: NMS, soft NMS, NMS with matches, RoIAlign (average),
    sigmoid focal loss.
    """
    if EXTENSION in sys.modules:
        return
    try:
        importlib.import_module(EXTENSION)
    except ImportError:  # absent, or built for another torch
        stand_in = _PureTorchExtension(EXTENSION, "Pure-torch stand-ins for mmcv's compiled operators.")
        stand_in.__spec__ = ModuleSpec(EXTENSION, loader=None)
        sys.modules[EXTENSION] = stand_in


def ops_in_use() -> str:
    """Return ``'compiled'`` or ``'pure torch'``: which mmcv operators this process uses."""
    install_ops()
    return "pure torch" if isinstance(sys.modules[EXTENSION], _PureTorchExtension) else "compiled"
