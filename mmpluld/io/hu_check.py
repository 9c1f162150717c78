"""Whether voxels are Hounsfield units, from what a CT of a body must show.

Fixed points of the scale: air is -1000, lung above it, fat about -100, soft tissue 0 to 80 (with contrast to 300), and
little but bone and metal lies above 700. Padding (the lowest value, or 0, in very many voxels) is left out first.
Looked for are, in this order: values too close together (normalised); slices that lie a rescale intercept above or
below their neighbours; much below air (intercept applied twice); a lower end cut off above air (windowed); no soft
tissue; soft tissue about 1000 (no intercept); air at 1000 (another sign); no air, lung or fat, or air that is not about
-1000 (another slope); and the same in single slices.

At most about a million voxels are looked at, at even steps, so that the outcome is the same each time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mmpluld.errors import name_some
from mmpluld.typing import BoolArray, FloatArray, IntArray

__all__ = ["HU_NEEDED", "hu_sample", "mask_fault", "slices_fault", "volume_fault"]

HU_NEEDED = (
    "needed are Hounsfield units (air about -1000, fat -100, soft tissue 0 to 80), "
    "apply the rescale slope and intercept, or take the values as they are (--units hu)"
)

_MOST_VOXELS, _FEWEST_A_SLICE, _MOST_A_SLICE = 1_000_000, 256, 4096
_RANGE = 40_000  # the histogram's half width, beyond the 16 bits of any scanner
_BELOW_AIR, _AIR_UP_TO, _LUNG_UP_TO, _BODY_FROM, _DENSE_FROM = -1080, -850, -250, -250, 700
_FAT, _SOFT, _BETWEEN = (-160, -40), (-200, 300), (-650, -300)
_RAISED = (850, 1300)  # fat and soft tissue without their intercept of -1024 or -1000
_TURNED = (850, 1100)  # air times -1
_DENSEST, _METAL = 3000, 0.05  # where scales end, and the largest share of a scan that may be metal
_NARROWEST_SPAN = 15.0
_NARROWEST_TISSUE = 220  # from fat to vessels, where there is no air
_SPIKE, _CUT_OFF, _FEWEST_EQUAL = 0.005, 0.01, 20  # shares, and a count
_MOST_LABELS, _HIGHEST_LABEL = 64, 512
_JUMP = 700  # offsets of CT are 1000, 1024, or more


def volume_fault(array: npt.NDArray[Any], names: Sequence[str] | None = None) -> str | None:
    """Say why a volume is not in HU; None if it is, as far as its values show.

    Args:
        array: Three axes in any order, whole or real numbers, finite.
        names: What the slices along the last axis are called in messages.
    """
    for axis in (2, 1, 0):
        values = _sampled(array, axis)
        if axis == 2 and (fault := _narrow_fault(values)):
            return fault
        called = names if names is not None and axis == 2 else [f"{'ijk'[axis]} {n}" for n in range(len(values))]
        if fault := _jump_fault(values, np.arange(len(values)), called):
            return fault
        if axis == 2:
            last, last_names = values, called
    return _values_fault(last, last_names)


def mask_fault(array: npt.NDArray[Any]) -> str | None:
    """Say that a volume, three axes in any order, looks like a label mask: few whole values, from 0 up."""
    low, high = array.min(), array.max()
    if not 0 <= low < high <= _HIGHEST_LABEL:
        return None
    found = np.union1d(_sampled(array, 2), [low, high])
    if len(found) > _MOST_LABELS or (found != np.rint(found)).any():
        return None
    return f"looks like a label mask (whole numbers from {low:g} to {high:g}, {len(found)} of them), not like a CT"


def slices_fault(slices: Mapping[int, npt.NDArray[Any]]) -> str | None:
    """The same for some slices of a series, each (H, W), by their numbers; jumps are looked for where two adjoin."""
    if not slices:
        return None
    numbers = sorted(slices)
    steps = _steps(slices[numbers[0]].shape, len(numbers))
    samples = [slices[number][:: steps[0], :: steps[1]].ravel() for number in numbers]
    values = np.stack([sample for sample in samples if sample.size == samples[0].size])
    if len(values) != len(samples):
        return None  # slices of several sizes are another fault, told elsewhere
    names = [str(number) for number in numbers]
    return _narrow_fault(values) or _jump_fault(values, np.array(numbers), names) or _values_fault(values, names)


def hu_sample(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The pixels of a slice (H, W) that suffice for :func:`slices_fault`, a copy."""
    steps = _steps(values.shape, 1)
    sample: npt.NDArray[Any] = values[:: steps[0], :: steps[1]].copy()
    return sample


