"""Detection in CT scans: read, run over the grid, link, write."""

from mmpluld.inference.detector import VolumeDetector
from mmpluld.inference.run import ScanResult, detect_scan

__all__ = ["ScanResult", "VolumeDetector", "detect_scan"]
