"""Stored values to Hounsfield units, slice by slice so that a large scan needs no second copy in float64."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from mmpluld.errors import InputError
from mmpluld.typing import FloatArray

__all__ = ["to_hu"]

_INT16 = np.iinfo(np.int16)


def to_hu(
    raw: npt.NDArray[Any],
    slope: npt.ArrayLike = 1.0,
    intercept: npt.ArrayLike = 0.0,
    *,
    source: str,
    labels: bool = False,
) -> npt.NDArray[Any]:
    """Return ``raw * slope + intercept`` as int16 where that is exact, else as float32.

    Args:
        raw: (i, j, k) stored values. Returned itself, uncopied, when it is int16 and needs no scaling.
        slope: One number, or one for each k.
        intercept: One number, or one for each k.
        source: File name for messages.
        labels: True for a label mask: values need not look like CT.

    Raises:
        InputError: If voxels are not single numbers, not finite, or (without ``labels``) never below 0.
    """
    if raw.ndim != 3 or raw.size == 0:
        raise InputError(f"{source}: image size is {_times(raw.shape)}; needed is one 3D volume, split the file")
    if raw.dtype.kind not in "iuf":
        raise InputError(f"{source}: voxels are of type {raw.dtype}; allowed are whole or real numbers in HU")
    slopes = np.broadcast_to(np.asarray(slope, dtype=np.float64), raw.shape[2:])
    intercepts = np.broadcast_to(np.asarray(intercept, dtype=np.float64), raw.shape[2:])
    if not (np.isfinite(slopes).all() and np.isfinite(intercepts).all() and slopes.all()):
        raise InputError(f"{source}: rescale slope or intercept is 0, NaN or inf; mend the header")

    if raw.dtype == np.int16 and (slopes == 1.0).all() and (intercepts == 0.0).all():
        hu, low = raw, float(raw.min())
    else:
        hu, low = _scaled(raw, slopes, intercepts, source)
    if low >= 0 and not labels:
        raise InputError(
            f"{source}: the lowest value is {low:g}; CT in Hounsfield units holds values below 0 (air is -1000), "
            "apply the rescale intercept or give a CT (masks: read_volume(..., labels=True))"
        )
    return hu


def _scaled(
    raw: npt.NDArray[Any], slopes: FloatArray, intercepts: FloatArray, source: str
) -> tuple[npt.NDArray[Any], float]:
    """Scale in two passes: the first decides the type, the second fills the result. Returns it and its minimum."""
    low, high, integral, bad = np.inf, -np.inf, True, 0
    first_bad: tuple[int, ...] = ()
    for k, values in enumerate(_slabs(raw, slopes, intercepts)):
        if values.dtype.kind == "f":
            finite = np.isfinite(values)
            if not finite.all():
                bad += int(values.size - finite.sum())
                first_bad = first_bad or (*(int(n) for n in np.argwhere(~finite)[0]), k)
                continue
            integral = integral and bool((np.rint(values) == values).all())
        low, high = min(low, float(values.min())), max(high, float(values.max()))
    if bad:
        raise InputError(
            f"{source}: {bad} of {raw.size} voxels are NaN or inf, the first at index {first_bad}; "
            "allowed are finite HU, fill them (air is -1000)"
        )
    if max(abs(low), abs(high)) > float(np.finfo(np.float32).max):
        raise InputError(f"{source}: values reach {max(abs(low), abs(high)):g}; allowed are HU, check the scaling")
    exact = integral and low >= _INT16.min and high <= _INT16.max
    hu = np.empty(raw.shape, dtype=np.int16 if exact else np.float32, order="F")
    for k, values in enumerate(_slabs(raw, slopes, intercepts)):
        hu[:, :, k] = values
    return hu, low


def _slabs(raw: npt.NDArray[Any], slopes: FloatArray, intercepts: FloatArray) -> Iterator[npt.NDArray[Any]]:
    """Yield each k slab after scaling; float64 only where something is scaled."""
    for k, (slope, intercept) in enumerate(zip(slopes, intercepts, strict=True)):
        slab = raw[:, :, k]
        yield slab if slope == 1.0 and intercept == 0.0 else slab * slope + intercept


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
