"""The device that a command is asked to use."""

from __future__ import annotations

import torch

from mmpluld.errors import InputError

__all__ = ["checked_device"]


def checked_device(name: str) -> torch.device:
    """The device of this name: ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        InputError: If there is no such device, or torch cannot use it here.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"device is {name!r}; allowed are cpu, cuda and cuda:N") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(
            f"device is {name!r}, but this machine has {torch.cuda.device_count()} CUDA devices that torch can "
            "use; give cpu"
        )
    if device.type == "meta":  # of tensors without values
        raise InputError(f"device is {name!r}; allowed are cpu, cuda and cuda:N")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # of these, torch built without the device's code raises the second
        raise InputError(f"device is {name!r}, which torch cannot use here; give cpu, or cuda or cuda:N") from error
    return device
