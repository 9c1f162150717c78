"""Corrections to scans whose headers are wrong: a table from the user, applied by volume.

CSV with the header ``volume,spacing_mm,flip,flip_mask,match,exclude`` (cells may be empty, columns but the first may be
missing; ``spacing_mm`` is three numbers z y x), or JSON ``{"<volume>": {"spacing_mm": [z, y, x], ...}}``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmpluld.errors import InputError, counted, did_you_mean
from mmpluld.structures import CTVolume
from mmpluld.structures.text_files import parse_number, parse_rows, read_json, read_table
from mmpluld.structures.volume import VOXEL_MM
from mmpluld.typing import FloatArray, StrPath

__all__ = ["Override", "apply_override", "mirrored", "mirrored_affine", "read_overrides", "resized_affine"]

_KEYS = ("spacing_mm", "flip", "flip_mask", "match", "exclude")


@dataclass(frozen=True)
class Override:
    """What to change in one volume.

    Attributes:
        spacing_mm: (z, y, x) to take instead of the header's.
        flip: Canonical axes, some of "xyz", along which the header tells the direction wrongly; image, mask and
            boxes are mirrored together.
        flip_mask: Canonical axes along which the mask alone is mirrored to lie on its image.
        match: ``voxels`` lays the mask on its image voxel for voxel, even where their headers contradict each other;
            empty matches them by their headers.
        exclude: Why the volume is left out; empty keeps it.
    """

    spacing_mm: tuple[float, float, float] | None = None
    flip: str = ""
    flip_mask: str = ""
    match: str = ""
    exclude: str = ""


def read_overrides(path: StrPath | None, volumes: Iterable[str]) -> dict[str, Override]:
    """Read the table; every name in it must be one of ``volumes``.

    Raises:
        InputError: The file is missing or malformed, names an unknown volume or column, or holds a bad value.
    """
    if path is None:
        return {}
    file, known = Path(path), list(volumes)
    found = {}
    for name, raw in _rows(file):
        if name not in known:
            hint = did_you_mean(name, known, f"the dataset has {counted(len(known), 'volume')}")
            raise InputError(f"{file}: unknown volume {name!r}{hint}")
        if name in found:
            raise InputError(f"{file}: volume {name!r} occurs twice; keep one row")
        found[name] = _override(f"{file}: volume {name!r}", raw)
    return found


def apply_override(volume: CTVolume, override: Override) -> CTVolume:
    """Return the volume with another spacing and mirrored axes.

    Marks given in mm fall on the same tissue: after a flip world coordinates stay those of the file, for the affine is
    mirrored with the array, and another spacing leaves the file's first voxel where the header puts it.
    """
    affine = volume.affine_lps.copy()
    array, axes = mirrored(volume.array, override.flip), list(volume.source_axes)
    if override.spacing_mm is not None:
        factors = np.asarray(override.spacing_mm[::-1]) / np.asarray(volume.spacing_mm[::-1])
        affine = resized_affine(affine, factors, volume.first_voxel)
    affine = mirrored_affine(affine, array.shape, override.flip)
    for letter in override.flip:
        axes["xyz".index(letter)] *= -1
    x, y, z = axes
    return CTVolume(np.ascontiguousarray(array), affine, volume.source_shape, (x, y, z), volume.source, volume.history)


def resized_affine(affine_lps: FloatArray, factors_xyz: FloatArray, fixed_xyz: FloatArray) -> FloatArray:
    """Affine (4, 4) of voxels larger by some factors, of which the voxel ``fixed_xyz`` keeps its place."""
    affine: FloatArray = affine_lps.copy()
    affine[:3, :3] *= factors_xyz
    affine[:3, 3] += (affine_lps - affine)[:3, :3] @ fixed_xyz
    return affine


def mirrored(array: npt.NDArray[Any], letters: str) -> npt.NDArray[Any]:
    """View of ``array`` (z, y, x) with the axes named by ``letters`` ("x", "xz") reversed, once for each mention."""
    for letter in letters:
        array = np.flip(array, 2 - "xyz".index(letter))
    return array


def mirrored_affine(affine_lps: FloatArray, shape: Sequence[int], letters: str) -> FloatArray:
    """Affine (4, 4) of :func:`mirrored` of an array of ``shape`` (z, y, x) that ``affine_lps`` is that of."""
    affine: FloatArray = affine_lps.copy()
    for letter in letters:
        axis = "xyz".index(letter)
        affine[:3, 3] += affine[:3, axis] * (shape[2 - axis] - 1)
        affine[:3, axis] *= -1
    return affine


def _rows(file: Path) -> list[tuple[str, dict[str, Any]]]:
    wanted = "a CSV or JSON table of overrides"
    if file.suffix.lower() == ".json":
        data = read_json(file, wanted)
        if not isinstance(data, dict) or not all(isinstance(value, dict) for value in data.values()):
            raise InputError(f'{file}: needed is {{"<volume>": {{"spacing_mm": [z, y, x], ...}}}}; mend the table')
        return list(data.items())
    table = read_table(file, wanted, ("volume",))
    return parse_rows(
        file,
        table,
        lambda row, line, cells: (cells.pop("volume"), {key: value for key, value in cells.items() if key and value}),
    )


def _override(where: str, raw: dict[str, Any]) -> Override:
    for key in raw:
        if key not in _KEYS:
            hint = did_you_mean(key, _KEYS)
            raise InputError(f"{where}: unknown column {key!r}; allowed are {', '.join(_KEYS)}{hint}")
    for key in ("flip", "flip_mask"):
        axes = raw.get(key, "")
        if not isinstance(axes, str) or len(set(axes)) != len(axes) or not set(axes) <= set("xyz"):
            raise InputError(f"{where}: {key} is {axes!r}; allowed are some of the letters xyz, each once")
    match = raw.get("match") or ""
    if match not in ("", "voxels"):
        raise InputError(f"{where}: match is {match!r}; allowed is voxels, or nothing to match by the headers")
    exclude = raw.get("exclude") or ""
    if not isinstance(exclude, str):
        raise InputError(f"{where}: exclude is {exclude!r}; needed is the reason in words, which excludes the volume")
    spacing = raw.get("spacing_mm")
    return Override(
        spacing_mm=None if spacing is None else _spacing(where, spacing),
        flip=raw.get("flip", ""),
        flip_mask=raw.get("flip_mask", ""),
        match=match,
        exclude=exclude,
    )


def _spacing(where: str, value: Any) -> tuple[float, float, float]:
    try:
        parts = value.replace(",", " ").split() if isinstance(value, str) else value
        z, y, x = (parse_number("spacing_mm", str(part)) for part in parts)
    except (TypeError, ValueError):
        z = y = x = math.nan
    least, most = VOXEL_MM
    if not all(least <= part <= most for part in (z, y, x)):
        raise InputError(
            f"{where}: spacing_mm is {repr(value)[:60]}; needed are three numbers z y x above 0, from {least:g} to "
            f"{most:g} mm"
        )
    return z, y, x
