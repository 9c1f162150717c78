"""From Hounsfield units to the grey values that the networks see."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform

from mmpluld.errors import InputError
from mmpluld.registry import TRANSFORMS

__all__ = ["WindowHU"]


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
