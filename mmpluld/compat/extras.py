"""Packages that only some outputs need, and the extras of this package that bring them."""

from __future__ import annotations

from importlib.util import find_spec

from mmpluld.errors import InputError

__all__ = ["EXTRAS", "check_extra"]

EXTRAS = {"dicom": {"highdicom": "highdicom>=0.28"}, "pandas": {"pandas": "pandas>=2.0"}}
"""Name of an extra -> modules that it brings -> their requirement, as in setup.cfg."""


def check_extra(extra: str, what: str) -> None:
    """Check that the modules of an extra are installed.

    Args:
        extra: Its name, of :data:`EXTRAS`.
        what: What needs it, for the message.

    Raises:
        InputError: One is missing; with the command that installs it.
    """
    for module, requirement in EXTRAS[extra].items():
        if find_spec(module) is None:
            raise InputError(
                f"{what} needs {module}, which the extra [{extra}] brings and is not installed; run: pip install "
                f"'{requirement}'"
            )
