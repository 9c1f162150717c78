"""Losses."""

from mmpluld.models.losses.doubtful_negatives import BackgroundRecalibrationLoss, IgnoreHardNegatives
from mmpluld.models.losses.mask_dice_loss import MaskDiceLoss
from mmpluld.models.losses.partial_label_loss import PartialLabelLoss
from mmpluld.models.losses.tag_losses import BalancedTagLoss, RelationalHardTagLoss
from mmpluld.models.losses.triplet_loss import LesionTripletLoss

__all__ = [
    "BackgroundRecalibrationLoss",
    "BalancedTagLoss",
    "IgnoreHardNegatives",
    "LesionTripletLoss",
    "MaskDiceLoss",
    "PartialLabelLoss",
    "RelationalHardTagLoss",
]
