"""The device that a command is asked to use."""

from __future__ import annotations

import torch

from mmpluld.errors import InputError

__all__ = ["checked_device", "chosen_batch_size", "chosen_device"]

_BYTES_PER_SLICE = 4 << 30  # of a CUDA device's memory, for a key slice at the papers' size
_MOST_SLICES = 16


def chosen_device(name: str) -> str:
    """The device meant by ``auto``: the first CUDA device that torch can use here, else the CPU; others as given."""
    if name != "auto":
        return name
    return "cuda" if torch.cuda.is_available() and torch.cuda.device_count() else "cpu"


def chosen_batch_size(name: str) -> int:
    """Slices to examine at once on a device: 1 on a CPU, on a CUDA device one for every 4 GiB that it has, up to 16.

    It depends on the memory that there is, not on what is free, so that a machine always does the same.

    Raises:
        InputError: If there is no such device.
    """
    device = checked_device(name)
    if device.type != "cuda":
        return 1
    memory = torch.cuda.get_device_properties(device).total_memory
    return max(1, min(_MOST_SLICES, int(memory) // _BYTES_PER_SLICE))


def checked_device(name: str) -> torch.device:
    """The device of this name: ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        InputError: If there is no such device, or torch cannot use it here.
    """
    unknown = InputError(f"device is {name!r}; allowed are cpu, cuda and cuda:N")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        raise unknown from None
    if device.type not in ("cpu", "cuda"):  # on others nothing was tested
        raise unknown
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(
            f"device is {name!r}, but this machine has {torch.cuda.device_count()} CUDA devices that torch can "
            "use; give cpu"
        )
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # of these, torch built without the device's code raises the second
        raise InputError(f"device is {name!r}, which torch cannot use here; give cpu, or cuda or cuda:N") from error
    return device
