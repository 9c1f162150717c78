"""Puts the stand-ins for mmcv's compiled operators in place before a test module imports mmdet's parts."""

import mmpluld.registry  # noqa: F401
