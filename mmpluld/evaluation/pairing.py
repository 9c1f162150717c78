"""From detection and annotation files to the images that a FROC evaluation goes through."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from mmpluld.errors import InputError, name_some
from mmpluld.evaluation.frames import (
    DEEPLESION_NAME,
    Grid,
    adopt_frame,
    grid_of_record,
    grid_of_volume,
    place,
    turned,
)
from mmpluld.evaluation.functional import FROCProtocol
from mmpluld.structures.boxes import centres_between
from mmpluld.structures.records import AnnotationSet, Detections, DetectionSet, LesionRecord, VolumeRecord
from mmpluld.structures.slice_boxes import boxes_by_slice, clipped_box
from mmpluld.structures.text_files import read_json
from mmpluld.typing import FloatArray, StrPath

__all__ = ["Pairing", "Truth", "load_truth", "pair_images"]


@dataclass(frozen=True)
class Truth:
    """Lesions by image. An image is a key slice (volume id, slice) in 2D, a volume (volume id, None) in 3D.

    Attributes:
        source: Name of the file, for messages.
        images: Lesions of each image, ignored ones included.
        volumes: What is known of the volumes; empty if the truth is a detection record.
        grids: What voxels the lesions count, by volume.
        records: The entries of a detection record as truth, in its own frame.
    """

    source: str
    images: dict[tuple[str, int | None], list[LesionRecord]]
    volumes: dict[str, VolumeRecord] = field(default_factory=dict)
    grids: dict[str, Grid] = field(default_factory=dict)
    records: dict[str, Detections] = field(default_factory=dict)

    def patient(self, volume: str) -> Hashable:
        """Whose volume it is.

        The patient of the annotation file, or of an id that is exactly one of DeepLesion's; else every volume counts as
        a patient of its own.
        """
        if volume in self.volumes:
            return self.volumes[volume].person
        named = DEEPLESION_NAME.fullmatch(volume)
        return named["patient"] if named else ("volume", volume)


@dataclass
class Pairing:
    """Detections and lesions of the same images, in the order that ``match_detections`` takes.

    Attributes:
        detections, scores, truth, ignored: Per image arrays.
        lesions: The lesions to find, in the order of the joined ``truth``.
        image_volumes: Volume id of each image.
        patients: Patient of each image.
        off_slice: 2D detections that lie on no evaluated slice of their volume, left out.
        missing: Volumes of the truth without an entry among the detections, taken as without detections.
        extra: Volumes of the detections that the truth does not know, left out.
        unexamined: Lesions to find that lie on slices which were not examined, counted as missed.
    """

    detections: list[FloatArray] = field(default_factory=list)
    scores: list[FloatArray] = field(default_factory=list)
    truth: list[FloatArray] = field(default_factory=list)
    ignored: list[FloatArray] = field(default_factory=list)
    lesions: list[LesionRecord] = field(default_factory=list)
    image_volumes: list[str] = field(default_factory=list)
    patients: list[Hashable] = field(default_factory=list)
    off_slice: int = 0
    missing: list[str] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)
    unexamined: int = 0


def load_truth(path: StrPath, protocol: FROCProtocol, like: DetectionSet | None = None) -> Truth:
    """Read an annotation file, or a detection record as truth, and split it into images.

    A 3D protocol evaluates every volume of the file. A 2D protocol evaluates the key slices that the file
    names: of annotations the ``key_slice`` of each lesion that counts (or the slice of a box one slice thick), with all
    lesions that cross it, as for the samples of :class:`~mmpluld.datasets.CTLesionDataset`; of a detection record the
    first slice of a box. A volume of a detection record without any box is one empty
    image.

    Args:
        path: The file.
        protocol: The rules.
        like: Detections whose frame a detection record as truth has, where it tells none.

    Raises:
        InputError: If the file is unusable, has no lesion to find, or lacks the key slices that 2D needs.
    """
    if _schema(path) == "mmpluld.detections/1":
        truth = _truth_from_detections(path, protocol, like or DetectionSet())
    else:
        truth = _truth_from_annotations(path, protocol)
    if all(lesion.ignore for lesions in truth.images.values() for lesion in lesions):
        raise InputError(
            f"{path}: no lesion to find in {len(truth.images)} images; sensitivity needs at least one lesion "
            "that is not ignored, give another truth file"
        )
    return truth


def pair_images(
    truth: Truth, detections: DetectionSet, protocol: FROCProtocol, first_slice: int | None = None
) -> Pairing:
    """Put the detections of each image beside its lesions, in the voxels of these.

    In 2D a detection counts on every evaluated slice whose centre its box holds.

    Args:
        truth: The lesions.
        detections: As they were read; see :func:`~mmpluld.evaluation.frames.place` for what they may count.
        protocol: The rules.
        first_slice: Which slice of its series the first slice of the one scan is.

    Raises:
        InputError: If a volume has detections without scores, or in voxels that cannot be mapped to those of its
            lesions.
    """
    pairing = Pairing()
    grids = {volume: truth.grids.get(volume, Grid()) for volume, _ in truth.images}
    placed = place(detections, grids, truth.records, truth.source, first_slice)
    slices: dict[str, list[int | None]] = {}
    for (volume, key_slice), lesions in truth.images.items():
        slices.setdefault(volume, []).append(key_slice)
        wanted = [lesion for lesion in lesions if not lesion.ignore]
        pairing.truth.append(_edges(wanted, protocol.dim))
        pairing.ignored.append(_edges([lesion for lesion in lesions if lesion.ignore], protocol.dim))
        pairing.lesions += wanted
        pairing.image_volumes.append(volume)
        pairing.patients.append(truth.patient(volume))
        pairing.unexamined += _count_unexamined(wanted, placed.examined.get(volume))
        boxes, scores = _scored(placed.detections.get(volume), volume)
        if key_slice is not None:
            here = (boxes[:, 2] <= key_slice + 0.5) & (key_slice + 0.5 < boxes[:, 5])
            boxes, scores = boxes[here], scores[here]
        pairing.detections.append(boxes if protocol.dim == 3 else boxes[:, [0, 1, 3, 4]])
        pairing.scores.append(scores)
    pairing.missing = [volume for volume in slices if volume not in placed.detections]
    pairing.extra = placed.extra
    pairing.off_slice = sum(
        _count_off_slice(placed.detections[volume].boxes, evaluated)
        for volume, evaluated in slices.items()
        if volume in placed.detections
    )
    return pairing


def _schema(path: StrPath) -> object:
    """Schema that a file names; None if it cannot be read, which the loaders then explain."""
    try:
        data = read_json(path, "a truth file")
    except InputError:
        return None
    return data.get("schema") if isinstance(data, dict) else None


def _truth_from_annotations(path: StrPath, protocol: FROCProtocol) -> Truth:
    annotations = AnnotationSet.load(path)
    volumes = {volume.id: volume for volume in annotations.volumes}
    images: dict[tuple[str, int | None], list[LesionRecord]] = {}
    if protocol.dim == 3:
        images.update({(volume.id, None): [] for volume in annotations.volumes})
        for lesion in annotations.lesions:
            images[lesion.volume, None].append(lesion)
    else:
        keys: dict[str, set[int]] = {}
        for lesion in annotations.lesions:
            if not lesion.ignore:
                key_slice = _key_slice(path, lesion)
                keys.setdefault(lesion.volume, set()).add(key_slice)
        # In the order of the dataset's samples, which decides between equal scores.
        images = {
            (volume.id, number): [] for volume in annotations.volumes for number in sorted(keys.get(volume.id, ()))
        }
        for lesion in annotations.lesions:
            for key_slice in sorted(keys.get(lesion.volume, ())):
                if (cut := _cut(lesion, key_slice, volumes[lesion.volume].shape_yx)) is not None:
                    images[lesion.volume, key_slice].append(cut)
    for lesion in annotations.lesions:
        height, width = volumes[lesion.volume].shape_yx
        x1, y1, _, x2, y2, _ = lesion.box
        if not lesion.ignore and (x1 >= width or y1 >= height or x2 <= 0 or y2 <= 0):
            raise InputError(
                f"{path}: lesion {lesion.id}: box {list(lesion.box)} lies outside the slices of {width} x {height} "
                "pixels; no detection can find it, mend the box"
            )
    return Truth(str(path), images, volumes, {name: grid_of_volume(volume) for name, volume in volumes.items()})


def _cut(lesion: LesionRecord, key_slice: int, shape_yx: tuple[int, int]) -> LesionRecord | None:
    """What is of a lesion on a slice, with the box that a sample of ``CTLesionDataset`` has there."""
    found = boxes_by_slice(lesion).get(key_slice)
    clipped = None if found is None else clipped_box(found, shape_yx)
    if clipped is None:
        return None
    x1, y1, x2, y2 = clipped
    return replace(lesion, box=(x1, y1, key_slice, x2, y2, key_slice + 1), key_slice=key_slice)


def _key_slice(path: StrPath, lesion: LesionRecord) -> int:
    """The key slice of a lesion to find, on which it has a box."""
    slices = boxes_by_slice(lesion)
    if lesion.key_slice is not None or (lesion.box[5] - lesion.box[2] == 1 and lesion.box[2].is_integer()):
        found = int(lesion.box[2]) if lesion.key_slice is None else lesion.key_slice
        if found in slices:
            return found
        listed = f"only on {name_some([str(number) for number in sorted(slices)])}" if slices else "on none"
        raise InputError(
            f"{path}: lesion {lesion.id}: is on key slice {found} without a box, it has one {listed}; no detection can "
            "find it there, mend key_slice, box or slice_boxes"
        )
    raise InputError(
        f"{path}: lesion {lesion.id} has no key_slice and spans z {lesion.box[2]:g} to {lesion.box[5]:g}; a "
        "2D protocol evaluates key slices, use a 3D protocol such as lens-3d"
    )


def _truth_from_detections(path: StrPath, protocol: FROCProtocol, like: DetectionSet) -> Truth:
    images: dict[tuple[str, int | None], list[LesionRecord]] = {}
    records = {
        name: adopt_frame(found, like.volumes.get(name)) for name, found in DetectionSet.load(path).volumes.items()
    }
    upright = {name: turned(found) for name, found in records.items()}
    number = 0
    for volume, found in upright.items():
        if protocol.dim == 3 or not len(found.boxes):
            images[volume, None] = []
        for box in found.boxes.tolist():
            key_slice = None if protocol.dim == 3 else centres_between(box[2], box[5]).start
            lesion = LesionRecord(id=number, volume=volume, box=tuple(box), key_slice=key_slice)
            images.setdefault((volume, key_slice), []).append(lesion)
            number += 1
    grids = {name: grid_of_record(found) for name, found in upright.items()}
    return Truth(str(path), images, grids=grids, records=records)


def _edges(lesions: Iterable[LesionRecord], dim: int) -> FloatArray:
    """(N, 2 dim) boxes of lesions."""
    boxes = np.array([lesion.box for lesion in lesions], dtype=np.float64).reshape(-1, 6)
    return boxes if dim == 3 else boxes[:, [0, 1, 3, 4]]


def _scored(found: Detections | None, volume: str) -> tuple[FloatArray, FloatArray]:
    if found is None or not len(found.boxes):
        return np.zeros((0, 6)), np.zeros(0)
    if found.scores is None:
        raise InputError(f"volume '{volume}': detections have no scores; FROC needs a score for each box")
    return found.boxes, found.scores


def _count_unexamined(lesions: Iterable[LesionRecord], spans: list[tuple[int, int]] | None) -> int:
    """How many lesions reach into none of the slices (first, end) that were examined; None stands for all slices."""
    if spans is None:
        return 0
    return sum(not any(lesion.box[2] < end and lesion.box[5] > first for first, end in spans) for lesion in lesions)


def _count_off_slice(boxes: FloatArray, evaluated: list[int | None]) -> int:
    """How many boxes lie on none of the evaluated slices; None stands for the whole volume."""
    centres = np.array(sorted(number + 0.5 for number in evaluated if number is not None))
    if len(centres) < len(evaluated):
        return 0
    # The box holds an evaluated slice if its near and far edge part the sorted centres differently.
    return int((np.searchsorted(centres, boxes[:, 2]) >= np.searchsorted(centres, boxes[:, 5])).sum())
