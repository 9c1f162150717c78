"""Annotation and detection records: the two JSON files that every part of the package reads and writes.

The schemas lie beside this module in ``schemas/``; what a schema cannot say (known volumes, boxes inside the
volume, unique ids) is checked here. Both are checked when a file is read and before one is written.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
import numpy.typing as npt

from mmpluld.atomic import atomic_write_text, refuse_unfinished
from mmpluld.compat.memory import uncollected
from mmpluld.errors import InputError, did_you_mean, name_some
from mmpluld.structures.boxes import as_boxes, centres_between
from mmpluld.structures.lesion_record import LesionRecord
from mmpluld.structures.run_lengths import run_lengths
from mmpluld.structures.slice_boxes import boxes_by_slice
from mmpluld.structures.text_files import parse_json, read_json
from mmpluld.structures.volume import checked_affine
from mmpluld.structures.volume_record import (
    CANONICAL_VOXELS,
    FILE_VOXELS,
    SERIES_SLICES,
    VolumeRecord,
    check_geometry,
)
from mmpluld.typing import FloatArray, IntArray, StrPath

__all__ = [
    "CANONICAL_VOXELS",
    "FILE_VOXELS",
    "LESION_TYPES",
    "SERIES_SLICES",
    "AnnotationSet",
    "DetectionSet",
    "Detections",
    "LesionRecord",
    "VolumeRecord",
]

LESION_TYPES: dict[int, str] = {
    1: "bone",
    2: "abdomen",
    3: "mediastinum",
    4: "liver",
    5: "lung",
    6: "kidney",
    7: "soft tissue",
    8: "pelvis",
}
"""Coarse lesion types by the number DeepLesion gives them."""

_WANTED = {
    "annotations": "an annotation file (mmpluld.annotations/1 JSON)",
    "detections": "a detection file (mmpluld.detections/1 JSON)",
}


@dataclass
class AnnotationSet:
    """All volumes and lesions of one split of a dataset (schema ``mmpluld.annotations/1``).

    Attributes:
        dataset: At least ``name`` and ``label_scope``.
        volumes: All volumes, each once, also those without a lesion.
        lesions: The lesions of all volumes, in any order, with ids of their own.
    """

    dataset: dict[str, Any]
    volumes: list[VolumeRecord] = field(default_factory=list)
    lesions: list[LesionRecord] = field(default_factory=list)

    @classmethod
    @uncollected()
    def load(cls, path: StrPath) -> AnnotationSet:
        """Read and check an annotation file.

        Raises:
            InputError: If the file is missing, not JSON, breaks the schema, contradicts itself, or belongs to a
                conversion that was interrupted.
        """
        refuse_unfinished(path)
        return cls.parse(read_json(path, _WANTED["annotations"]), path)

    @classmethod
    def parse(cls, data: Any, path: StrPath) -> AnnotationSet:
        """Check the content of an annotation file; ``path`` is its name for messages.

        Raises:
            InputError: As :meth:`load`.
        """
        _validate(data, path, "annotations")
        volumes = [VolumeRecord(**_volume_fields(item)) for item in data["volumes"]]
        lesions = [LesionRecord(**_lesion_fields(item)) for item in data["lesions"]]
        annotations = cls(data["dataset"], volumes, lesions)
        annotations._check(path)
        return annotations

    @uncollected()
    def save(self, path: StrPath) -> None:
        """Check and write the file, whole or not at all; one volume or lesion a line.

        Raises:
            InputError: If the content breaks the schema or contradicts itself; nothing is written.
        """
        volumes = self.plain_volumes()
        lesions = [vars(lesion) for lesion in self.lesions]
        text = (
            f'{{"schema": "mmpluld.annotations/1",\n"dataset": {_dumps(self.dataset, path)},\n'
            f'"volumes": [\n{_lines(volumes, path)}],\n"lesions": [\n{_lines(lesions, path)}]}}\n'
        )
        _validate(parse_json(text, path, "finite numbers and texts"), path, "annotations")
        self._check(path)
        atomic_write_text(path, text)

    def plain_volumes(self) -> list[dict[str, Any]]:
        """The volumes as JSON has them."""
        volumes = [dict(vars(volume)) for volume in self.volumes]
        for item in volumes:
            if item["affine_lps"] is None:
                del item["affine_lps"]
            item["spacing_mm"] = [None if np.isnan(value) else value for value in item["spacing_mm"]]
        return volumes

    def lesions_by_volume(self) -> dict[str, list[LesionRecord]]:
        """Return the lesions of every volume (an empty list where there are none), in file order."""
        grouped: dict[str, list[LesionRecord]] = {volume.id: [] for volume in self.volumes}
        for lesion in self.lesions:
            grouped[lesion.volume].append(lesion)
        return grouped

    def _check(self, path: StrPath) -> None:
        """Refuse what the schema cannot express."""
        _refuse_duplicates(path, "volume", (volume.id for volume in self.volumes))
        _refuse_duplicates(path, "lesion", (lesion.id for lesion in self.lesions))
        volumes = {volume.id: volume for volume in self.volumes}
        for volume in self.volumes:
            check_geometry(path, volume)
        boxes = np.array([lesion.box for lesion in self.lesions], dtype=np.float64).reshape(-1, 6)
        infinite = set(np.flatnonzero(~np.isfinite(boxes).all(axis=1)).tolist())
        backward = set(np.flatnonzero((boxes[:, 3:] < boxes[:, :3]).any(axis=1)).tolist())
        for row, lesion in enumerate(self.lesions):
            item = f"{path}: lesion {lesion.id}"
            if lesion.volume not in volumes:
                hint = did_you_mean(lesion.volume, volumes, "add the volume or remove the lesion")
                raise InputError(f"{item}: unknown volume '{lesion.volume}' ({len(volumes)} listed){hint}")
            if row in infinite:
                raise InputError(f"{item}: box {list(lesion.box)}; allowed are finite numbers, mend the box")
            if row in backward:
                raise InputError(
                    f"{item}: box {list(lesion.box)} ends before it begins; order is x1, y1, z1, x2, y2, z2"
                )
            _check_slices(item, lesion, volumes[lesion.volume])
            _check_origins(item, lesion.attributes)


@dataclass
class Detections:
    """Boxes of one volume.

    Attributes:
        boxes: (N, 6) voxel edges in ``frame``.
        scores: (N,), or None in a ground truth.
        world_lps: (N, 6) hulls in LPS mm.
        key_slices: (N,) index of the best slice along ``slice_axis`` of the file.
        diameters_mm: (N, 2) long and short RECIST diameter on the key slice; NaN where unknown (null in the file).
        tags: (N,) score of each tag by its name, best first.
        slice_axis: File axis of ``key_slices`` (0, 1, 2); 2 unless the file is not stored slice by slice.
        spacing_mm: (z, y, x) of the canonical volume.
        source: Name of the scan.
        history: What was done to the scan.
        frame: What the boxes count: ``FILE_VOXELS``, ``CANONICAL_VOXELS`` or ``SERIES_SLICES``; None: what the record
            counts that it is compared with. Files of ``mmpluld detect`` that do not say it are in file voxels.
        shape: Sizes of the axes that the boxes count, (i, j, k) of the file or (x, y, z).
        affine_lps: (4, 4), voxel-centre index along these axes to LPS mm, which maps one frame to the other.
        first_slice: Number of the first slice, for ``SERIES_SLICES``.
    """

    boxes: FloatArray
    scores: FloatArray | None = None
    world_lps: FloatArray | None = None
    key_slices: IntArray | None = None
    slice_axis: int | None = None
    diameters_mm: FloatArray | None = None
    tags: tuple[dict[str, float], ...] | None = None
    spacing_mm: tuple[float, float, float] | None = None
    source: str | None = None
    history: tuple[str, ...] | None = None
    frame: str | None = None
    shape: tuple[int, int, int] | None = None
    affine_lps: FloatArray | None = None
    first_slice: int | None = None


@dataclass
class DetectionSet:
    """Detections by volume id (schema ``mmpluld.detections/1``)."""

    volumes: dict[str, Detections] = field(default_factory=dict)

    @classmethod
    @uncollected()
    def load(cls, path: StrPath) -> DetectionSet:
        """Read and check a detection file.

        Raises:
            InputError: If the file is missing, not JSON, breaks the schema, or its lists do not fit together.
        """
        data = _read_json(path, "detections")
        return cls({name: _parse_detections(item, path, name) for name, item in data["volumes"].items()})

    def save(self, path: StrPath) -> None:
        """Check and write the file, whole or not at all; one volume a line.

        Raises:
            InputError: If the content breaks the schema or lists do not fit together; nothing is written.
        """
        lines = []
        for name, item in self.volumes.items():
            plain = {key: _listed(value) for key, value in vars(item).items() if value is not None}
            if item.diameters_mm is not None:
                plain["diameters_mm"] = [None if np.isnan(row).any() else row.tolist() for row in item.diameters_mm]
            _validate({"schema": "mmpluld.detections/1", "volumes": {name: plain}}, path, "detections")
            _parse_detections(plain, path, name)
            lines.append(f"{json.dumps(name)}: {_dumps(plain, path)}")
        body = ",\n".join(lines)
        atomic_write_text(path, f'{{"schema": "mmpluld.detections/1",\n"volumes": {{\n{body}}}}}\n')


def _check_slices(item: str, lesion: LesionRecord, volume: VolumeRecord) -> None:
    """Refuse a lesion whose slices are not slices of its volume."""
    first, end = volume.first_slice, volume.first_slice + volume.num_slices
    if lesion.box[2] < first or lesion.box[5] > end:
        raise InputError(
            f"{item}: z range [{lesion.box[2]:g}, {lesion.box[5]:g}] leaves volume '{volume.id}', which "
            f"covers [{first}, {end}]; z counts slices of the whole series, mend the box or the volume"
        )
    if lesion.mask is not None and (lesion.key_slice is None or tuple(lesion.mask["size"]) != tuple(volume.shape_yx)):
        raise InputError(
            f"{item}: mask of size {lesion.mask['size']} with key slice {lesion.key_slice}; a mask lies on the key "
            f"slice and has its size {list(volume.shape_yx)}, mend or remove the mask"
        )
    if lesion.mask is not None:
        _check_runs(item, lesion.mask)
    if lesion.key_slice is not None and not first <= lesion.key_slice < end:
        raise InputError(
            f"{item}: key slice {lesion.key_slice} is not a slice of volume '{volume.id}', allowed are "
            f"{first} to {end - 1}; mend the key slice"
        )
    _check_rows(item, lesion, range(first, end), volume.id)
    held = centres_between(lesion.box[2], lesion.box[5])
    if lesion.key_slice is not None and lesion.key_slice not in held:
        raise InputError(
            f"{item}: key slice {lesion.key_slice} lies outside its box, z {lesion.box[2]:g} to {lesion.box[5]:g}; "
            f"allowed are {held.start} to {held.stop - 1}, mend the key slice or the box"
        )
    if lesion.key_slice is not None and lesion.key_slice not in (slices := boxes_by_slice(lesion)):
        listed = f"only on {name_some([str(number) for number in sorted(slices)])}" if slices else "on none"
        raise InputError(
            f"{item}: has no box on its key slice {lesion.key_slice}, {listed}; mend key_slice, box or slice_boxes"
        )


def _check_rows(item: str, lesion: LesionRecord, slices: range, volume: str) -> None:
    """Refuse boxes of single slices that are none, or no slice's, or not the only one of theirs."""
    seen = set()
    for row in lesion.attributes.get("slice_boxes") or ():
        number, x1, y1, x2, y2 = row
        if number not in slices:
            fault = f"slice {number:g} is not one of volume '{volume}', {slices.start} to {slices.stop - 1}"
        elif number in seen:
            fault = f"slice {number:g} occurs twice; a lesion has one box on a slice"
        elif not (x1 <= x2 and y1 <= y2):
            fault = "the box ends before it begins; order is slice, x1, y1, x2, y2"
        else:
            seen.add(number)
            continue
        raise InputError(f"{item}: slice_boxes has {row}: {fault}, mend the row")


