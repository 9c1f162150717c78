"""Geometric augmentation and resizing of slice stacks."""

from __future__ import annotations

import math
import random
from typing import Any

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from mmcv.transforms.utils import cache_randomness
from mmdet.datasets.transforms import RandomCrop, Resize
from mmdet.structures.bbox import HorizontalBoxes, autocast_box_type
from mmdet.structures.mask import BitmapMasks, PolygonMasks

from mmpluld.errors import InputError
from mmpluld.registry import TRANSFORMS

__all__ = ["CropAtLesion", "ResizeToSpacing", "ShiftScaleRotate"]

_UNKNOWN_CLASS = 255  # mmdet's own steps pad maps of classes with it, too


@TRANSFORMS.register_module()
class ShiftScaleRotate(BaseTransform):
    """Shift, scale and rotate about the image centre, as in the published A3D and AlignShift training.

    Every box becomes the axis-aligned hull of its moved corners, clipped to the image; a box that leaves the
    image is dropped together with its label, flag and mask. If no box is left of a sample that had some, the
    sample passes on as it was.

    Required key: ``img`` (H, W, D) float32. Modified keys: ``img``, ``gt_bboxes``, ``gt_bboxes_labels``,
    ``gt_ignore_flags``, ``gt_masks``, ``gt_seg_map`` (H, W), which is 255, unknown, where the image is mirrored,
    ``homography_matrix``.

    Args:
        prob: Probability of changing a sample at all.
        shift_limit: Largest shift as a fraction of width and height.
        scale_limit: Largest change of scale; 0.2 draws from [0.8, 1.2].
        rotate_limit: Largest angle in degrees.

    Raises:
        InputError: A setting is out of range.
    """

    def __init__(
        self,
        prob: float = 0.8,
        shift_limit: float = 0.04,
        scale_limit: float = 0.2,
        rotate_limit: float = 15.0,
    ) -> None:
        limits = {"prob": (prob, 1), "shift_limit": (shift_limit, 1), "scale_limit": (scale_limit, 0.99)}
        for name, (value, top) in (limits | {"rotate_limit": (rotate_limit, 180)}).items():
            if not 0 <= value <= top:
                raise InputError(f"ShiftScaleRotate: {name} is {value}; allowed is 0 to {top}")
        self.prob = prob
        self.shift_limit = shift_limit
        self.scale_limit = scale_limit
        self.rotate_limit = rotate_limit

    @cache_randomness
    def _draw(self) -> tuple[float, float, float, float] | None:
        """(shift x, shift y, scale, degrees), or None to leave the sample."""
        if random.random() >= self.prob:
            return None
        shift_x = random.uniform(-self.shift_limit, self.shift_limit)
        shift_y = random.uniform(-self.shift_limit, self.shift_limit)
        scale = 1 + random.uniform(-self.scale_limit, self.scale_limit)
        return shift_x, shift_y, scale, random.uniform(-self.rotate_limit, self.rotate_limit)

    @autocast_box_type()
    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Change the sample, or pass it on."""
        drawn = self._draw()
        if drawn is None:
            return results
        height, width = results["img"].shape[:2]
        matrix = _affine(height, width, *drawn)
        boxes = results.get("gt_bboxes")
        if boxes is not None and len(boxes):
            moved, inside = _move_boxes(boxes.tensor.numpy(), matrix, height, width)
            if not inside.any():
                return results
            _keep(results, moved, inside)
        results["img"] = _warp(results["img"], matrix, cv2.INTER_CUBIC, cv2.BORDER_REFLECT_101)
        if results.get("gt_masks") is not None:
            results["gt_masks"] = _warp_masks(results["gt_masks"], matrix)
        if results.get("gt_seg_map") is not None:
            classes = results["gt_seg_map"][..., None]
            moved = _warp(classes, matrix, cv2.INTER_NEAREST, cv2.BORDER_CONSTANT, _UNKNOWN_CLASS)
            results["gt_seg_map"] = moved[..., 0]
        before = results.get("homography_matrix")
        results["homography_matrix"] = matrix if before is None else matrix @ before
        return results

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(prob={self.prob}, shift_limit={self.shift_limit}, "
            f"scale_limit={self.scale_limit}, rotate_limit={self.rotate_limit})"
        )


@TRANSFORMS.register_module()
class CropAtLesion(RandomCrop):
    """Crop at random, but so that a lesion of the sample, drawn at random, stays whole.

    mmdet's ``RandomCrop`` either lets lesions go or has no crops of slices without; here slices with and without
    lesions keep the proportion in which the sampler drew them. A lesion larger than the crop is cropped at its centre.
    Uncertain lesions are no targets.

    Args:
        crop_size: (width, height) in pixels; a smaller image is left as it is.
    """

    def __init__(self, crop_size: tuple[int, int]) -> None:
        super().__init__(crop_size=crop_size, allow_negative_crop=True)
        self._target: np.ndarray | None = None

    @autocast_box_type()
    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Crop the image, and with it boxes and masks."""
        boxes = results["gt_bboxes"].tensor.numpy()[~results["gt_ignore_flags"].astype(bool)]
        self._target = boxes[np.random.randint(len(boxes))] if len(boxes) else None  # noqa: NPY002 as mmdet draws
        transformed: dict[str, Any] = super().transform(results)
        return transformed

    def _rand_offset(self, margin: tuple[int, int]) -> tuple[int, int]:
        """Offsets (y, x) from 0 to ``margin`` that keep the target inside."""
        if self._target is None:
            offset: tuple[int, int] = super()._rand_offset(margin)
            return offset
        x1, y1, x2, y2 = self._target
        width, height = self.crop_size
        return _offset(y1, y2, height, margin[0]), _offset(x1, x2, width, margin[1])

    def __repr__(self) -> str:
        return f"{type(self).__name__}(crop_size={self.crop_size})"


