"""Options that name what a command writes: looked at when the command line is read, before any work."""

from __future__ import annotations

import argparse
from pathlib import Path

from mmpluld.errors import InputError

__all__ = ["OutputFile", "OutputFolder", "OutputPicture", "check_apart"]


class OutputFile(argparse.Action):
    """A file to write; refused with an InputError if it cannot be written."""

    def __call__(self, parser: object, namespace: argparse.Namespace, values: object, option: object = None) -> None:
        """Check and store the path."""
        from mmpluld.outputs import check_output_file

        check_output_file(str(values))
        setattr(namespace, self.dest, values)
        namespace.written = [*getattr(namespace, "written", []), self.dest]


class OutputPicture(OutputFile):
    """A picture to write; refused with an InputError also if it is none by its suffix."""

    def __call__(self, parser: object, namespace: argparse.Namespace, values: object, option: object = None) -> None:
        """Check and store the path."""
        from mmpluld.visualization.figures import check_picture

        super().__call__(parser, namespace, values, option)
        check_picture(str(values))


class OutputFolder(argparse.Action):
    """A folder to write to; refused with an InputError if it cannot be written to."""

    def __call__(self, parser: object, namespace: argparse.Namespace, values: object, option: object = None) -> None:
        """Check and store the path."""
        from mmpluld.outputs import check_output_folder

        check_output_folder(str(values))
        setattr(namespace, self.dest, values)


def check_apart(options: argparse.Namespace) -> None:
    """Refuse to write a file over another one that the command line names.

    Raises:
        InputError: A file to write is one to read, or two files to write are one.
    """
    named = {name: _texts(value) for name, value in vars(options).items() if name != "written"}
    for name in dict.fromkeys(getattr(options, "written", [])):
        (target,) = map(Path, named.pop(name))
        if any(_same(target, Path(other)) for texts in named.values() for other in texts):
            raise InputError(f"{target}: is named twice in this command, which writes it; give another file to write")


def _texts(value: object) -> list[str]:
    """The texts among the values of an option."""
    if isinstance(value, str):
        return [value]
    return [text for item in value for text in _texts(item)] if isinstance(value, (list, tuple)) else []


def _same(one: Path, two: Path) -> bool:
    try:
        return one.resolve() == two.resolve() or one.samefile(two)
    except (OSError, RuntimeError, ValueError):
        return False