def _check_origins(item: str, attributes: Mapping[str, Any]) -> None:
    """Refuse origins of slices that are not one for each of them."""
    origins = attributes.get("slice_origins")
    if origins is not None and len(origins) != len(attributes.get("slice_boxes") or ()):
        raise InputError(
            f"{item}: {len(origins)} slice_origins for {len(attributes.get('slice_boxes') or ())} slice_boxes; give "
            "one for each, in their order"
        )


def _check_runs(item: str, mask: Mapping[str, Any]) -> None:
    """Refuse run lengths that do not cover their slice: what they leave open would be read as memory holds it."""
    height, width = mask["size"]
    try:
        covered = sum(run_lengths(mask["counts"]))
    except ValueError as error:
        raise InputError(f"{item}: mask is no COCO run lengths ({error}); write or remove it") from None
    if covered != height * width:
        raise InputError(
            f"{item}: mask has run lengths of {covered} pixels, its slice {height * width}; write or remove it"
        )


def _refuse_duplicates(path: StrPath, kind: str, ids: Iterable[Any]) -> None:
    repeated = [name for name, count in Counter(ids).items() if count > 1]
    if repeated:
        raise InputError(f"{path}: {kind} id {repeated[0]!r} occurs more than once; ids are unique, rename one")


def _volume_fields(item: Mapping[str, Any]) -> dict[str, Any]:
    fields = dict(item)
    # JSON's 5.0 counts as a whole number.
    fields["shape_yx"] = tuple(map(int, item["shape_yx"]))
    fields["first_slice"], fields["num_slices"] = int(item["first_slice"]), int(item["num_slices"])
    fields["spacing_mm"] = tuple(float("nan") if value is None else float(value) for value in item["spacing_mm"])
    if item.get("affine_lps") is not None:
        fields["affine_lps"] = tuple(tuple(map(float, row)) for row in item["affine_lps"])
    return fields


