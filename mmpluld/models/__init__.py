"""The model zoo; importing it registers every module."""

import mmpluld.registry  # noqa: F401  makes mmdet importable where mmcv has no compiled operators
from mmpluld.models import (
    backbones,
    classifiers,
    data_preprocessors,
    dense_heads,
    detectors,
    embedders,
    losses,
    necks,
    roi_heads,
    segmentors,
    slice_mixers,
    task_modules,
)

__all__ = [
    "backbones",
    "classifiers",
    "data_preprocessors",
    "dense_heads",
    "detectors",
    "embedders",
    "losses",
    "necks",
    "roi_heads",
    "segmentors",
    "slice_mixers",
    "task_modules",
]
