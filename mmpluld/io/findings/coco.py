"""Findings as COCO JSON: boxes and masks on key slices."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from mmpluld.atomic import atomic_write_text
from mmpluld.structures import Finding, ScanFindings, SliceMask
from mmpluld.typing import StrPath

__all__ = ["write_coco"]


def write_coco(path: StrPath, found: ScanFindings) -> None:
    """Write one image a key slice and one annotation a finding, in pixels of canonical slices.

    An annotation has the 2D box (x, y, width, height) on the key slice, ``score``, the mask there as ``segmentation``
    (compressed run lengths) where the model predicts one, and of the 3D box ``bbox_3d``, canonical voxel edges, and
    ``bbox_3d_lps``, its hull in LPS mm. ``info`` holds what maps canonical voxels to LPS mm; an image names its slice
    as canonical index and as index of the file. There are no pictures: ``file_name`` is a name alone.

    Args:
        path: File to write.
        found: The findings.
    """
    volume = found.volume
    depth, height, width = volume.shape
    slices = sorted({finding.key_slice for finding in found})
    images = []
    for number, index in enumerate(slices, start=1):
        axis, source = volume.slice_to_source(index)
        place = {"slice": index, "file_slice": source, "file_axis": axis}
        images.append(
            {"id": number, "file_name": f"{found.name}_{index:04d}.png", "width": width, "height": height, **place}
        )
    record = {
        "info": {
            "description": "Key slices of findings, canonical: x to the Left, y to Posterior, slices to Inferior",
            "volume": found.name,
            "num_slices": depth,
            "affine_lps": volume.affine_lps.tolist(),
        },
        "licenses": [],
        "images": images,
        "annotations": [
            _annotation(finding, rank, slices.index(finding.key_slice) + 1, (height, width))
            for rank, finding in enumerate(found, start=1)
        ],
        "categories": [{"id": 1, "name": "lesion", "supercategory": "lesion"}],
    }
    atomic_write_text(path, json.dumps(record, indent=1, allow_nan=False) + "\n")


def _annotation(finding: Finding, rank: int, image: int, slice_yx: tuple[int, int]) -> dict[str, Any]:
    x1, y1, x2, y2 = finding.key_box
    annotation: dict[str, Any] = {
        "id": rank,
        "image_id": image,
        "category_id": 1,
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": (x2 - x1) * (y2 - y1),
        "iscrowd": 0,
        "score": finding.score,
        "bbox_3d": list(finding.box_canonical),
        "bbox_3d_lps": list(finding.box_world_lps),
    }
    if finding.recist is not None:
        annotation["diameters_mm"] = [finding.recist.long_mm, finding.recist.short_mm]
    if finding.tags:
        annotation["tags"] = dict(finding.tags)
    if finding.mask is not None:
        annotation["area"] = int(finding.mask.array().sum())
        annotation["segmentation"] = _run_lengths(finding.mask, slice_yx)
    return annotation


def _run_lengths(mask: SliceMask, slice_yx: tuple[int, int]) -> dict[str, Any]:
    from pycocotools import mask as coco

    encoded = coco.encode(np.asfortranarray(mask.on_slice(slice_yx), dtype=np.uint8))
    return {"size": list(slice_yx), "counts": encoded["counts"].decode("ascii")}
