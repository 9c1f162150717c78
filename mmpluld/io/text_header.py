"""What the headers of MetaImage and NRRD have in common: fields of text, some of them numbers."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path

from mmpluld.errors import InputError
from mmpluld.io.promised import Promise

__all__ = ["TextHeader", "numbers", "whole_numbers"]


@dataclass
class TextHeader:
    """What a header says.

    Attributes:
        promise: The voxels it promises; a voxel counts with all its components.
        components: Values of a voxel.
        lengths: The field that the size of a voxel comes from, for messages.
        notes: What is assumed because the header does not say it.
        parts: Names of the files that hold the voxels, relative to the header's folder; none if it holds them itself.
    """

    promise: Promise
    components: int
    lengths: str
    notes: list[str] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)

    @property
    def is_volume(self) -> bool:
        """Whether it is one 3D volume of single values; nothing else is looked at further."""
        shape = self.promise.shape
        return self.components == 1 and len(shape) >= 3 and all(size == 1 for size in shape[3:])


def whole_numbers(file: Path, name: str, value: str, count: int, least: int, most: int = 1 << 40) -> list[int]:
    """Return the ``count`` whole numbers of a field.

    Raises:
        InputError: They are others, or fewer or more.
    """
    words = value.split()
    if len(words) == count and all(re.fullmatch(r"[+-]?\d{1,15}", word) for word in words):
        found = [int(word) for word in words]
        if all(least <= number <= most for number in found):
            return found
    raise InputError(
        f"{file}: {name} is {value[:60]!r}; needed {'is' if count == 1 else 'are'} {count} whole number"
        f"{'' if count == 1 else 's'} of {least} or more, mend the header or export the scan again"
    )


def numbers(file: Path, name: str, value: str, count: int) -> list[float]:
    """Return the ``count`` finite numbers of a field.

    Raises:
        InputError: They are others, or fewer or more.
    """
    try:
        found = [float(word) for word in value.split()]
    except ValueError:
        found = []
    if len(found) != count or not all(map(math.isfinite, found)):
        raise InputError(f"{file}: {name} is {value[:60]!r}; needed are {count} finite numbers, mend the header")
    return found
