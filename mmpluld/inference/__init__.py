"""Detection in CT scans: read, run over the grid, link, write; and tests on whole volumes.

The modules are imported when a name of them is first asked for, so that a scan can be read, and refused, before the
network's libraries are loaded.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmpluld.inference.detector import VolumeDetector
    from mmpluld.inference.loop import VolumeTestLoop
    from mmpluld.inference.run import ScanResult, detect_scan
    from mmpluld.inference.settings import DetectionSettings

__all__ = ["DetectionSettings", "ScanResult", "VolumeDetector", "VolumeTestLoop", "detect_scan"]

_MODULES = {
    "DetectionSettings": "settings",
    "ScanResult": "run",
    "VolumeDetector": "detector",
    "VolumeTestLoop": "loop",
    "detect_scan": "run",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
