"""Pictures of CT slices for whoever reads ``img_path``: an address that mmengine's file functions turn into a PNG."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.fileio import LocalBackend, register_backend

from mmpluld.errors import InputError
from mmpluld.io.slice_sources import SliceArray, SliceSource, open_source_at
from mmpluld.typing import StrPath
from mmpluld.visualization.pictures import SOFT_TISSUE, Window, window_slice

__all__ = ["SlicePictureBackend", "picture_address", "read_slice", "sample_name"]

_SCHEME = "ct-slice"


def picture_address(source: Mapping[str, Any], first_slice: int, index: int, volume_id: str) -> str:
    """Return the ``img_path`` of a slice; its last part is a file name that no other slice of the dataset has.

    Args:
        source: Kind and absolute path, as in an annotation file.
        first_slice: Number of the first slice that is stored.
        index: Number of the slice.
        volume_id: Name of the volume.
    """
    name = f"{volume_id}_{index:03d}.png".replace("/", "_")
    return f"{_SCHEME}://{source['kind']},{first_slice},{index},{source['path']}/{name}"


def read_slice(address: str) -> SliceArray:
    """Return the slice (H, W) in HU that a :func:`picture_address` names.

    Raises:
        InputError: It is no such address, or the slice cannot be read.
    """
    scheme, _, place = address.partition("://")
    parts = place.rpartition("/")[0].split(",", 3)
    if scheme != _SCHEME or len(parts) != 4:
        raise InputError(f"{address}: not the address of a slice; samples of CTLesionDataset have it as img_path")
    kind, first_slice, index, path = parts
    return _open(kind, path, int(first_slice), _state(path)).read(int(index))


def _state(path: str) -> tuple[int, int] | None:
    """What a file, or folder, put in the place of another has not in common with it; None where nothing is."""
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


@lru_cache(maxsize=1)
def _open(kind: str, path: str, first_slice: int, state: tuple[int, int] | None) -> SliceSource:
    """The series that was read last stays open, for as long as it is there: neighbouring samples come from it.

    A picture shows what is stored: whether that is HU, the dataset has said or tested.
    """
    source = {"kind": kind, "path": path, "units": "hu"}
    return open_source_at(source, Path(), (float("nan"),) * 3, first_slice)


@register_backend(_SCHEME, prefixes=_SCHEME)
class SlicePictureBackend(LocalBackend):
    """mmengine's file reader for the ``img_path`` of this package's samples: the slice as a grey PNG.

    So ``mmcv.imread(img_path)`` and mmdet's ``DetVisualizationHook`` see a picture, whatever the slices are stored as.

    Args:
        window_hu: HU that become black and white; those of soft tissue by default. From a hook:
            ``backend_args=dict(backend="ct-slice", window_hu=(-1350, 150))``.
        zoom: Times that each pixel is repeated along both axes.
    """

    def __init__(self, window_hu: Sequence[float] = (SOFT_TISSUE.low_hu, SOFT_TISSUE.high_hu), zoom: int = 1) -> None:
        self.window = Window("", *window_hu)
        self.zoom = zoom

    def get(self, filepath: StrPath) -> bytes:
        """Return the PNG of the slice that ``filepath``, a :func:`picture_address`, names."""
        grey = window_slice(read_slice(os.fspath(filepath)), self.window)
        return bytes(cv2.imencode(".png", np.kron(grey, np.ones((self.zoom, self.zoom), np.uint8)))[1])


def sample_name(meta: Mapping[str, Any]) -> str:
    """What messages call a sample: its volume, slice and file.

    Args:
        meta: Keys of a sample of ``CTLesionDataset``, or of another dataset, as far as they are there.
    """
    address = str(meta.get("img_path", ""))
    scheme, _, place = address.partition("://")
    parts = place.rpartition("/")[0].split(",", 3)
    if scheme != _SCHEME or len(parts) != 4:
        return address or str(meta.get("img_id", "a sample without name"))
    volume = meta.get("volume_id") or str(meta.get("img_id", "")).rpartition("/")[0]
    return f"{parts[3]}: " + (f"volume {volume}, " if volume else "") + f"slice {parts[2]}"