def _offset(start: float, end: float, size: int, margin: int) -> int:
    """Begin of a range of ``size`` on one axis that holds [start, end], or is at its middle if it does not fit."""
    low, high = max(math.ceil(end - size), 0), min(math.floor(start), margin)
    if low > high:
        return min(max(round((start + end - size) / 2), 0), margin)
    return int(np.random.randint(low, high + 1))  # noqa: NPY002 as mmdet draws


@TRANSFORMS.register_module()
class ResizeToSpacing(Resize):
    """Resize so that a pixel has a given size in mm; ``scale_factor`` is recorded as mmdet's Resize does.

    Required keys: ``img``, ``spacing_mm`` (z, y, x). An in-plane spacing that is not a positive number leaves
    that axis as it is, because the true size is unknown.

    Args:
        pixel_mm: Pixel size to reach, in mm.
        max_size: Longest side in pixels that may result; the whole image shrinks further to fit. None: no
            limit.
        ratio_range: Further factor on the size, drawn evenly between the two, in training.
        **kwargs: ``interpolation``, ``backend``, ``clip_object_border`` of mmdet's Resize.

    Raises:
        InputError: ``pixel_mm``, ``max_size`` or ``ratio_range`` is not positive, or the latter not in order.
    """

    def __init__(
        self,
        pixel_mm: float,
        max_size: int | None = None,
        ratio_range: tuple[float, float] = (1.0, 1.0),
        **kwargs: Any,
    ) -> None:
        if not (math.isfinite(pixel_mm) and pixel_mm > 0):
            raise InputError(f"ResizeToSpacing: pixel_mm is {pixel_mm}; needed is a positive number of mm")
        if max_size is not None and max_size < 1:
            raise InputError(f"ResizeToSpacing: max_size is {max_size}; needed is at least 1 pixel, or None")
        if not 0 < ratio_range[0] <= ratio_range[1]:
            raise InputError(f"ResizeToSpacing: ratio_range is {ratio_range}; needed are two positive numbers in order")
        super().__init__(scale_factor=1.0, keep_ratio=False, **kwargs)
        self.pixel_mm = pixel_mm
        self.max_size = max_size
        self.ratio_range = ratio_range

    @cache_randomness
    def _draw(self) -> float:
        """The further factor."""
        low, high = self.ratio_range
        return low if low == high else random.uniform(low, high)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Resize the image, and with it boxes and masks."""
        size_yx = results["img"].shape[:2]
        ratio = self._draw()
        new = [
            ratio * size * (spacing / self.pixel_mm if math.isfinite(spacing) and spacing > 0 else 1.0)
            for size, spacing in zip(size_yx, results["spacing_mm"][1:], strict=True)
        ]
        shrink = min(1.0, self.max_size / max(new)) if self.max_size else 1.0
        height, width = (max(1, round(side * shrink)) for side in new)
        # mmcv reads the target from the object; it is set per sample as mmcv's own RandomResize does.
        self.scale = (width, height)
        transformed: dict[str, Any] = super().transform(results)
        return transformed

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(pixel_mm={self.pixel_mm}, max_size={self.max_size}, ratio_range={self.ratio_range})"
        )


def _affine(height: int, width: int, shift_x: float, shift_y: float, scale: float, degrees: float) -> np.ndarray:
    """3x3 matrix on edge coordinates: rotate and scale about the image centre, then shift by fractions."""
    matrix = np.eye(3)
    matrix[:2] = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, scale)
    matrix[:2, 2] += shift_x * width, shift_y * height
    return matrix


def _warp(image: np.ndarray, matrix: np.ndarray, interpolation: int, border: int, outside: int = 0) -> np.ndarray:
    """Warp (H, W, C) with a matrix on edge coordinates; ``outside`` is the value beyond a constant border."""
    # OpenCV puts pixel i's centre at i, edges put it at i + 0.5.
    to_edges = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    centred = (np.linalg.inv(to_edges) @ matrix @ to_edges)[:2]
    height, width, channels = image.shape
    # Plane by plane: OpenCV warps at most four channels at once, and single ones fastest.
    planes = [
        cv2.warpAffine(plane, centred, (width, height), flags=interpolation, borderMode=border, borderValue=outside)
        for plane in cv2.split(image)
    ]
    warped: np.ndarray = cv2.merge(planes).reshape(height, width, channels)
    return warped


def _move_boxes(boxes: np.ndarray, matrix: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Hulls of the moved boxes (N, 4), clipped, and which of them still cover something of the image."""
    corners = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2) @ matrix[:2, :2].T + matrix[:2, 2]
    hull = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    hull = np.clip(hull, 0, [width, height, width, height]).astype(np.float32)
    return hull, (hull[:, 2] > hull[:, 0]) & (hull[:, 3] > hull[:, 1])


def _keep(results: dict[str, Any], boxes: np.ndarray, kept: np.ndarray) -> None:
    """Replace the boxes and drop, of everything that goes with a box, what ``kept`` does not name."""
    results["gt_bboxes"] = HorizontalBoxes(boxes[kept])
    for name in ("gt_bboxes_labels", "gt_ignore_flags", "gt_masks"):
        if results.get(name) is not None:
            results[name] = results[name][kept]


def _warp_masks(masks: BitmapMasks | PolygonMasks, matrix: np.ndarray) -> BitmapMasks:
    """Warp instance masks by nearest neighbour; outside is background."""
    height, width = masks.height, masks.width
    bitmaps = masks.to_ndarray()
    if not len(bitmaps):
        return BitmapMasks(bitmaps.reshape(0, height, width), height, width)
    stacked = np.ascontiguousarray(bitmaps.transpose(1, 2, 0))
    warped = _warp(stacked, matrix, cv2.INTER_NEAREST, cv2.BORDER_CONSTANT)
    return BitmapMasks(np.ascontiguousarray(warped.transpose(2, 0, 1)), height, width)
