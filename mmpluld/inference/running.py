"""How detection runs: what may be asked for, checked without a network's libraries."""

from __future__ import annotations

from typing import Any, Literal, get_args

from mmpluld.errors import InputError, did_you_mean

__all__ = ["FPRMode", "Precision", "check_batch_size", "check_device_name", "check_fpr_mode", "check_precision"]

Precision = Literal["fp32", "bf16"]
"""Arithmetic of a network."""
FPRMode = Literal["average", "alone"]
"""Scores after false-positive reduction, see :func:`~mmpluld.inference.rescore.combined_scores`."""


def check_precision(precision: Any) -> None:
    """Refuse what is none of :data:`Precision`.

    Raises:
        InputError: If so.
    """
    if precision not in get_args(Precision):
        raise InputError(f"precision is {precision!r}; allowed are {', '.join(get_args(Precision))}")


def check_batch_size(batch_size: Any) -> None:
    """Refuse what is no number of things to examine at once.

    Raises:
        InputError: If so.
    """
    if not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size < 1:
        raise InputError(f"batch_size is {batch_size!r}; allowed is 1 or more, in whole numbers")


def check_fpr_mode(mode: Any) -> None:
    """Refuse what is none of :data:`FPRMode`.

    Raises:
        InputError: If so.
    """
    if mode not in get_args(FPRMode):
        hint = did_you_mean(str(mode), get_args(FPRMode))
        raise InputError(f"mode of false-positive reduction is {mode!r}; allowed are average and alone{hint}")


def check_device_name(device: Any) -> None:
    """Refuse what is no name of a device; whether this machine has it is looked at when the network is loaded.

    Raises:
        InputError: If so.
    """
    if not isinstance(device, str) or device.partition(":")[0] not in ("auto", "cpu", "cuda"):
        raise InputError(f"device is {device!r}; allowed are auto, cpu, cuda and cuda:N")
