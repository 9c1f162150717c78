"""Assigners and other parts that heads build from their train and test settings."""

from mmpluld.models.task_modules.assigners import IgnoreAwareMaxIoUAssigner

__all__ = ["IgnoreAwareMaxIoUAssigner"]
