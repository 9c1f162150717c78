"""Whether the slices of a series of PNGs are in HU, from a few of them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

from mmpluld.datasets.converters.report import LEFT_OUT, ConversionReport
from mmpluld.errors import InputError
from mmpluld.io.hounsfield import Units, units_note
from mmpluld.io.hu_check import hu_sample, slices_fault
from mmpluld.io.slice_sources import PNGSliceSource

__all__ = ["slices_in_hu"]

_LOOKED_AT = 3


def slices_in_hu(folder: Path, numbers: Iterable[int], units: Units | None, report: ConversionReport) -> bool:
    """Look at the first, the middle and the last of the slices; the report says what is wrong.

    Args:
        folder: PNGs of one series. Those that are missing or do not read are no matter here.
        numbers: Slices to choose from.
        units: ``hu`` to take the values for HU whatever they look like.
        report: Gets the reason for leaving the series out, or for keeping it nevertheless.

    Returns:
        False if the series is to be left out.
    """
    try:
        source = PNGSliceSource(folder, (math.nan,) * 3)
    except InputError:
        return True
    known = sorted(set(numbers) & set(source.indices.tolist()))
    samples = {}
    for rank in range(min(_LOOKED_AT, len(known))):
        number = known[rank * (len(known) - 1) // max(min(_LOOKED_AT, len(known)) - 1, 1)]
        try:
            samples[number] = hu_sample(source.read(number))
        except InputError:
            continue
    fault = slices_fault(samples)
    if fault is None:
        return True
    try:
        report.remark("values do not look like HU", units_note(str(folder), fault, units))
    except InputError as error:
        report.remark(LEFT_OUT, str(error))
        return False
    return True
