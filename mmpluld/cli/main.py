"""Entry point of the ``mmpluld`` command: one sub-command per module, one-line errors, exit status 0, 1 or 2."""

from __future__ import annotations

import argparse
import errno
import importlib
import io
import os
import re
import sys
from collections.abc import Sequence
from itertools import takewhile
from types import ModuleType

from mmpluld.cli.outputs import check_apart
from mmpluld.cli.process import Ended, ends_with_signals, flush, open_streams, say
from mmpluld.errors import InputError, MMPluldError, did_you_mean, printable
from mmpluld.version import __version__

__all__ = ["COMMANDS", "command_parser", "main", "run"]

# Name of a sub-command -> its line in `mmpluld --help`. Each lives in mmpluld/cli/<name>.py, with _ for -.
COMMANDS = {
    "train": "train a detector from a config",
    "test": "test a checkpoint and report FROC",
    "detect": "detect lesions in a CT scan",
    "propose": "keep all 2D boxes of a detector's experts in the volumes of an annotation file, for mining",
    "harvest": "sort proposals into lesions and false positives, to train false-positive reduction on",
    "rescore": "give the findings of a detection file new scores by false-positive reduction",
    "calibrate": "make the scores of a detector's experts comparable",
    "embed": "embed lesions and tracklets, so that those of one patient can be matched",
    "match": "evaluate embeddings on lesions whose identity is known, and choose delta",
    "mine": "find missing annotations in proposals, for training anew",
    "evaluate": "FROC of a detection file against a ground truth file",
    "convert": "turn a raw dataset into the annotation format",
    "browse": "draw training samples as the network sees them",
    "check-data": "look through a converted dataset for faults",
    "convert-checkpoint": "turn published weights of another code base into a checkpoint of this package",
    "phantom": "make a synthetic CT dataset with complete truth",
    "reproduce": "run a paper's table, or its twin on the phantom, over seeds",
    "config": "print or copy a config of the zoo, complete in one file",
    "models": "list the models of the zoo, their weights and figures",
    "download": "fetch the bundle of a model of the zoo: weights, config, operating points",
    "curves": "plot losses, learning rate and validation metrics of trainings",
    "doctor": "show versions, operators in use and resources",
}


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> None:  # type: ignore[override]
        self.exit(2, f"{self.prog}: error: {' '.join(message.split())} (see `{self.prog} --help`)\n")

    def check_options(self, arguments: Sequence[str]) -> None:
        """Refuse unknown options before anything is missed, for they may be what is missing, misspelt."""
        known = [*self._option_string_actions]
        options = list(takewhile(lambda text: text != "--", arguments))
        if not {"-h", "--help"}.isdisjoint(options):
            return
        unknown = []
        for text in options:
            name = text.partition("=")[0]
            is_option = re.match(r"--|-[A-Za-z]", text) and " " not in name
            if is_option and not any(option.startswith(name) for option in known):
                unknown.append(f"{name}: no such option{did_you_mean(name, known)}")
        if unknown:
            self.error(", ".join(unknown))


def _parser() -> argparse.ArgumentParser:
    listing = "\n".join(f"  {name:<18} {text}" for name, text in COMMANDS.items())
    parser = _Parser(
        prog="mmpluld",
        description="Universal lesion detection in CT with partial labels. Research use only, not for diagnosis.",
        epilog=f"commands:\n{listing}\n\n`mmpluld COMMAND --help` shows the options and an example.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"mmpluld {__version__}")
    parser.add_argument("command", metavar="COMMAND", help="one of the commands below")
    parser.add_argument("arguments", metavar="...", nargs=argparse.REMAINDER, help="arguments of the command")
    return parser


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"mmpluld.cli.{name.replace('-', '_')}")


def command_parser(name: str) -> _Parser:
    """The parser of a sub-command; its help is what ``mmpluld NAME --help`` prints.

    Args:
        name: A key of ``COMMANDS``.
    """
    module = _module(name)
    parser = _Parser(
        prog=f"mmpluld {name}",
        description=COMMANDS[name][:1].upper() + COMMANDS[name][1:] + ".",
        epilog=f"example:\n  {module.EXAMPLE}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    module.add_arguments(parser)
    return parser


def run(argv: Sequence[str]) -> int:
    """Run a command line and return its exit status; whatever is raised is the caller's to handle."""
    options = _parser().parse_args(argv)
    name = options.command
    if name not in COMMANDS:
        raise InputError(f"unknown command {name!r}" + did_you_mean(name, COMMANDS, f"one of {', '.join(COMMANDS)}"))
    module = _module(name)
    parser = command_parser(name)
    parser.check_options(options.arguments)
    given = parser.parse_args(options.arguments)
    for place in ("scan", "root", "predictions", "truth"):
        value = getattr(given, place, None)
        if "" in (value if isinstance(value, list) else [value]):  # which Python takes for the folder one is in
            raise InputError(f"{place} is empty; is a variable of the shell not set?")
    check_apart(given)

    import logging  # here, because it takes as long as all else that `--help` needs

    from mmpluld.compat.processes import import_in_turn

    logging.raiseExceptions = given.debug  # a log that nobody reads any more is no error
    import_in_turn()
    with ends_with_signals():
        return int(module.run(given) or 0)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return 0, 1 (failed), 2 (usage or bad input), or 128 and the number of an ending signal.

    The traceback of an expected error is shown only with ``--debug`` or when MMPLULD_DEBUG=1.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    open_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names that the terminal's encoding lacks are escaped, not raised
            stream.reconfigure(errors="backslashreplace")
    debug = "--debug" in argv or os.environ.get("MMPLULD_DEBUG") == "1"
    try:
        return _status(argv, debug)
    finally:
        flush()


def _run(argv: Sequence[str]) -> int:
    """As :func:`run`; a signal that a library caught with all else and made another error of is that signal again."""
    try:
        return run(argv)
    except Exception as error:
        before = error.__context__
        while before is not None:
            if isinstance(before, (Ended, KeyboardInterrupt)):
                raise before from None
            before = before.__context__
        raise


def _status(argv: Sequence[str], debug: bool) -> int:
    """Exit status of a command, after one line on what went wrong."""
    try:
        return _run(argv)
    except MMPluldError as error:
        if debug:
            raise
        say(f"mmpluld: error: {' '.join(str(error).split())}")
        return 2 if isinstance(error, InputError) else 1
    except Ended as ended:
        say(f"mmpluld: ended by {ended.name}")
        return ended.status
    except KeyboardInterrupt:
        say("mmpluld: interrupted")
        return 130
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS) and not debug:
            say(f"mmpluld: error: {error.filename or 'an output'}: cannot be written ({error.strerror}); make room")
            return 2
        if debug:
            raise
        reason = " ".join(printable(str(error)).split())
        say(f"mmpluld: failed: {type(error).__name__}: {reason} (--debug shows where)")
        return 1


if __name__ == "__main__":
    sys.exit(main())