def _lesion_fields(item: Mapping[str, Any]) -> dict[str, Any]:
    fields = dict(item)
    fields["id"] = int(item["id"])
    fields["box"] = tuple(map(float, item["box"]))
    if item.get("key_slice") is not None:
        fields["key_slice"] = int(item["key_slice"])
    if item.get("recist") is not None:
        fields["recist"] = tuple(map(float, item["recist"]))
    return fields


def _parse_detections(item: Mapping[str, Any], path: StrPath, name: str) -> Detections:
    """Turn one checked JSON entry into arrays of matching lengths."""
    where = f"{path}: volume '{name}'"
    try:
        boxes = as_boxes(item["boxes"], 3)
        world = as_boxes(item["world_lps"], 3) if "world_lps" in item else None
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    if len(boxes) and (boxes[:, 5] == boxes[:, 2]).all() and (boxes[:, 3:5] > boxes[:, :2]).all():
        raise InputError(
            f"{where}: all boxes end along z where they begin; far edges are exclusive, add 1 to those that count the "
            "last slice"
        )
    scores = _numbers(item, "scores", "iuf", where)
    key_slices = _numbers(item, "key_slices", "iu", where)
    diameters = _diameters(item)
    for label, values in (
        ("scores", scores),
        ("world_lps", world),
        ("key_slices", key_slices),
        ("diameters_mm", diameters),
        ("tags", item.get("tags")),
    ):
        if values is not None and len(values) != len(boxes):
            raise InputError(f"{where}: {len(boxes)} boxes but {len(values)} {label}; give one for each box")
    # Before records said their frame, only `mmpluld detect` named a source, and it counted as the file does.
    frame = item.get("frame", FILE_VOXELS if "source" in item else None)
    affine = checked_affine(item["affine_lps"], where) if "affine_lps" in item else None
    if affine is not None and "shape" not in item:
        raise InputError(f"{where}: affine_lps without shape; give the sizes of the axes too")
    return Detections(
        boxes=boxes,
        scores=None if scores is None else scores.astype(np.float64),
        world_lps=world,
        key_slices=None if key_slices is None else key_slices.astype(np.int64),
        slice_axis=item.get("slice_axis"),
        diameters_mm=diameters,
        tags=tuple(item["tags"]) if "tags" in item else None,
        spacing_mm=tuple(item["spacing_mm"]) if "spacing_mm" in item else None,
        source=item.get("source"),
        history=tuple(item["history"]) if "history" in item else None,
        frame=frame,
        shape=_sizes(item["shape"]) if "shape" in item else None,
        affine_lps=affine,
        first_slice=int(item["first_slice"]) if "first_slice" in item else None,
    )


