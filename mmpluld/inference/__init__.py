"""Detection in CT scans: read, run over the grid, link, write; and tests on whole volumes.

The modules are imported when a name of them is first asked for, so that a scan can be read, and refused, before the
network's libraries are loaded.
"""

from typing import TYPE_CHECKING

from mmpluld.lazy import lazy_names

if TYPE_CHECKING:
    from mmpluld.inference.detector import Detector
    from mmpluld.inference.findings import Findings
    from mmpluld.inference.loop import VolumeTestLoop
    from mmpluld.inference.settings import DetectionSettings
    from mmpluld.inference.volume_detector import VolumeDetector

__all__ = ["DetectionSettings", "Detector", "Findings", "VolumeDetector", "VolumeTestLoop"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "DetectionSettings": "settings",
        "Detector": "detector",
        "Findings": "findings",
        "VolumeDetector": "volume_detector",
        "VolumeTestLoop": "loop",
    },
)
