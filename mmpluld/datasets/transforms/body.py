"""Cutting away the air around the body."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from mmcv.transforms.utils import cache_randomness
from mmdet.datasets.transforms import RandomCrop
from mmdet.structures.bbox import autocast_box_type

from mmpluld.errors import InputError
from mmpluld.registry import TRANSFORMS

__all__ = ["CropBody", "body_box"]

Box = tuple[int, int, int, int]

_AIR_HU = -768.0
_OPENING = np.ones((7, 7), np.uint8)


def body_box(slices: Iterable[npt.NDArray[Any]]) -> Box | None:
    """Bounding box of the body on some slices (H, W) in HU.

    The body is what is above -768 HU and at least 7 pixels wide, so neither noise nor a thin table; the patient's table
    itself often counts.

    Returns:
        x1, y1, x2, y2 in pixel edges, or None where nothing is there.
    """
    hull: Box | None = None
    for image in slices:
        mask = cv2.morphologyEx((image > _AIR_HU).astype(np.uint8), cv2.MORPH_OPEN, _OPENING)
        x, y, width, height = cv2.boundingRect(mask)
        if width:
            x1, y1, x2, y2 = hull or (x, y, x + width, y + height)
            hull = (min(x1, x), min(y1, y), max(x2, x + width), max(y2, y + height))
    return hull


@TRANSFORMS.register_module()
class CropBody(RandomCrop):
    """Cut away the air around the body on the key slice, as the published MULAN code does.

    Required key: ``img`` (H, W, D) in HU, before the window; ``body_box`` (x1, y1, x2, y2), where there is one, takes
    the place of the body on the key slice: with it the slices of a volume are all cut alike. Modified keys: ``img``,
    ``img_shape``, and boxes, labels, flags and masks that are loaded already, of which those outside are dropped. Added
    key: ``crop_offset`` (x, y) of the image's corner in the slice, which belongs to ``meta_keys``. Boxes and masks that
    a model finds (``pred_instances``) lie in the image; this package's metrics, ``mmpluld calibrate`` and
    ``VolumeDetector`` move boxes back by it, mmdet's own metrics and visualizers do not.

    Args:
        shift_px: Move the left and the upper edge each by a random number of pixels from ``-shift_px`` to
            ``shift_px - 1``, in training; the other edges stay. 0 moves none.

    Raises:
        InputError: ``shift_px`` is negative.

    Source: MULAN, 2019, and LENS, 2020, Sec. VI-A; details from MULAN's code.
    """

    def __init__(self, shift_px: int = 0) -> None:
        if shift_px < 0:
            raise InputError(f"CropBody: shift_px is {shift_px}; allowed is 0 or more pixels")
        super().__init__(crop_size=(1, 1), allow_negative_crop=True)
        self.shift_px = shift_px
        self._offset = (0, 0)

    @cache_randomness
    def _draw(self) -> tuple[int, int]:
        """Shift of the left and of the upper edge."""
        if not self.shift_px:
            return 0, 0
        return random.randrange(-self.shift_px, self.shift_px), random.randrange(-self.shift_px, self.shift_px)

    @autocast_box_type()
    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Cut the image, and with it boxes and masks."""
        image = results["img"]
        height, width = image.shape[:2]
        found = results.get("body_box") or body_box([image[:, :, image.shape[2] // 2]])
        x1, y1, x2, y2 = found or (0, 0, width, height)
        shift_x, shift_y = self._draw()
        x1, y1 = min(max(x1 + shift_x, 0), x2 - 1), min(max(y1 + shift_y, 0), y2 - 1)
        self._offset = (y1, x1)
        cropped: dict[str, Any] = self._crop_data(results, (y2 - y1, x2 - x1), allow_negative_crop=True)
        cropped["crop_offset"] = (x1, y1)
        return cropped

    def _rand_offset(self, margin: tuple[int, int]) -> tuple[int, int]:
        """The offset (y, x) that was found, in place of a random one."""
        return self._offset

    def __repr__(self) -> str:
        return f"{type(self).__name__}(shift_px={self.shift_px})"
