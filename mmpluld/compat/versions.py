"""Which host packages fit, stated once, and what is in use here."""

from __future__ import annotations

import os
import platform
import warnings
from importlib.metadata import PackageNotFoundError, version

from mmpluld.errors import InputError

__all__ = ["check_versions", "describe_environment", "silence_hosts"]

# Lowest version that fits, and the first one that does not. What pip installs lies within them: setup.cfg
# takes of mmdet and mmengine the one version that is tested; others within the limits are let through.
HOST_PACKAGES: dict[str, tuple[str, str | None]] = {
    "torch": ("2.6", None),
    "mmengine": ("0.10.7", "0.11"),
    "mmdet": ("3.3.0", "3.4"),
    "mmcv": ("2.1.0", "2.2.0"),  # or mmcv-lite; mmdet 3.3.0 refuses mmcv 2.2
    "setuptools": ("68", "82"),  # mmengine imports pkg_resources, which 82 removed
    "opencv-python": ("4.8.0.74", "5"),
}
ALTERNATIVES = {
    "mmcv": ("mmcv", "mmcv-lite"),
    "opencv-python": ("opencv-python", "opencv-python-headless", "opencv-contrib-python"),
}


def _installed(package: str) -> tuple[str, str] | None:
    """Name and version of the installed distribution that provides a package, or None."""
    for name in ALTERNATIVES.get(package, (package,)):
        try:
            return name, version(name)
        except PackageNotFoundError:
            continue
    return None


def check_versions() -> None:
    """Check that the host packages are installed in versions that fit.

    Raises:
        InputError: At the first package that is missing, too old or too new, with the command that installs it.
    """
    from packaging.version import Version

    for package, (floor, ceiling) in HOST_PACKAGES.items():
        requirement = f"{package}>={floor}" + (f",<{ceiling}" if ceiling else "")
        found = _installed(package)
        if found is None:
            raise InputError(f"{package} is not installed; run: pip install '{requirement}'")
        name, present = found
        # A local label such as +cpu or +cu121 says how it was built, not which version it is.
        release = Version(Version(present).public)
        if release < Version(floor) or (ceiling is not None and release >= Version(ceiling)):
            raise InputError(f"{name} {present} does not fit; run: pip install '{requirement.replace(package, name)}'")


def silence_hosts() -> None:
    """Keep back what host packages warn of in each other, which no user of ours can act on."""
    # mmdet's point generator calls torch.meshgrid in the old way.
    warnings.filterwarnings("ignore", "torch.meshgrid: in an upcoming release", UserWarning)
    # mmengine imports it for a base of another package; the version of setuptools is pinned for that.
    warnings.filterwarnings("ignore", "pkg_resources is deprecated", UserWarning)


def operators_text(on_gpu: str) -> str:
    """Say what ``ops_in_use("cuda")`` found, and what to do where that is slow."""
    if on_gpu == "pure torch":
        return "pure torch: NMS and RoIAlign are slow here; install the torchvision that belongs to this torch"
    return on_gpu


def describe_environment() -> dict[str, str]:
    """Return versions, the operators in use, devices, threads and memory, as text by name."""
    facts = {"python": platform.python_version(), "platform": platform.platform()}
    for package in HOST_PACKAGES:
        found = _installed(package)
        facts[package] = "not installed" if found is None else found[1]
        if found is not None and found[0] != package:
            facts[package] += f" ({found[0]})"
    try:
        check_versions()
        facts["versions"] = "fit"
    except InputError as error:
        facts["versions"] = str(error)

    import torch

    from mmpluld.compat.ops import ops_in_use

    facts["mmcv operators"] = ops_in_use()
    if torch.cuda.is_available():
        facts["mmcv operators, GPU"] = operators_text(ops_in_use("cuda"))
    facts["CPU threads"] = f"{torch.get_num_threads()} of {os.cpu_count()}"
    if hasattr(os, "sysconf"):
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
        facts["memory"] = f"{memory:.1f} GiB"
    devices = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    facts["GPU"] = ", ".join(devices) or "none"
    return facts
