"""Options that name what a command writes: looked at when the command line is read, before any work."""

from __future__ import annotations

import argparse

__all__ = ["OutputFile", "OutputFolder"]


class OutputFile(argparse.Action):
    """A file to write; refused with an InputError if it cannot be written."""

    def __call__(self, parser: object, namespace: argparse.Namespace, values: object, option: object = None) -> None:
        """Check and store the path."""
        from mmpluld.outputs import check_output_file

        check_output_file(str(values))
        setattr(namespace, self.dest, values)


class OutputFolder(argparse.Action):
    """A folder to write to; refused with an InputError if it cannot be written to."""

    def __call__(self, parser: object, namespace: argparse.Namespace, values: object, option: object = None) -> None:
        """Check and store the path."""
        from mmpluld.outputs import check_output_folder

        check_output_folder(str(values))
        setattr(namespace, self.dest, values)
