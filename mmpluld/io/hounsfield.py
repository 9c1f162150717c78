"""Stored values to Hounsfield units, slice by slice so that a large scan needs no second copy in float64.

Whether the result is in HU is tested by :mod:`mmpluld.io.hu_check`. What lies below -1024 (padding, noise of air) is
set to -1024, where the windows of all networks begin, for interpolation would smear it over the edges.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from mmpluld.errors import InputError
from mmpluld.io.hu_check import HU_NEEDED, mask_fault, volume_fault
from mmpluld.typing import FloatArray

__all__ = ["LOWEST_HU", "Units", "check_finite", "check_units", "to_hu", "units_note", "without_padding"]

Units = Literal["hu"]
LOWEST_HU = -1024

_INT16 = np.iinfo(np.int16)
# Beyond any scale: 16 bits of HU in steps of 32 bits have 1.5e-5, NIfTI's shares of 64 bits 4e-15.
_AIR_TO_TISSUE = 900.0  # HU
_SLOPES, _LARGEST = (1e-15, 1e6), 1e6


def to_hu(
    raw: npt.NDArray[Any],
    slope: npt.ArrayLike = 1.0,
    intercept: npt.ArrayLike = 0.0,
    *,
    source: str,
    labels: bool = False,
    units: Units | None = None,
    notes: list[str] | None = None,
    slice_names: Sequence[str] | None = None,
) -> npt.NDArray[Any]:
    """Return ``raw * slope + intercept`` as int16 where that is exact, else as float32; -1024 is the least.

    Args:
        raw: (i, j, k) stored values. Returned itself, changed in place, when it is int16 and needs no scaling.
        slope: One number, or one for each k.
        intercept: One number, or one for each k.
        source: File name for messages.
        labels: True for a label mask: values need not look like CT, and stay as they are.
        units: ``hu`` to take values for HU that do not look like it, which is noted.
        notes: Gets a line for each thing that was found or changed.
        slice_names: What the slices along k are called in errors; notes number them.

    Raises:
        InputError: If voxels are not single numbers or not finite, the scaling is beyond any scale, or (without
            ``labels``) the values are not those of a CT in HU.
    """
    check_units(units)
    if raw.ndim != 3 or raw.size == 0:
        raise InputError(f"{source}: image size is {_times(raw.shape)}; needed is one 3D volume, split the file")
    if raw.dtype.kind not in "iuf":
        raise InputError(f"{source}: voxels are of type {raw.dtype}; allowed are whole or real numbers in HU")
    slopes, intercepts = _checked_scale(slope, intercept, raw.shape[2], source)
    if raw.dtype == np.int16 and (slopes == 1.0).all() and (intercepts == 0.0).all():
        hu = raw
    else:
        hu = _scaled(raw, slopes, intercepts, source, labels)
    if labels:
        return hu
    found = [] if notes is None else notes
    # What is noted goes into histories, where names of files may tell of a patient.
    if fault := volume_fault(hu, slice_names if units is None else None) or _bits_fault(raw.dtype, slopes):
        if units is None and (mask := mask_fault(hu)):
            raise InputError(f"{source}: {mask}; give the scan itself, in HU")
        found.append(units_note(source, fault, units))
    lowest = hu.min()
    if lowest < LOWEST_HU:
        share = np.count_nonzero(hu < LOWEST_HU) / hu.size
        found.append(f"{share:.1%} of the voxels, down to {lowest:g} HU (padding or noise of air), set to {LOWEST_HU}")
        hu = hu if hu.flags.writeable else hu.copy()
        np.maximum(hu, hu.dtype.type(LOWEST_HU), out=hu)
    return hu


def _bits_fault(dtype: np.dtype[Any], slopes: FloatArray) -> str | None:
    """Say that no voxel of this type can be air where another is tissue, as in a picture, or where a slope was lost."""
    if dtype.kind == "f" or (2.0 ** (8 * dtype.itemsize) - 1) * np.abs(slopes).max() >= _AIR_TO_TISSUE:
        return None
    return f"voxels of {8 * dtype.itemsize} bits in steps of {np.abs(slopes).max():g} hold no range from air to tissue"


def check_units(units: str | None) -> None:
    """Refuse units that are not known.

    Raises:
        InputError: ``units`` is neither None nor "hu".
    """
    if units not in (None, "hu"):
        raise InputError(f"units {units!r}; allowed is hu, or leave them out to have the values tested")


def check_finite(hu: npt.NDArray[Any], source: str) -> None:
    """Refuse HU that are not finite.

    Args:
        hu: Three axes.
        source: For messages.

    Raises:
        InputError: One is NaN or inf.
    """
    bad = 0
    first: tuple[int, ...] = ()
    for number, plane in enumerate(hu if hu.dtype.kind == "f" else ()):  # one by one, for memory
        finite = np.isfinite(plane)
        if not finite.all():
            first = first if bad else (number, *(int(n) for n in np.argwhere(~finite)[0]))
            bad += int(finite.size - finite.sum())
    if bad:
        raise _not_finite(source, bad, hu.size, first)


def units_note(source: str, fault: str, units: Units | None) -> str:
    """What to note of values that do not look like HU where they are to be taken for it.

    Raises:
        InputError: They are not.
    """
    if units is None:
        raise InputError(f"{source}: values are not HU: {fault}; {HU_NEEDED}")
    return f"assumed to be in HU as told, though {fault}"


def without_padding(hu: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return int16 or float32 ``hu``, a copy where anything lies below -1024, with that set to -1024."""
    return hu if hu.min() >= LOWEST_HU else np.maximum(hu, hu.dtype.type(LOWEST_HU))


