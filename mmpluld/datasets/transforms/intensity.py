"""From Hounsfield units to the grey values that the networks see."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform

from mmpluld.errors import InputError
from mmpluld.registry import TRANSFORMS

__all__ = ["CurveHU", "JitterHU", "WindowHU"]


@TRANSFORMS.register_module()
class WindowHU(BaseTransform):
    """Clip HU to a window and map it linearly to grey values, in float32, without rounding.

    The defaults are those of the published A3D and AlignShift loaders: [-1024, 2050] HU to [0, 255], less 50.

    Required key: ``img`` (float HU). Modified key: ``img`` (float32).

    Args:
        window_hu: Lowest and highest HU.
        out_range: Grey values of those two.
        offset: Added afterwards.

    Raises:
        InputError: A range is not two ascending finite numbers.
    """

    def __init__(
        self,
        window_hu: Sequence[float] = (-1024, 2050),
        out_range: Sequence[float] = (0, 255),
        offset: float = -50,
    ) -> None:
        for name, pair in (("window_hu", window_hu), ("out_range", out_range)):
            if len(pair) != 2 or not np.isfinite(pair).all() or not pair[0] < pair[1]:
                raise InputError(f"WindowHU: {name} is {tuple(pair)}; needed are two ascending numbers")
        self.window_hu = (float(window_hu[0]), float(window_hu[1]))
        self.out_range = (float(out_range[0]), float(out_range[1]))
        self.offset = float(offset)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Map ``results['img']``; the array that was there is left as it is."""
        low, high = self.window_hu
        first, last = self.out_range
        scale = (last - first) / (high - low)
        image = np.clip(results["img"], low, high, dtype=np.float32)
        image *= np.float32(scale)
        image += np.float32(first - low * scale + self.offset)
        results["img"] = image
        return results

    def __repr__(self) -> str:
        return f"{type(self).__name__}(window_hu={self.window_hu}, out_range={self.out_range}, offset={self.offset})"


@TRANSFORMS.register_module()
class CurveHU(BaseTransform):
    """Map HU to grey values by straight pieces, so that one image shows lung and soft tissue with contrast.

    Required key: ``img`` (float HU). Modified key: ``img`` (float32). Values beyond the ends become those of the ends.

    Args:
        hu: Corners of the curve, ascending.
        grey: Grey values there, ascending too: different HU within the ends stay different.

    Raises:
        InputError: There are fewer than two corners, or the two lists are not of one length, finite and ascending.
    """

    def __init__(self, hu: Sequence[float], grey: Sequence[float]) -> None:
        for name, values in (("hu", hu), ("grey", grey)):
            if len(values) < 2 or not np.isfinite(values).all() or not (np.diff(values) > 0).all():
                raise InputError(f"CurveHU: {name} is {tuple(values)}; needed are two or more ascending numbers")
        if len(hu) != len(grey):
            raise InputError(f"CurveHU: {len(hu)} values of hu, {len(grey)} of grey; needed is as many of both")
        self.hu = tuple(map(float, hu))
        self.grey = tuple(map(float, grey))

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Map ``results['img']``; the array that was there is left as it is."""
        results["img"] = np.interp(results["img"], self.hu, self.grey).astype(np.float32)
        return results

    def __repr__(self) -> str:
        return f"{type(self).__name__}(hu={self.hu}, grey={self.grey})"


@TRANSFORMS.register_module()
class JitterHU(BaseTransform):
    """Change HU at random, as another contrast phase, kernel or dose would; in training, before the grey values.

    Required and modified key: ``img`` (float HU).

    Args:
        shift_hu: All values are moved by up to so many HU.
        scale: Distances from 0 HU, that of water, grow or shrink by up to this share.
        noise_hu: Standard deviation of noise, drawn evenly from 0 to this.

    Raises:
        InputError: A setting is negative or no number, or ``scale`` is not below 1.
    """

    def __init__(self, shift_hu: float = 0.0, scale: float = 0.0, noise_hu: float = 0.0) -> None:
        for name, value, most in (("shift_hu", shift_hu, 1e4), ("scale", scale, 1 - 1e-6), ("noise_hu", noise_hu, 1e4)):
            if not (math.isfinite(value) and 0 <= value <= most):
                raise InputError(f"JitterHU: {name} is {value}; allowed is 0 to {most:g}")
        self.shift_hu = shift_hu
        self.scale = scale
        self.noise_hu = noise_hu

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Change ``results['img']``; the array that was there is left as it is."""
        factor = np.float32(1 + random.uniform(-self.scale, self.scale))
        shift = np.float32(random.uniform(-self.shift_hu, self.shift_hu))
        image = results["img"].astype(np.float32) * factor + shift
        if self.noise_hu:
            generator = np.random.default_rng(random.getrandbits(64))
            noise = generator.standard_normal(image.shape, dtype=np.float32)
            image += noise * np.float32(random.uniform(0, self.noise_hu))
        results["img"] = image
        return results

    def __repr__(self) -> str:
        return f"{type(self).__name__}(shift_hu={self.shift_hu}, scale={self.scale}, noise_hu={self.noise_hu})"
