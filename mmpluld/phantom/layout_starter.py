"""Scans that the starter weights are trained on: torsos and limbs of widely varied looks, all lesions labelled."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from mmpluld.errors import InputError
from mmpluld.io.array_store import write_array
from mmpluld.phantom.canvas import Array
from mmpluld.phantom.folder import phantom_folder
from mmpluld.phantom.pool import in_order
from mmpluld.phantom.starter_lesions import PaintedLesion, paint_lesions
from mmpluld.phantom.starter_scene import Scene, limb_scene, torso_scene
from mmpluld.phantom.streams import patient_stream
from mmpluld.progress import track
from mmpluld.structures import AnnotationSet, LesionRecord, VolumeRecord
from mmpluld.typing import StrPath

__all__ = ["STARTER_PATIENTS", "make_starter_scan", "starter_record", "write_starter_layout"]

_SPLITS = ("train", "val")
STARTER_PATIENTS = (2000, 24)
"""Scans in training and validation that the starter weights are trained with."""
_LIMB_SHARE = 0.6
_VERSION = 1  # of what is drawn: goes up with every change of it, so that a folder of other scans is known


def starter_record(num_patients: Sequence[int], seed: int) -> dict[str, object]:
    """What is noted in ``phantom.json``."""
    return {"layout": "starter", "version": _VERSION, "seed": seed, "num_patients": list(num_patients)}


def make_starter_scan(
    seed: int, stream: str, patient: int
) -> tuple[npt.NDArray[np.int16], tuple[float, float, float], list[PaintedLesion]]:
    """One scan: HU (z, y, x), spacing (z, y, x) in mm, and all its lesions.

    Args:
        seed, stream, patient: See `patient_stream`; the same ones give the same bytes.
    """
    # Its matrix products are small: threads would cost more than they bring.
    with threadpool_limits(limits=1, user_api="blas"):
        rng = patient_stream(seed, f"starter/{stream}", patient)
        scene = limb_scene(rng) if rng.random() < _LIMB_SHARE else torso_scene(rng)
        lesions = paint_lesions(rng, scene)
        hu = _taken(rng, scene)
    return hu, (scene.interval_mm, scene.pixel_mm, scene.pixel_mm), lesions


def write_starter_layout(
    out: StrPath,
    num_patients: tuple[int, int] = STARTER_PATIENTS,
    seed: int = 0,
    *,
    workers: int | None = None,
    overwrite: bool = False,
) -> Path:
    """Write starter scans.

    Files: ``volumes/SPLIT_NNNN.npy`` (HU, as `mmpluld.io.array_store` reads them), ``annotations/{train,val}.json``
    with the box of every lesion on every slice, ``phantom.json``. Lesions too small or too faint to be seen are marked
    to be ignored.

    Args:
        out: Folder to make.
        num_patients: Scans in training and validation, one a patient.
        seed: Same seed, same files, whatever the number of workers.
        workers: Processes; None takes one per core.
        overwrite: Replace what an earlier call wrote there; other folders are never touched.

    Returns:
        `out`.

    Raises:
        InputError: If `out` is a non-empty folder and `overwrite` is False, or a number is invalid.
    """
    root = Path(out)
    if len(num_patients) != 2 or min(num_patients) < 1:
        raise InputError(f"phantom num_patients={num_patients!r}: must be two counts above 0 (train, val)")
    with phantom_folder(root, starter_record(num_patients, seed), (), overwrite):
        (root / "volumes").mkdir()
        numbered = [
            (split, number)
            for split, count in zip(_SPLITS, num_patients, strict=True)
            for number in range(1, count + 1)
        ]
        job = partial(_write_scan, root, seed)
        written = list(track(in_order(job, numbered, workers), "writing phantoms", total=len(numbered)))
        for split in _SPLITS:
            members = [item for (name, _), item in zip(numbered, written, strict=True) if name == split]
            lesions = [lesion for _, found in members for lesion in found]
            for index, lesion in enumerate(lesions):
                lesion.id = index
            header = {"name": "phantom-starter", "label_scope": "universal-complete"}
            AnnotationSet(header, [volume for volume, _ in members], lesions).save(root / f"annotations/{split}.json")
    return root


def _write_scan(root: Path, seed: int, which: tuple[str, int]) -> tuple[VolumeRecord, list[LesionRecord]]:
    """Make and write one scan; its records, the lesions not yet numbered."""
    split, number = which
    hu, spacing, lesions = make_starter_scan(seed, split, number)
    name = f"{split}_{number:04d}"
    write_array(root / "volumes" / f"{name}.npy", hu)
    depth, height, width = hu.shape
    source = {"kind": "npy", "path": f"volumes/{name}.npy"}
    volume = VolumeRecord(name, name, "1", "1", source, 0, depth, (height, width), spacing)
    return volume, [_record(name, lesion) for lesion in lesions]


def _record(volume: str, lesion: PaintedLesion) -> LesionRecord:
    boxes = np.array(list(lesion.boxes.values()), dtype=float)
    low, high = boxes[:, :2].min(axis=0).tolist(), boxes[:, 2:].max(axis=0).tolist()
    box = (low[0], low[1], float(min(lesion.boxes)), high[0], high[1], float(max(lesion.boxes) + 1))
    slices = [[index, *map(float, sides)] for index, sides in sorted(lesion.boxes.items())]
    return LesionRecord(
        0, volume, box, lesion.key_slice, type=lesion.type, ignore=not lesion.clear, attributes={"slice_boxes": slices}
    )


def _taken(rng: np.random.Generator, scene: Scene) -> npt.NDArray[np.int16]:
    """Slices of a scene, with the blur of a kernel and noise."""
    from scipy import ndimage

    n = scene.layers
    depth, height, width = scene.hu.shape
    image = scene.hu.reshape(depth // n, n, height, width).mean(axis=1)
    blurred: Array = ndimage.gaussian_filter(image, (0, *(2 * (float(rng.uniform(0.3, 0.9)),))))
    overshoot = np.float32(rng.uniform(0.2, 1.0)) * (image - blurred)  # of a sharp kernel, at edges
    image = image + overshoot if rng.random() < 0.3 else blurred
    white = rng.standard_normal(image.shape, dtype=np.float32)
    grain_mm = float(rng.uniform(0.3, 1.8))
    white = ndimage.gaussian_filter(white, (0, *(2 * (grain_mm / scene.pixel_mm,))), mode="wrap", truncate=3.0)
    white *= np.float32(np.clip(rng.lognormal(np.log(13), 0.5), 4, 45)) / max(float(white.std()), 1e-6)
    white *= np.clip((image + 1000) / 1000, 0.35, 1.0)
    return np.asarray(np.clip(np.rint(image + white), -1024, 3071), np.int16)