def _steps(shape: Sequence[int], count: int) -> tuple[int, int]:
    """Steps in the plane that leave an even sample of a slice."""
    wanted = min(max(_MOST_VOXELS // count, _FEWEST_A_SLICE), _MOST_A_SLICE) ** 0.5
    first, second = (max(1, int(size / wanted)) for size in shape)
    return first, second


def _sampled(array: npt.NDArray[Any], axis: int) -> npt.NDArray[Any]:
    """(slices along ``axis``, pixels)."""
    others = [n for n in range(3) if n != axis]
    steps = dict(zip(others, _steps([array.shape[n] for n in others], array.shape[axis]), strict=True))
    part = array[tuple(slice(None, None, steps.get(n, 1)) for n in range(3))]
    return np.ascontiguousarray(np.moveaxis(part, axis, 0)).reshape(array.shape[axis], -1)


def _narrow_fault(values: npt.NDArray[Any]) -> str | None:
    """Values too close together for air, fat and soft tissue."""
    low, high = float(values.min()), float(values.max())
    if low == high:
        return f"all values are {low:g}"
    above = values[values > low]  # the lowest may be padding
    first, last = np.percentile(above, [1, 99])
    if last - first >= _NARROWEST_SPAN:
        return None
    padding = f", beside {low:g}," if first - low > _NARROWEST_SPAN else ""
    return f"98 % of the values{padding} lie between {first:.4g} and {last:.4g}, so they are normalised, or no CT"


def _jump_fault(values: npt.NDArray[Any], numbers: IntArray, names: Sequence[str]) -> str | None:
    """Neighbouring slices that show the same at values far apart, as where only one of them was rescaled."""
    pixels = values.astype(np.float32)
    pixels[(pixels < _BELOW_AIR) | (pixels == pixels.min())] = np.nan  # padding need not move along
    found = []
    few = pixels[:, :: max(1, pixels.shape[1] // 256)]
    with np.errstate(invalid="ignore"):
        moved = (np.abs(np.diff(few, axis=0)) > _JUMP - 50).sum(axis=1) > 0.4 * np.isfinite(np.diff(few, axis=0)).sum(
            axis=1
        )
    for k in np.flatnonzero((np.diff(numbers) == 1) & moved).tolist():
        shift = _shift(pixels[k], pixels[k + 1])
        if shift is not None:
            found.append(f"by {shift:+.0f} from slice {names[k]} to {names[k + 1]}")
    if not found:
        return None
    jumps = name_some(found, 4, "times more")
    return f"all values jump {jumps}, so the rescale is missing, or another, in part of the series"


def _shift(one: FloatArray, two: FloatArray) -> float | None:
    """By how much slice ``two`` lies above ``one``, if both show the same and it is 700 or more."""
    step = two - one
    step = step[np.isfinite(step)]
    if step.size < 50:
        return None
    first, middle, last = np.partition(step, [step.size // 4, step.size // 2, 3 * step.size // 4])[
        [step.size // 4, step.size // 2, 3 * step.size // 4]
    ]
    if abs(middle) < _JUMP or last - first > 300:
        return None
    both = np.isfinite(one) & np.isfinite(two)
    with np.errstate(all="ignore"):
        alike = np.corrcoef(one[both], two[both])[0, 1]
    return float(middle) if alike > 0.6 else None


def _values_fault(values: npt.NDArray[Any], names: Sequence[str]) -> str | None:
    """What the histogram of all slices, then of each, says against HU."""
    whole = np.clip(np.rint(values), -_RANGE, _RANGE).astype(np.int32)
    counts = np.bincount(whole.ravel() + _RANGE, minlength=2 * _RANGE + 1)
    padding = _padding(counts)
    kept = counts.copy()
    kept[[value + _RANGE for value in padding]] = 0
    if kept.sum() < max(1, 0.002 * counts.sum()):
        return f"{_found(counts, padding)}; nothing is left beside the padding"
    fault = _histogram_fault(kept, _floor_share(counts, padding))
    if fault is None and len(values) > 1:
        fault = _slice_fault(whole, padding, names)
    return None if fault is None else f"{fault}; {_found(counts, padding)}"


def _padding(counts: IntArray) -> list[int]:
    """Values that fill what was not scanned: the lowest ones where each is a spike, and 0 where that is one."""
    total, found = counts.sum(), []
    occupied = np.flatnonzero(counts)
    for place in occupied[:3]:
        value = int(place) - _RANGE
        around = counts[place + 1 : place + 21].sum() / 20
        if value > -900 or counts[place] < max(_SPIKE * total, 10 * around, _FEWEST_EQUAL):
            break
        found.append(value)
    around = (counts[_RANGE - 20 : _RANGE + 21].sum() - counts[_RANGE]) / 40
    rest = total - counts[_RANGE] - sum(counts[value + _RANGE] for value in found)
    if counts[_RANGE] > max(0.05 * total, 20 * around, _FEWEST_EQUAL) and rest > 0.02 * total and occupied[0] < _RANGE:
        found.append(0)
    return found


def _floor_share(counts: IntArray, padding: Sequence[int]) -> float:
    """Share of the voxels at a spike where air is: the air of an image without noise, or else padding."""
    return float(sum(counts[value + _RANGE] for value in padding if -1050 <= value <= -950) / counts.sum())


def _histogram_fault(counts: IntArray, floor_share: float) -> str | None:
    """What speaks against HU, padding left out."""
    total = counts.sum()

    def share(low: float, high: float = _RANGE, of: float = total) -> float:
        """Share of the voxels from ``low`` up to ``high``."""
        return float(counts[int(low) + _RANGE : int(high) + _RANGE + 1].sum() / max(of, 1))

    highest = int(np.flatnonzero(counts)[-1]) - _RANGE
    if highest >= _DENSEST and counts[highest + _RANGE] > max(_METAL * total, _FEWEST_EQUAL):
        return (
            f"{counts[highest + _RANGE] / total:.0%} of the voxels are {highest}{' or more' * (highest == _RANGE)}, as "
            "only metal is: is it padding, or were values below 0 stored without a sign?"
        )
    below, low, body = share(-_RANGE, _BELOW_AIR - 1), share(_BELOW_AIR, _LUNG_UP_TO), share(_BODY_FROM)
    body_voxels = body * total
    soft, dense = share(*_SOFT, of=body_voxels), share(_DENSE_FROM, of=body_voxels)
    lowest = int(np.flatnonzero(counts)[0]) - _RANGE
    at_lowest = counts[lowest + _RANGE]
    if below > 0.15:
        return (
            f"{below:.0%} of the voxels are below {_BELOW_AIR}, where not even air is: is the intercept applied twice?"
        )
    # Air painted with one value around nothing but soft tissue, as in a water phantom.
    tissue, raised = share(-160, 250, of=body_voxels), share(*_RAISED, of=body_voxels)
    if floor_share > 0.02 and low < 0.02 and tissue > 0.8 and raised < 0.03:
        return None
    if lowest > -20:
        return f"no value is below {min(lowest, 0)}, so there is neither air nor fat: is the rescale intercept missing?"
    next_to_it = counts[lowest + _RANGE + 1 : lowest + _RANGE + 21].any()  # unlike painted tissue
    if lowest > -900 and next_to_it and at_lowest > max(_CUT_OFF * total, _FEWEST_EQUAL):
        return f"{at_lowest / total:.0%} of the voxels are {lowest}, where the values were cut off (a window of a CT)"
    if body < 0.005:
        return f"{body:.1%} of the voxels are above {_BODY_FROM}, so there is no soft tissue"
    if soft < 0.2:
        return f"{soft:.0%} of what lies above {_BODY_FROM} is soft tissue ({_SOFT[0]} to {_SOFT[1]})"
    if low < 0.05 and dense > 0.1 and share(*_RAISED) > 0.7 * share(_SOFT[1]):
        return (
            f"{dense:.0%} of what lies above {_BODY_FROM} is about 1000 and nothing is air: is the intercept missing, "
            "or is the sign another?"
        )
    # Bone has denser parts, unless they were cut off, which leaves one value.
    turned, air = share(*_TURNED), share(_BELOW_AIR, _AIR_UP_TO)
    one_value = counts[highest + _RANGE] > 0.5 * turned * total
    if turned > 0.02 and air < 0.2 * turned and share(_TURNED[1] + 1) < 0.02 * turned and not one_value:
        return (
            f"{turned:.0%} of the voxels are about 1000 and {air:.1%} about -1000, where air is: is the sign another?"
        )
    between = share(*_BETWEEN)
    if between > 2 * body and (peak := _narrow_peak(counts, *_BETWEEN)) is not None:
        return f"{between:.0%} of the voxels are about {peak}, where neither lung nor fat is: is the slope another?"
    peak = _narrow_peak(counts, _BELOW_AIR, _LUNG_UP_TO)
    moved = peak is not None and peak > -865 and share(_BELOW_AIR, -900) < 0.01 * low
    moved = moved and peak is not None and share(peak - 30, peak + 30) > 0.5  # lung is broader, and not so much
    if not moved and low > 0.003 and share(_BELOW_AIR, -800) > 0.02 * low:
        return None
    if low > 0.02 and peak is not None:
        return f"air is at {peak}; are slope and intercept applied?"
    if share(*_FAT, of=body_voxels) > 0.01 and highest - lowest > _NARROWEST_TISSUE:
        return None
    return f"there is no air, lung or fat ({low:.1%} of the voxels are below {_LUNG_UP_TO})"


def _narrow_peak(counts: IntArray, low: int, high: int) -> int | None:
    """Where 60 neighbouring values hold the better part of the voxels from ``low`` to ``high``; lung is broader."""
    part = counts[low + _RANGE : high + _RANGE + 1]
    held = np.convolve(part, np.ones(60), "same")
    middle = int(np.searchsorted(part.cumsum(), part.sum() / 2))
    return low + middle if held.max() > 0.4 * part.sum() else None


def _slice_fault(whole: IntArray, padding: Sequence[int], names: Sequence[str]) -> str | None:
    """Single slices that lie 1000 above or below the others."""
    kept: BoolArray = ~np.isin(whole, np.array(padding, whole.dtype))
    sizes = np.maximum(kept.sum(axis=1), 1)

    def shares(low: int, high: int) -> FloatArray:
        return np.asarray((kept & (whole >= low) & (whole <= high)).sum(axis=1) / sizes)

    raised = (shares(-_RANGE, -50) < 0.01) & (shares(*_RAISED) > np.maximum(0.1, 0.7 * shares(_SOFT[1], _RANGE)))
    lowered = shares(-_RANGE, _BELOW_AIR - 1) > 0.5
    body = shares(_BODY_FROM, _RANGE)
    steeper = (body > 0.05) & (shares(*_SOFT) < 0.1 * body) & (shares(_DENSE_FROM, _RANGE) > 0.6 * body)
    odd = np.flatnonzero((raised | lowered | steeper) & (sizes >= 50)).tolist()
    if not odd:
        return None
    what = name_some([names[k] for k in odd], 6)
    return f"slices {what} are far denser or lighter than tissue: is the rescale missing, or another, in them?"


def _found(counts: IntArray, padding: Sequence[int]) -> str:
    """Range, padding and up to three peaks, in words."""
    values = np.flatnonzero(counts)
    kept = counts.copy()
    kept[[value + _RANGE for value in padding]] = 0
    smooth = np.convolve(kept, np.bartlett(81), "same")  # highest in the middle of a peak
    peaks: list[str] = []
    while len(peaks) < 3 and smooth.max() > 0.02 * counts.sum():
        place = int(smooth.argmax())
        peaks.append(f"{place - _RANGE} ({kept[max(0, place - 40) : place + 41].sum() / counts.sum():.0%})")
        smooth[max(0, place - 150) : place + 151] = 0
    pads = "".join(f", {counts[value + _RANGE] / counts.sum():.0%} padding of {value}" for value in padding)
    shown = f", peaks at {', '.join(peaks)}" if peaks else ""
    return f"found are values from {values[0] - _RANGE} to {values[-1] - _RANGE}{pads}{shown}"
