"""The model zoo; importing it registers every module."""

from mmpluld.models import backbones, dense_heads, losses, necks, slice_mixers, task_modules

__all__ = ["backbones", "dense_heads", "losses", "necks", "slice_mixers", "task_modules"]
