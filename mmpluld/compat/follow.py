"""Run a command that ends with the process that started it: ``python -m mmpluld.compat.follow PARENT_PID COMMAND...``.

A command that we start as a child must not outlive us, not even when we are killed. What a process asks the system for
stays when it becomes another program, so this asks, and becomes the command.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

from mmpluld.compat.system import end_with_parent

__all__ = ["following"]


def following(command: Sequence[str]) -> list[str]:
    """The command that runs ``command`` as a child of this process that is terminated when this process ends."""
    return [sys.executable, "-m", "mmpluld.compat.follow", str(os.getpid()), *command]


if __name__ == "__main__":
    end_with_parent(int(sys.argv[1]), signal.SIGTERM)
    os.execvp(sys.argv[2], sys.argv[2:])
