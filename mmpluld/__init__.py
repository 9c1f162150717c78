"""mmpluld: universal lesion detection in CT with partial labels, on MMDetection 3.x.

Importing this package loads nothing heavy; the model zoo registers itself on the first registry look-up. In a process
that runs MMEngine already, such as one whose config says ``custom_imports=dict(imports=["mmpluld"])``, the import makes
the package known to it (see ``mmpluld.registry``).
"""

import sys

from mmpluld.version import __version__

if "mmengine" in sys.modules:
    # Now and not at the first look-up: with mmcv-lite, mmdet imports only after its operators were supplied.
    from mmpluld import registry  # noqa: F401

__all__ = ["__version__"]
