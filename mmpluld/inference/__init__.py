"""Detection in CT scans: read, run over the grid, link, write; and tests on whole volumes."""

from mmpluld.inference.detector import VolumeDetector
from mmpluld.inference.loop import VolumeTestLoop
from mmpluld.inference.run import ScanResult, detect_scan
from mmpluld.inference.settings import DetectionSettings

__all__ = ["DetectionSettings", "ScanResult", "VolumeDetector", "VolumeTestLoop", "detect_scan"]
