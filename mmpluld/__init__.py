"""mmpluld: universal lesion detection in CT with partial labels, on MMDetection 3.x.

Importing this package loads nothing heavy; ``Detector``, ``Findings`` and ``CTVolume`` load when they are first asked
for, and the model zoo registers itself on the first registry look-up. In a process that runs MMEngine already, such as
one whose config says ``custom_imports=dict(imports=["mmpluld"])``, the import makes the package known to it (see
``mmpluld.registry``).
"""

import sys

from mmpluld.lazy import lazy_names
from mmpluld.version import __version__

TYPE_CHECKING = False  # as in `typing`, which need not be loaded for it
if TYPE_CHECKING:
    from mmpluld.inference.detector import Detector
    from mmpluld.inference.findings import Findings
    from mmpluld.structures.volume import CTVolume

if "mmengine" in sys.modules:
    # Now and not at the first look-up: with mmcv-lite, mmdet imports only after its operators were supplied.
    from mmpluld import registry  # noqa: F401

__all__ = ["CTVolume", "Detector", "Findings", "__version__"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {"CTVolume": "structures.volume", "Detector": "inference.detector", "Findings": "inference.findings"},
)
