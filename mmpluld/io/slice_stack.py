"""Stacks of neighbouring slices at a fixed distance in mm, blended from the slices that exist.

The networks see D slices around a key slice, 2 mm apart whatever the slice interval of the scan. A plan says
which stored slices make each of the D, and with which weights, so that each is read once.
"""

from __future__ import annotations

import math
from collections.abc import Container, Mapping
from typing import Literal

import numpy as np
import numpy.typing as npt

from mmpluld.errors import InputError

__all__ = [
    "INTERPOLATIONS",
    "Interpolation",
    "StackPlan",
    "blend_stack",
    "plan_indices",
    "plan_stack",
    "stack_gap_mm",
]

Interpolation = Literal["exact", "peer", "native", "native-peer"]
INTERPOLATIONS: tuple[Interpolation, ...] = ("exact", "peer", "native", "native-peer")
StackPlan = tuple[tuple[tuple[int, float], ...], ...]

# Offsets this close to a stored slice count as that slice: 2 / 0.7 * 7 is 20 but for rounding.
_ROUNDING = 1e-6


def stack_gap_mm(interval_mm: float, gap_mm: float, interp: Interpolation) -> float:
    """The distance in mm that the slices of a stack really have, in a series with slices ``interval_mm`` apart.

    It is ``gap_mm``, but for the native rules in series that are at least as thick: these keep their slices. Grids on
    which whole volumes are examined take it too, so that detection sees what training saw; all but ``peer``, whose
    blending by thickness such grids replace by the true distance.
    """
    keeps_slices = interp.startswith("native") and 0 < gap_mm <= interval_mm * (1 + _ROUNDING) < math.inf
    return interval_mm if keeps_slices else gap_mm


def plan_stack(
    key: int,
    interval_mm: float,
    available: Container[int],
    num_slices: int,
    gap_mm: float = 2.0,
    interp: Interpolation = "exact",
) -> StackPlan:
    """Say which stored slices make each slice of the stack.

    With ``rel = gap_mm / interval_mm``, step p = 1..(D-1)/2 lies ``rel * p`` slices from the key, on either
    side. A neighbour that is missing is replaced by the nearest one towards the key, with its weight.

    Args:
        key: Number of the key slice, the centre of the stack.
        interval_mm: Distance of stored slices in mm; unless it is a positive number the key slice is
            repeated.
        available: The slice numbers that exist.
        num_slices: D, odd.
        gap_mm: Distance of the stack's slices in mm; 0 repeats the key slice.
        interp: ``exact`` blends at the true offsets. ``peer`` takes the blend weights of the first step for
            all steps, as the published A3D, AlignShift and MULAN loaders do: at 5 mm the offsets come out as
            0.4, 0.4, 1.4 slices instead of 0.4, 0.8, 1.2. ``native`` is for AlignShift: adjacent stored slices
            where they are at least ``gap_mm`` apart, else ``exact``; ``native-peer`` is the published AlignShift
            loader: the same with ``peer``.

    Returns:
        For each of the D positions, by increasing slice number, pairs of (slice number, weight); the weights
        of a position sum to 1.

    Raises:
        InputError: ``num_slices`` is even or below 1, ``interp`` is unknown, or the key slice does not exist.
    """
    if num_slices < 1 or num_slices % 2 == 0:
        raise InputError(f"num_slices is {num_slices}; allowed are odd numbers from 1")
    if interp not in INTERPOLATIONS:
        raise InputError(f"interp is {interp!r}; allowed are {', '.join(INTERPOLATIONS)}")
    if key not in available:
        raise InputError(f"key slice {key} does not exist in its series; check the annotation file")
    half = (num_slices - 1) // 2
    centre = ((key, 1.0),)
    if not (math.isfinite(interval_mm) and interval_mm > 0 and gap_mm > 0):
        return (centre,) * num_slices
    rel = stack_gap_mm(interval_mm, gap_mm, interp) / interval_mm
    steps = [_step(rel, step, interp.endswith("peer")) for step in range(1, half + 1)]
    below = [_place(key, step, -1, available) for step in reversed(steps)]
    above = [_place(key, step, 1, available) for step in steps]
    return (*below, centre, *above)


def plan_indices(plan: StackPlan) -> list[int]:
    """The stored slices a plan needs, ascending, each once."""
    return sorted({index for position in plan for index, _ in position})


def blend_stack(plan: StackPlan, slices: Mapping[int, npt.NDArray[np.generic]]) -> npt.NDArray[np.float32]:
    """Blend stored slices into a stack.

    Args:
        plan: From :func:`plan_stack`, D positions.
        slices: The slices :func:`plan_indices` names, each (H, W), int16 or float32 HU.

    Returns:
        (H, W, D) float32 HU, C-contiguous.

    Raises:
        InputError: The slices differ in size.
    """
    shapes = {array.shape for array in slices.values()}
    if len(shapes) != 1:
        raise InputError(f"slices {sorted(slices)} of one series differ in size: {sorted(shapes)}")
    import cv2

    (shape,) = shapes
    # One buffer for all planes: a new megabyte for each costs more than the arithmetic.
    planes = np.empty((len(plan), *shape), dtype=np.float32)
    for plane, position in zip(planes, plan, strict=True):
        if len(position) == 1:
            plane[:] = slices[position[0][0]]
        else:
            (low, low_weight), (high, high_weight) = position
            cv2.addWeighted(slices[low], low_weight, slices[high], high_weight, 0.0, dst=plane, dtype=cv2.CV_32F)
    stack: npt.NDArray[np.float32] = cv2.merge(list(planes))
    return stack.reshape(*shape, len(plan))


def _step(rel: float, step: int, peer: bool) -> tuple[tuple[int, float], ...]:
    """(Slices from the key, weight) of one step outwards."""
    offset = rel * step
    if abs(offset - round(offset)) <= _ROUNDING:
        return ((round(offset), 1.0),)
    first = math.floor(offset)
    fraction = rel - math.floor(rel) if peer else offset - first
    return ((first, 1.0 - fraction), (first + 1, fraction))


def _place(
    key: int, step: tuple[tuple[int, float], ...], side: int, available: Container[int]
) -> tuple[tuple[int, float], ...]:
    """Turn offsets into slice numbers that exist, moving towards the key."""
    weights: dict[int, float] = {}
    for offset, weight in step:
        while key + side * offset not in available:
            offset -= 1
        index = key + side * offset
        weights[index] = weights.get(index, 0.0) + weight
    if len(weights) == 1:
        return ((next(iter(weights)), 1.0),)
    return tuple(sorted(weights.items()))
