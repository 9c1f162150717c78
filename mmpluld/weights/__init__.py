"""Checkpoints made from checkpoints: published ones of other code for our configs, and experts calibrated."""

from mmpluld.weights.alignshift import convert_alignshift
from mmpluld.weights.calibration import calibrate
from mmpluld.weights.mulan import convert_mulan

__all__ = ["calibrate", "convert_alignshift", "convert_mulan"]
