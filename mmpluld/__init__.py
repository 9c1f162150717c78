"""mmpluld: universal lesion detection in CT with partial labels, on MMDetection 3.x.

Importing this package loads nothing heavy; the model zoo registers itself on the first registry look-up.
"""

from mmpluld.version import __version__

__all__ = ["__version__"]
