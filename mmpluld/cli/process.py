"""The process of a command: how signals end it and what it starts, and standard streams that are closed."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

TYPE_CHECKING = False  # as in typing, which takes longer to import than all else here
if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["Ended", "ends_with_signals", "flush", "open_streams", "say"]

# What only a command that runs needs is imported where it is needed: `mmpluld --help` takes as long as its imports.
_ENDING = ("SIGTERM", "SIGHUP")
_AGAIN_S = 5.0  # a closed terminal sends several signals at once; they must not disturb what the first one ends


class Ended(SystemExit):
    """A signal asked this process to end; raised in the main thread, so that everything is cleaned up.

    Attributes:
        status: Exit status, 128 and the signal's number.
        name: Name of the signal.
    """

    def __init__(self, number: int, name: str) -> None:
        super().__init__(128 + number)
        self.status, self.name = 128 + number, name


class _Family:
    """What this module tells the system about the processes that are forked from this one."""

    registered = active = lasting = False
    ending: tuple[int, ...] = ()
    process = 0

    @classmethod
    def before_fork(cls) -> None:
        import threading

        cls.process = os.getpid()
        cls.lasting = threading.current_thread() is threading.main_thread()
        if cls.active:  # the child must find them imported
            import ctypes  # noqa: F401

            import mmpluld.compat.system  # noqa: F401

    @classmethod
    def in_child(cls) -> None:
        """The parent cleans up and ends its workers; a worker has nothing of its own to clean up."""
        if cls.active:
            import signal

            for number in cls.ending:
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            from mmpluld.compat.system import end_with_parent

            if cls.lasting:  # to the system, a thread that ends is a parent that ends
                end_with_parent(cls.process)


@contextmanager
def ends_with_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise :class:`Ended` during the block, and forked workers end with this process.

    A signal that is ignored (``nohup``) stays so. Outside the main thread nothing is changed.
    """
    import signal
    import threading
    import time

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    first: list[float] = []

    def end(number: int, _: object) -> None:
        if first and time.monotonic() - first[0] < _AGAIN_S:
            return
        first[:] = [time.monotonic()]
        raise Ended(number, signal.Signals(number).name)

    _Family.ending = tuple(getattr(signal, name) for name in _ENDING if hasattr(signal, name))
    before = {number: signal.getsignal(number) for number in _Family.ending}
    for number, handler in before.items():
        if handler is signal.SIG_DFL:
            signal.signal(number, end)
    if not _Family.registered and hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_Family.before_fork, after_in_child=_Family.in_child)
        _Family.registered = True
    was, _Family.active = _Family.active, True
    try:
        yield
    finally:
        _Family.active = was
        for number, handler in before.items():
            signal.signal(number, handler)


class _Unread(io.FileIO):
    """An output stream whose reader may go away (``mmpluld ... | head``): the work goes on, the rest goes nowhere."""

    def write(self, data: Buffer, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
            return super().write(data)


def open_streams() -> None:
    """Make the standard streams such that printing does not fail.

    What was closed of them leads nowhere: otherwise the next file that is opened would take its number, and get what
    libraries print. What nobody reads any more is dropped.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))
        stream = getattr(sys, name)
        if number and isinstance(stream, io.TextIOWrapper) and stream is getattr(sys, f"__{name}__"):
            buffer = io.BufferedWriter(_Unread(stream.fileno(), "w", closefd=False))
            lines = stream.line_buffering
            setattr(sys, name, io.TextIOWrapper(buffer, stream.encoding, stream.errors, line_buffering=lines))


def flush() -> None:
    """Send on what is printed; what cannot be written is dropped, so that nothing complains of it at the end."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            with suppress(OSError, io.UnsupportedOperation):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def say(text: str) -> None:
    """Print a line on standard error, if somebody reads it."""
    with suppress(OSError):
        print(text, file=sys.stderr)