def _sizes(values: Iterable[Any]) -> tuple[int, int, int]:
    i, j, k = map(int, values)
    return i, j, k


def _diameters(item: Mapping[str, Any]) -> FloatArray | None:
    """(N, 2) diameters, NaN for null; the schema has checked each row."""
    if "diameters_mm" not in item:
        return None
    rows = [(np.nan, np.nan) if row is None else row for row in item["diameters_mm"]]
    return np.array(rows, dtype=np.float64).reshape(-1, 2)


def _numbers(item: Mapping[str, Any], key: str, kinds: str, where: str) -> npt.NDArray[Any] | None:
    if key not in item:
        return None
    allowed = "finite numbers" if "f" in kinds else "whole numbers"
    try:
        values = np.asarray(item[key])
    except ValueError:
        raise InputError(f"{where}: {key} is ragged; allowed is one list of {allowed}") from None
    if values.size == 0:
        return np.zeros(0, dtype=np.int64)
    wide = values.dtype == np.uint64  # whole numbers from 2 ** 63, which would wrap around as 64 bits with a sign
    if values.ndim != 1 or values.dtype.kind not in kinds or wide or not np.isfinite(values).all():
        raise InputError(f"{where}: {key} holds something else than numbers; allowed is one list of {allowed}")
    return values


