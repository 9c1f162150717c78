"""Options that name what a command writes: looked at when the command line is read, before any work."""

from __future__ import annotations

import argparse
from collections.abc import Callable

__all__ = ["output_file", "output_folder"]


def output_file(text: str) -> str:
    """A file to write; refused if it cannot be written."""
    from mmpluld.outputs import check_output_file

    return _checked(text, check_output_file)


def output_folder(text: str) -> str:
    """A folder to write to; refused if it cannot be written to."""
    from mmpluld.outputs import check_output_folder

    return _checked(text, check_output_folder)


def _checked(text: str, check: Callable[[str], None]) -> str:
    from mmpluld.errors import InputError

    try:
        check(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text
