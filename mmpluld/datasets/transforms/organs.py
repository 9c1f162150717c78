"""Loading of organ maps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform

from mmpluld.errors import InputError
from mmpluld.io.array_store import NPYSliceSource
from mmpluld.registry import TRANSFORMS

__all__ = ["LoadOrgans"]


@TRANSFORMS.register_module()
class LoadOrgans(BaseTransform):
    """Load the organ of every pixel of the key slice, as ``write_organs_layout`` of the phantom stores it.

    Required keys: ``source`` (``kind`` npy, ``path``), ``first_slice``, ``spacing_mm``, ``key_slice``. Added key:
    ``gt_seg_map`` (H, W) uint8, which mmdet's crop, flip and ``PackDetInputs`` know; it comes before any step that
    changes the geometry.

    Args:
        folder: The maps' folder, beside that of the volumes; a map is called like its volume.

    Raises:
        InputError: There is no map of the volume, or it is not readable.
    """

    def __init__(self, folder: str = "organs") -> None:
        self.folder = folder

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add the map."""
        volume = Path(results["source"]["path"])
        path = volume.parent.parent / self.folder / volume.name
        if results["source"]["kind"] != "npy" or not path.is_file():
            raise InputError(f"{path}: no such organ map of {volume}; make the data with `mmpluld phantom organs`")
        source = NPYSliceSource(path, results["spacing_mm"], results["first_slice"])
        results["gt_seg_map"] = source.read(results["key_slice"]).astype(np.uint8)
        return results

    def __repr__(self) -> str:
        return f"{type(self).__name__}(folder={self.folder!r})"
