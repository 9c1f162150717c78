"""Every difference between versions of the host packages; nothing else in this package tests a version."""

from mmpluld.compat.ops import install_ops, ops_in_use

__all__ = ["install_ops", "ops_in_use"]
