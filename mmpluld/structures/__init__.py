"""Boxes, volumes and records: what the parts of the package hand to one another."""

from __future__ import annotations

from mmpluld.structures.boxes import (
    as_boxes,
    boxes_hull_transform,
    clip_boxes,
    edges_to_inclusive,
    inclusive_to_edges,
)
from mmpluld.structures.findings import RECIST, Finding, findings_to_detections
from mmpluld.structures.records import LESION_TYPES, AnnotationSet, Detections, DetectionSet, LesionRecord, VolumeRecord
from mmpluld.structures.volume import CTVolume

__all__ = [
    "LESION_TYPES",
    "RECIST",
    "AnnotationSet",
    "CTVolume",
    "DetectionSet",
    "Detections",
    "Finding",
    "LesionRecord",
    "VolumeRecord",
    "as_boxes",
    "boxes_hull_transform",
    "clip_boxes",
    "edges_to_inclusive",
    "findings_to_detections",
    "inclusive_to_edges",
]
