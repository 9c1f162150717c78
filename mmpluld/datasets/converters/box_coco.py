"""COCO JSON of boxes in CT volumes: what of that format has a meaning here.

- An entry of ``images`` is a scan (``file_name`` is a volume file or DICOM folder), or one slice of it: then ``slice``
  holds its index along the third axis of the file, from 0.
- ``bbox`` has four numbers x, y, width, height on an image with ``slice``, or six, x, y, z, width, height, depth, on
  one without; voxels of the file as stored, from 0, as COCO counts (``--one-based`` shifts all of them).
- Read from an annotation: ``image_id``, ``bbox``, ``category_id`` (its name is the lesion's type), ``iscrowd`` or
  ``ignore`` (1: to be ignored), ``lesion`` (joins boxes on several slices into one lesion) and, with six numbers,
  ``key_slice``. From an image: ``patient``, ``split``, and ``width`` and ``height``, which are checked.

Everything else in the file is left alone. An image without annotations is a scan that was looked through.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmpluld.datasets.converters.box_rows import BoxRow, Convention, edges, truth_value, whole
from mmpluld.errors import InputError
from mmpluld.structures.text_files import read_json, refuse_faults

__all__ = ["read_box_coco"]

_NAMES_2D, _NAMES_3D = ("x", "y", "x + width", "y + height"), ("x", "y", "z", "x + width", "y + height", "z + depth")
_PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class _Image:
    """One entry of ``images``; ``index`` is the slice as counted from 0, None for a whole scan."""

    row: BoxRow
    index: int | None


def read_box_coco(path: str | os.PathLike[str], convention: Convention) -> list[BoxRow]:
    """Read a COCO file as the module says.

    Raises:
        InputError: The file is missing or no COCO JSON, the convention does not fit COCO, or entries are faulty (the
            first five are named).
    """
    file = Path(path)
    if convention.inclusive or convention.world:
        option = "--inclusive" if convention.inclusive else "--world"
        raise InputError(f"{file}: {option} is for CSV; COCO boxes are voxels with width and height, leave it out")
    data = _read(file)
    faults: list[str] = []
    images: dict[int | str, _Image] = {}
    for entry in data["images"]:
        try:
            name = _name(entry, "id")
            if name in images:
                raise ValueError("this id occurs twice")
            images[name] = _image(entry, convention)
        except ValueError as error:
            faults.append(f"image {entry.get('id')}: {error}")
    faults += _contradictions([image.row for image in images.values()])
    kinds: dict[int | str, str] = {}
    for item in data.get("categories") or ():
        try:
            name = _name(item, "id")
            if name in kinds:
                raise ValueError("this id occurs twice")
            kinds[name] = _text(item, "name")
        except ValueError as error:
            faults.append(f"category {item.get('id')}: {error}")
    refuse_faults(file, faults)
    rows = []
    for entry in data["annotations"]:
        try:
            rows.append(_row(entry, images, kinds, convention))
        except ValueError as error:
            faults.append(f"annotation {entry.get('id')}: {error}")
    refuse_faults(file, faults)
    named = {row.volume for row in rows}
    return rows + [image.row for image in images.values() if image.row.volume not in named]


def _contradictions(rows: Sequence[BoxRow]) -> list[str]:
    """Images of one scan that say different things of it, whether they have boxes or not."""
    faults = []
    first: dict[str, BoxRow] = {}
    for row in rows:
        known = first.setdefault(row.volume, row)
        for key in ("patient", "split"):
            said = getattr(known, key), getattr(row, key)
            if said[0] != said[1]:
                faults.append(
                    f"{known.where} and {row.where}: {key} of {row.volume!r} is {said[0]!r} and {said[1]!r}; needed is "
                    "one for all images of a scan"
                )
    return faults


def _read(file: Path) -> dict[str, Any]:
    data = read_json(file, "a CSV or COCO file of boxes")
    for key in ("images", "annotations", "categories"):
        entries = data.get(key) if isinstance(data, dict) else None
        if key == "categories" and entries is None:
            continue
        if not isinstance(entries, list) or not all(map(_is_object, entries)):
            raise InputError(f"{file}: no list {key!r} of objects; needed is COCO: images, annotations, categories")
    checked: dict[str, Any] = data
    return checked


def _is_object(value: object) -> bool:
    return isinstance(value, dict)


def _name(entry: Mapping[str, Any], key: str) -> int | str:
    """A number or text by which entries name each other."""
    value = entry.get(key)
    if not isinstance(value, int | str):
        raise ValueError(f"{key} is {str(value)[:40]!r}; needed is a number or text")
    return value


def _image(entry: Mapping[str, Any], convention: Convention) -> _Image:
    """Check one image.

    Raises:
        ValueError: A value is faulty; the message says which.
    """
    name = entry.get("file_name")
    if not isinstance(name, str) or not name:
        raise ValueError(f"file_name is {name!r}; needed is the file of a CT volume, or a DICOM folder")
    if name.lower().endswith(_PICTURES):
        raise ValueError(
            f"file_name is {name!r}, a picture, which holds no voxel size and mostly no HU; name the volume it was cut "
            "from and give its index as 'slice' (DeepLesion: mmpluld convert deeplesion)"
        )
    if name.lower().endswith(".dcm"):
        raise ValueError(
            f"file_name is {name!r}, one slice of a series; name the folder and give the slice's index, in the order "
            "of positions along the series, as 'slice'"
        )
    index = None if entry.get("slice") is None else whole("slice", entry["slice"]) - convention.one_based
    plane = None
    if entry.get("width") is not None and entry.get("height") is not None:
        plane = (whole("width", entry["width"]), whole("height", entry["height"]))
    row = BoxRow(
        f"image {entry.get('id')}",
        name,
        patient=_text(entry, "patient"),
        split=_text(entry, "split"),
        plane_xy=plane,
    )
    return _Image(row, index)


def _text(entry: Mapping[str, Any], key: str) -> str:
    value = entry.get(key)
    return "" if value is None else str(value).strip()


def _row(
    entry: Mapping[str, Any], images: Mapping[int | str, _Image], kinds: Mapping[int | str, str], convention: Convention
) -> BoxRow:
    """Check one annotation.

    Raises:
        ValueError: A value is faulty; the message says which.
    """
    image = images.get(_name(entry, "image_id"))
    if image is None:
        raise ValueError(f"image_id is {entry.get('image_id')!r}; there is no such image")
    box = _bbox(entry.get("bbox"))
    if kinds and _name(entry, "category_id") not in kinds:
        raise ValueError(f"category_id is {entry.get('category_id')!r}; there is no such category")
    row = replace(
        image.row,
        where=f"annotation {entry.get('id')}",
        lesion=_text(entry, "lesion"),
        type=kinds[entry["category_id"]] or None if kinds else None,
        ignore=truth_value("iscrowd", entry.get("iscrowd")) or truth_value("ignore", entry.get("ignore")),
    )
    corners, key = _edges(box, convention), entry.get("key_slice")
    if len(box) == 6:
        if image.index is not None:
            raise ValueError("bbox has 6 numbers, but its image is one slice; leave out 'slice', or give 4 numbers")
        return replace(
            row, box=corners, key_slice=None if key is None else whole("key_slice", key) - convention.one_based
        )
    if image.index is None:
        raise ValueError("bbox has 4 numbers, but its image has no 'slice'; add the slice's index, or give 6 numbers")
    if key is not None:
        raise ValueError("key_slice beside a box of one slice, which has no other; leave it out")
    x1, y1, x2, y2 = corners
    box_3d = (x1, y1, float(image.index), x2, y2, image.index + 1.0)
    return replace(row, box=box_3d, flat=True, key_slice=image.index)


def _bbox(value: object) -> list[float]:
    if not isinstance(value, list) or len(value) not in (4, 6) or not all(type(item) in (int, float) for item in value):
        raise ValueError(
            f"bbox is {str(value)[:60]}; needed is [x, y, width, height] on a slice, or [x, y, z, width, height, depth]"
        )
    return value


def _edges(box: Sequence[float], convention: Convention) -> tuple[float, ...]:
    """Near and far edges from the near corner and sizes."""
    half = len(box) // 2
    near, sizes = box[:half], box[half:]
    for name, size in zip(("width", "height", "depth"), sizes, strict=False):
        if not size > 0:
            raise ValueError(f"bbox has {name} {size:g}; needed is a number above 0")
    far = [start + size for start, size in zip(near, sizes, strict=True)]
    return edges((*near, *far), _NAMES_2D if half == 2 else _NAMES_3D, convention)
