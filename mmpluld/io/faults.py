"""What reading libraries say about a file they cannot read, turned into one line."""

from __future__ import annotations

import logging
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mmpluld.errors import InputError, NoMemoryError
from mmpluld.progress import stderr_into

__all__ = ["captured_stderr", "damaged", "quiet", "reading"]

_ITK_OBJECT = re.compile(r"(ITK ERROR: )?\w+\(0x[0-9a-f]+\): |ITK ERROR: ")


@contextmanager
def captured_stderr() -> Iterator[Callable[[], str]]:
    """Catch what ITK's readers write straight to file descriptor 2; yields a function that returns it.

    Some tell only there why a file cannot be read, so the text belongs into the error message, not on the terminal.
    """
    with tempfile.TemporaryFile() as stream:

        def caught() -> str:
            stream.seek(0)
            return stream.read().decode(errors="replace")

        with stderr_into(stream.fileno()):
            yield caught


@contextmanager
def quiet(logger: str) -> Iterator[None]:
    """Keep a library's remarks on odd but readable headers off the terminal: its logger's and its warnings."""
    target = logging.getLogger(logger)
    level = target.level
    target.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=logger.partition(".")[0])
            yield
    finally:
        target.setLevel(level)


@contextmanager
def reading(file: Path, kind: str) -> Iterator[None]:
    """Turn whatever a library raises on a damaged file into one line that names the file.

    Every exception counts: given damaged bytes, the parsers raise anything from KeyError to NotImplementedError. Hence
    a block under this guard holds calls of the library and little else.
    """
    try:
        yield
    except InputError:
        raise
    except MemoryError:
        raise NoMemoryError(f"{file}: does not fit into the memory that is free; use a machine with more") from None
    except Exception as error:
        raise InputError(damaged(file, kind, error)) from None


def damaged(file: Path, kind: str, error: Exception | str) -> str:
    """Return the message for a file that a library refuses.

    Args:
        file: The file.
        kind: What it was read as.
        error: What the library raised or printed. Of several lines the last two are kept: ITK begins with a
            paragraph on its own source code.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = _ITK_OBJECT.sub("", "; ".join(lines[-2:])) or type(error).__name__
    return f"{file}: cannot be read as {kind} ({reason}); it is damaged or cut off, copy or export it again"
