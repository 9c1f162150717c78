"""Losses."""

from mmpluld.models.losses.mask_dice_loss import MaskDiceLoss
from mmpluld.models.losses.partial_label_loss import PartialLabelLoss

__all__ = ["MaskDiceLoss", "PartialLabelLoss"]
