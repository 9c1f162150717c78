"""Looking through a converted dataset for everything that training or evaluation would stumble over."""

from __future__ import annotations

import math
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmpluld.atomic import is_unfinished
from mmpluld.errors import InputError
from mmpluld.io.hounsfield import Units, check_units
from mmpluld.io.hu_check import HU_NEEDED, hu_sample, slices_fault
from mmpluld.io.slice_sources import SliceSource, open_source
from mmpluld.progress import track
from mmpluld.structures import AnnotationSet, LesionRecord, VolumeRecord, pairwise_overlap
from mmpluld.structures.splits import SPLITS, annotation_paths
from mmpluld.structures.volume import VOXEL_MM
from mmpluld.typing import StrPath

__all__ = ["DataCheck", "Problem", "check_dataset"]

_SAME_LESION_IOU = 0.95
# The highest is metal, or the top of a 16-bit scale.
_METAL_UP_TO_HU = 32000


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        file: Annotation file or data file it is in.
        item: Volume, lesion or patient; empty where it is the whole file.
        what: What is wrong and what to do.
    """

    file: str
    item: str
    what: str

    def __str__(self) -> str:
        return f"{self.file}: {self.item}: {self.what}" if self.item else f"{self.file}: {self.what}"


@dataclass
class DataCheck:
    """Outcome of a check.

    Attributes:
        files: Annotation files that were read, with their numbers of volumes and lesions.
        slices_read: How many slices were read.
        problems: All that is wrong.
        notes: What is unusual and no fault, or let pass because of ``units``.
    """

    files: dict[str, tuple[int, int]] = field(default_factory=dict)
    slices_read: int = 0
    problems: list[Problem] = field(default_factory=list)
    notes: list[Problem] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """The outcome as JSON types."""
        return {
            "files": {name: {"volumes": v, "lesions": n} for name, (v, n) in self.files.items()},
            "slices_read": self.slices_read,
            "problems": [asdict(problem) for problem in self.problems],
            "notes": [asdict(note) for note in self.notes],
        }


def check_dataset(root: StrPath, all_slices: bool = False, units: Units | None = None) -> DataCheck:
    """Check ``ROOT/annotations/*.json`` and what they point to.

    Looked for: annotation files that break their schema or contradict themselves; volumes whose source does not open,
    or differs from the record in slice size or slice range; slices that do not read; values that are not HU
    (:mod:`mmpluld.io.hu_check`); boxes, those of single slices too, and RECIST marks that leave the image, empty boxes;
    lesions that count listed twice (IoU above 0.95); tags without a name; ids that are no file names; voxel sizes that
    no CT has; the same volume described differently by two files; patients or scans in two splits. Slices missing in a
    series are noted. Files named after a split with a suffix (``train_mined.json``) belong to that split.

    Args:
        root: Folder of a converted dataset.
        all_slices: Read every slice, not only the first, the middle, the last and the key slices of each volume.
        units: ``hu`` to only note values that do not look like HU, as for volumes whose ``source`` says so.

    Raises:
        InputError: The folder has no annotation files, or its conversion was interrupted.
    """
    check_units(units)
    root = Path(root)
    # Hidden files are temporaries, and marks of a conversion that was interrupted.
    paths = sorted(path for path in (root / "annotations").glob("*.json") if not path.name.startswith("."))
    cut = [path for path in annotation_paths(root).values() if is_unfinished(path)]
    if cut:
        raise InputError(f"{cut[0]}: its conversion was interrupted; convert the dataset again (mmpluld convert)")
    if not paths:
        raise InputError(f"{root}: no annotations/*.json in it; convert the dataset first (mmpluld convert)")
    check = DataCheck()
    loaded: dict[Path, AnnotationSet] = {}
    for path in paths:
        try:
            loaded[path] = AnnotationSet.load(path)
        except InputError as error:
            what = str(error).removeprefix(str(InputError(f"{path}: ")))
            check.problems.append(Problem(str(path), "", what))
            continue
        check.files[path.name] = (len(loaded[path].volumes), len(loaded[path].lesions))
        check.problems += _volume_problems(path, loaded[path])
        check.problems += _lesion_problems(path, loaded[path])
    check.problems += _leaks(loaded)
    _check_volumes(root, loaded, all_slices, units, check)
    return check


def _volume_problems(path: Path, annotations: AnnotationSet) -> Iterator[Problem]:
    """Ids that cannot name a file, voxel sizes that no CT has."""
    least, most = VOXEL_MM
    for volume in annotations.volumes:
        item = f"volume {volume.id}"
        if "/" in volume.id or "\\" in volume.id or ".." in volume.id or not volume.id.isprintable():
            yield Problem(str(path), item, "its id cannot be part of a file name; leave out / \\ .. and line breaks")
        for axis, size in zip("zyx", volume.spacing_mm, strict=True):
            if math.isfinite(size) and not least <= size <= most:
                yield Problem(
                    str(path), item, f"voxel size along {axis} is {size:g} mm; a CT has {least:g} to {most:g}"
                )


def _lesion_problems(path: Path, annotations: AnnotationSet) -> Iterator[Problem]:
    """Boxes and marks outside the image, empty boxes, lesions listed twice, tags without a name."""
    tags = annotations.dataset.get("tags")
    terms = len(tags.get("terms") or ()) if isinstance(tags, dict) else None
    volumes = {volume.id: volume for volume in annotations.volumes}
    for name, lesions in annotations.lesions_by_volume().items():
        height, width = volumes[name].shape_yx
        for lesion in lesions:
            x1, y1, z1, x2, y2, z2 = lesion.box
            item = f"lesion {lesion.id} in volume {name}"
            if not _within((x1, y1, x2, y2), width, height):
                yield Problem(str(path), item, f"box {_leaves(lesion.box, width, height)}")
            if x2 <= x1 or y2 <= y1 or z2 <= z1:
                yield Problem(str(path), item, "box is empty")
            for number, *flat in lesion.attributes.get("slice_boxes") or ():
                if not _within(flat, width, height):
                    yield Problem(str(path), item, f"box on slice {number:g} {_leaves(flat, width, height)}")
                if flat[2] <= flat[0] or flat[3] <= flat[1]:
                    yield Problem(str(path), item, f"box on slice {number:g} is empty")
            if lesion.recist is not None and not _within(lesion.recist, width, height):
                yield Problem(str(path), item, f"RECIST mark {_leaves(lesion.recist, width, height)}")
            tag = max(lesion.attributes.get("tags") or (-1,))
            if terms is not None and tag >= terms:
                yield Problem(str(path), item, f"has tag {tag}, the file names {terms} (dataset.tags.terms)")
        yield from _twins(path, name, [lesion for lesion in lesions if not lesion.ignore])


def _within(points: Sequence[float], width: int, height: int) -> bool:
    """Whether x, y in turn lie in an image."""
    return all(0 <= x <= width for x in points[::2]) and all(0 <= y <= height for y in points[1::2])


def _leaves(values: Sequence[float], width: int, height: int) -> str:
    """What is wrong with coordinates that are not in an image."""
    return f"({', '.join(f'{value:g}' for value in values)}) leaves the image of {width} x {height} pixels"


def _twins(path: Path, volume: str, lesions: list[LesionRecord]) -> Iterator[Problem]:
    boxes = np.array([lesion.box for lesion in lesions]).reshape(-1, 6)
    with np.errstate(invalid="ignore"):
        same = np.triu(pairwise_overlap(boxes, boxes) > _SAME_LESION_IOU, k=1)
    for one, two in np.argwhere(same).tolist():
        item = f"lesions {lesions[one].id} and {lesions[two].id} in volume {volume}"
        yield Problem(str(path), item, "the same box twice; remove one")


def _leaks(loaded: dict[Path, AnnotationSet]) -> Iterator[Problem]:
    """Patients, and scans under two patients, in two splits; where no patient is named, each volume is one."""
    patients: dict[str, dict[str, Path]] = defaultdict(dict)
    scans: dict[str, dict[str, tuple[Path, VolumeRecord]]] = defaultdict(dict)
    for path, content in loaded.items():
        split = re.split(r"[_.-]", path.stem)[0]
        for volume in content.volumes:
            if volume.patient:
                patients[split].setdefault(volume.patient, path)
            scans[split].setdefault(os.path.normpath(volume.source["path"]), (path, volume))
    for one, two in combinations([name for name in SPLITS if name in scans], 2):
        for patient in sorted(set(patients[one]) & set(patients[two])):
            where = f"{patients[one][patient].name} and {patients[two][patient].name}"
            yield Problem(str(patients[two][patient]), f"patient {patient}", f"is in two splits, {where}")
        for place in sorted(set(scans[one]) & set(scans[two])):
            (first, other), (second, volume) = scans[one][place], scans[two][place]
            if other.patient != volume.patient or not volume.patient:
                named = "under two patients" if other.patient != volume.patient else "and no patient is named"
                what = f"its scan {place} is in two splits, {first.name} and {second.name}, {named}"
                yield Problem(str(second), f"volume {volume.id}", what)


def _check_volumes(
    root: Path, loaded: dict[Path, AnnotationSet], all_slices: bool, units: Units | None, check: DataCheck
) -> None:
    """Every volume once, with the key slices that any file has in it."""
    records: dict[str, tuple[Path, VolumeRecord]] = {}
    keys: dict[str, set[int]] = defaultdict(set)
    for path, content in loaded.items():
        for volume in content.volumes:
            first_path, first = records.setdefault(volume.id, (path, volume))
            # repr, because unknown spacings are NaN, which equals nothing.
            if repr(first) != repr(volume):
                what = f"is described differently in {first_path.name}"
                check.problems.append(Problem(str(path), f"volume {volume.id}", what))
        for lesion in content.lesions:
            if lesion.key_slice is not None:
                keys[lesion.volume].add(lesion.key_slice)
    for name, (path, record) in track(records.items(), "checking volumes", total=len(records)):
        item = f"volume {name}"
        try:
            source = open_source(record, root)
            samples: dict[int, npt.NDArray[Any]] = {}
            inside = _own_slices(record, source)
            check.problems += [Problem(str(path), item, what) for what in _source_problems(record, source, inside)]
            if lacking := sorted(set(range(inside[0], inside[-1])) - set(inside)) if inside else []:
                shown = ", ".join(map(str, lacking[:5])) + (", ..." if len(lacking) > 5 else "")
                what = f"{len(lacking)} slices between first and last are missing ({shown}), the nearest stand in"
                check.notes.append(Problem(str(path), item, what))
            check.problems += [
                Problem(str(path), item, what)
                for what in _slice_problems(source, inside, keys[name], all_slices, check, samples)
            ]
            if fault := slices_fault(samples):
                found = Problem(str(path), item, f"values are not HU: {fault}; {HU_NEEDED}")
                taken = units or record.source.get("units")
                (check.notes if taken else check.problems).append(found)
        except InputError as error:
            check.problems.append(Problem(str(path), item, str(error)))


def _source_problems(record: VolumeRecord, source: SliceSource, inside: list[int]) -> Iterator[str]:
    """Where the record and the data disagree. Gaps in a series are usual in DeepLesion and no fault."""
    if tuple(source.shape_yx) != tuple(record.shape_yx):
        yield f"slices are {list(source.shape_yx)} (y, x), the record says {list(record.shape_yx)}; convert again"
    first, last = (inside[0], inside[-1]) if inside else (int(source.indices[0]), int(source.indices[-1]))
    if (first, last) != (record.first_slice, record.first_slice + record.num_slices - 1):
        end = record.first_slice + record.num_slices - 1
        yield f"slices {first} to {last} exist, the record says {record.first_slice} to {end}; convert again"
    for axis, stored, said in zip("zyx", source.spacing_mm, record.spacing_mm, strict=True):
        if math.isfinite(stored) and math.isfinite(said) and abs(stored - said) > 1e-3 * said:
            yield f"voxel size along {axis} is {stored:g} mm, the record says {said:g}"


def _own_slices(record: VolumeRecord, source: SliceSource) -> list[int]:
    """Numbers of the slices that are the record's; a folder of PNGs can hold several parts of a series."""
    numbers: list[int] = source.indices.tolist()
    if record.source["kind"] != "png16":
        return numbers
    return [number for number in numbers if 0 <= number - record.first_slice < record.num_slices]


def _slice_problems(
    source: SliceSource,
    inside: list[int],
    keys: set[int],
    all_slices: bool,
    check: DataCheck,
    samples: dict[int, npt.NDArray[Any]],
) -> Iterator[str]:
    """Slices that do not read or fit; ``samples`` gets what the test for HU needs of the others."""
    wanted = set(inside) if all_slices or not inside else {inside[0], inside[len(inside) // 2], inside[-1]} | keys
    high = -math.inf
    for index in sorted(wanted):
        try:
            hu = source.read(index)
        except InputError as error:
            yield str(error)
            continue
        check.slices_read += 1
        if hu.shape != tuple(source.shape_yx):
            yield f"slice {index} is {list(hu.shape)} (y, x), others {list(source.shape_yx)}"
        high = max(high, float(hu.max()))
        samples[index] = hu_sample(hu)
    if high > _METAL_UP_TO_HU:
        yield f"highest value read is {high:g}, above any HU; are these unsigned values?"