def _checked_scale(
    slope: npt.ArrayLike, intercept: npt.ArrayLike, count: int, source: str
) -> tuple[FloatArray, FloatArray]:
    """Slope and intercept of each k."""
    slopes = np.broadcast_to(np.asarray(slope, dtype=np.float64), (count,))
    intercepts = np.broadcast_to(np.asarray(intercept, dtype=np.float64), (count,))
    if not (np.isfinite(slopes).all() and np.isfinite(intercepts).all() and slopes.all()):
        raise InputError(f"{source}: rescale slope or intercept is 0, NaN or inf; mend the header")
    sizes, largest = np.abs(slopes), float(np.abs(intercepts).max())
    if sizes.min() < _SLOPES[0] or sizes.max() > _SLOPES[1] or largest > _LARGEST:
        raise InputError(
            f"{source}: rescale slope is {slopes.flat[int(np.abs(np.log(sizes)).argmax())]:g}, intercept up to "
            f"{largest:g}; allowed are slopes from {_SLOPES[0]:g} to {_SLOPES[1]:g} and intercepts to {_LARGEST:g}, "
            "mend the header"
        )
    return slopes, intercepts


def _scaled(
    raw: npt.NDArray[Any], slopes: FloatArray, intercepts: FloatArray, source: str, labels: bool
) -> npt.NDArray[Any]:
    """Scale in two passes: the first decides the type, the second fills the result."""
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
        raise _not_finite(source, bad, raw.size, first_bad, labels)
    if max(abs(low), abs(high)) > float(np.finfo(np.float32).max):
        raise InputError(f"{source}: values reach {max(abs(low), abs(high)):g}; allowed are HU, check the scaling")
    exact = integral and low >= _INT16.min and high <= _INT16.max
    hu = np.empty(raw.shape, dtype=np.int16 if exact else np.float32, order="F")
    for k, values in enumerate(_slabs(raw, slopes, intercepts)):
        hu[:, :, k] = values
    return hu


def _not_finite(source: str, bad: int, size: int, first: tuple[int, ...], labels: bool = False) -> InputError:
    return InputError(
        f"{source}: {bad} of {size} voxels are NaN or inf, the first at index {first}; "
        f"allowed are {'whole numbers, write the mask again' if labels else 'finite HU, fill them (air is -1000)'}"
    )


def _slabs(raw: npt.NDArray[Any], slopes: FloatArray, intercepts: FloatArray) -> Iterator[npt.NDArray[Any]]:
    """Yield each k slab after scaling; float64 only where something is scaled."""
    for k, (slope, intercept) in enumerate(zip(slopes, intercepts, strict=True)):
        slab = raw[:, :, k]
        yield slab if slope == 1.0 and intercept == 0.0 else slab * slope + intercept


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
