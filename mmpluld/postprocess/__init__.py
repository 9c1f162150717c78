"""From 2D detections to 3D boxes in the slices of the scan, and masks to its pixels; NumPy only."""

from mmpluld.postprocess.grid import GridMap
from mmpluld.postprocess.linking import Box3D, Tracklet, link_slices, number_tracklets, tracklet_to_box3d
from mmpluld.postprocess.masks import paste_mask
from mmpluld.postprocess.scan_slices import chains_on_slices

__all__ = [
    "Box3D",
    "GridMap",
    "Tracklet",
    "chains_on_slices",
    "link_slices",
    "number_tracklets",
    "paste_mask",
    "tracklet_to_box3d",
]