def _read_json(path: StrPath, kind: str) -> dict[str, Any]:
    """Read a JSON file and validate it against the schema of its kind."""
    data = read_json(path, _WANTED[kind])
    _validate(data, path, kind)
    checked: dict[str, Any] = data
    return checked


def _validate(data: Any, path: StrPath, kind: str) -> None:
    """Check ``data`` against a schema; the first fault becomes one line."""
    import fastjsonschema

    wanted = f"mmpluld.{kind}/1"
    found = data.get("schema") if isinstance(data, dict) else None
    if found != wanted:
        raise InputError(f"{path}: schema is {found!r}; allowed is '{wanted}', give a file of that kind")
    try:
        _validator(kind)(data)
    except fastjsonschema.JsonSchemaValueException as error:
        fault = error.message.removeprefix("data.").removeprefix("data ")
        shown = _shown(error.value)
        raise InputError(f"{path}: {fault}, found {shown}; see the schema {wanted}") from None


def _shown(value: Any) -> str:
    """The beginning of a value, on one line."""
    try:
        text = json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        text = type(value).__name__
    return text if len(text) <= 80 else text[:77] + "..."


@cache
def _validator(kind: str) -> Callable[[Any], Any]:
    import fastjsonschema

    text = (
        resources.files("mmpluld.structures").joinpath("schemas").joinpath(f"{kind}.json").read_text(encoding="utf-8")
    )
    validator: Callable[[Any], Any] = fastjsonschema.compile(json.loads(text))
    return validator


def _dumps(value: Any, where: StrPath) -> str:
    """Serialise with NumPy values as plain numbers; NaN and inf have no JSON form and are refused."""
    try:
        return json.dumps(value, allow_nan=False, default=_plain)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(
            f"{where}: cannot be written as JSON ({error}); allowed are finite numbers, text, lists"
        ) from None


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is no JSON type")


def _listed(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value


def _lines(items: list[dict[str, Any]], path: StrPath) -> str:
    return ",\n".join(_dumps(item, path) for item in items)
