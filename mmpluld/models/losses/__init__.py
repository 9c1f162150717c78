"""Losses."""

from mmpluld.models.losses.partial_label_loss import PartialLabelLoss

__all__ = ["PartialLabelLoss"]
