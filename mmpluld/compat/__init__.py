"""Every difference between versions of the host packages; nothing else in this package tests a version."""

from mmpluld.compat.ops import install_ops, ops_in_use
from mmpluld.compat.versions import check_versions, describe_environment

__all__ = ["check_versions", "describe_environment", "install_ops", "ops_in_use"]
