"""Boxes, volumes and records: what the parts of the package hand to one another."""

from __future__ import annotations

from mmpluld.structures.boxes import (
    as_boxes,
    boxes_hull_transform,
    centres_between,
    inclusive_to_edges,
)
from mmpluld.structures.findings import Finding, ScanFindings, findings_to_detections
from mmpluld.structures.lesion_record import LesionRecord
from mmpluld.structures.overlaps import OVERLAPS, paired_overlap, pairwise_overlap
from mmpluld.structures.recist import RECIST, measure_recist, recist_ends, recist_lengths
from mmpluld.structures.records import (
    CANONICAL_VOXELS,
    FILE_VOXELS,
    LESION_TYPES,
    SERIES_SLICES,
    AnnotationSet,
    Detections,
    DetectionSet,
    VolumeRecord,
)
from mmpluld.structures.samples import instance_boxes, predicted_boxes, to_array
from mmpluld.structures.slice_boxes import (
    Box2D,
    annotated_boxes,
    boxes_between,
    boxes_by_slice,
    clipped_box,
    key_box,
    origins_by_slice,
)
from mmpluld.structures.slice_masks import SliceMask
from mmpluld.structures.tags import read_tag_names
from mmpluld.structures.volume import CTVolume

__all__ = [
    "CANONICAL_VOXELS",
    "FILE_VOXELS",
    "LESION_TYPES",
    "OVERLAPS",
    "RECIST",
    "SERIES_SLICES",
    "AnnotationSet",
    "Box2D",
    "CTVolume",
    "DetectionSet",
    "Detections",
    "Finding",
    "LesionRecord",
    "ScanFindings",
    "SliceMask",
    "VolumeRecord",
    "annotated_boxes",
    "as_boxes",
    "boxes_between",
    "boxes_by_slice",
    "clipped_box",
    "boxes_hull_transform",
    "centres_between",
    "findings_to_detections",
    "inclusive_to_edges",
    "instance_boxes",
    "key_box",
    "measure_recist",
    "origins_by_slice",
    "paired_overlap",
    "pairwise_overlap",
    "predicted_boxes",
    "read_tag_names",
    "recist_ends",
    "recist_lengths",
    "to_array",
]
