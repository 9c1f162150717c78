"""Box geometry of MMDetection 1.x, for weights that were trained with it.

There a box names its last pixel and is ``x2 - x1 + 1`` wide. With the far edge moved to the end of that pixel, as
everywhere in this package, its widths, overlaps, NMS, flips and box deltas are exactly MMDetection 3.x's own. What is
left to imitate is here: anchors with rounded corners, and how boxes are clipped to the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.task_modules.coders import DeltaXYWHBBoxCoder
from mmdet.models.task_modules.prior_generators import LegacyAnchorGenerator
from mmdet.structures.bbox import BaseBoxes, get_box_tensor
from torch import Tensor

from mmpluld.registry import TASK_UTILS

__all__ = ["V1AnchorGenerator", "V1DeltaXYWHBBoxCoder"]


@TASK_UTILS.register_module()
class V1AnchorGenerator(LegacyAnchorGenerator):
    """Anchors with whole-numbered corners around the top-left pixel of their cell, as edges.

    The corners lie ``(side - 1) / 2`` from the centre, rounded half to even; an inclusive far corner c is the edge
    c + 1.

    Args:
        center_offset: Centre of the anchors within their cell; the published AlignShift code has 0.
        **kwargs: As for mmdet's ``AnchorGenerator``.

    Source: anchor_generator.py and anchor_head.py of the published AlignShift code.
    """

    def __init__(self, *args: Any, center_offset: float = 0.0, **kwargs: Any) -> None:
        super().__init__(*args, center_offset=center_offset, **kwargs)

    def gen_single_level_base_anchors(self, *args: Any, **kwargs: Any) -> Tensor:
        """Base anchors (A, 4) of one level as edges, ratio-major."""
        inclusive: Tensor = super().gen_single_level_base_anchors(*args, **kwargs)
        return inclusive + inclusive.new_tensor([0, 0, 1, 1])


@TASK_UTILS.register_module()
class V1DeltaXYWHBBoxCoder(DeltaXYWHBBoxCoder):
    """mmdet's box deltas; decoded boxes keep at least the border pixel when they are clipped to the image.

    Both inclusive corners of a box are clipped to [0, W - 1], so that boxes outside the image become slivers of one
    pixel at its border. Stock clipping leaves them without area, and the RPN drops them.
    """

    def decode(
        self,
        bboxes: Tensor | BaseBoxes,
        pred_bboxes: Tensor,
        max_shape: Sequence[int] | None = None,
        wh_ratio_clip: float = 16 / 1000,
    ) -> Tensor:
        """Boxes (N, 4 * classes) as edges, from boxes (N, 4) and deltas (N, 4 * classes), clipped to (H, W)."""
        decoded: Tensor = super().decode(get_box_tensor(bboxes), pred_bboxes, None, wh_ratio_clip)
        if max_shape is None or not decoded.numel():
            return decoded
        height, width = max_shape[:2]
        last = decoded.new_tensor([width - 1, height - 1, width, height])
        first = decoded.new_tensor([0, 0, 1, 1])
        return torch.clamp(decoded.view(-1, 4), first, last).view(decoded.shape)
