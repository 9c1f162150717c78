"""Every module can be imported first, in whatever order a user asks for them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import mmpluld

ROOT = Path(mmpluld.__file__).parent
# Each in a child of its own; torch is there already, for time.
_EACH = """
import os, sys, traceback
import torch

failed = []
for name in sys.argv[1:]:
    child = os.fork()
    if child == 0:
        try:
            __import__(name)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        failed.append(name)
sys.exit(", ".join(failed))
"""


def _modules(pattern: str) -> list[str]:
    places = sorted(place.relative_to(ROOT.parent) for place in ROOT.glob(pattern) if ".mim" not in place.parts)
    names = [".".join(place.with_suffix("").parts).removesuffix(".__init__") for place in places]
    return [name for name in names if not name.endswith("__main__")]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a module each needs a process of its own")
@pytest.mark.parametrize(
    "pattern",
    [
        "datasets/transforms/__init__.py",
        pytest.param("**/*.py", marks=pytest.mark.slow),
    ],
)
def test_a_module_alone(pattern):
    names = _modules(pattern)
    assert names
    done = subprocess.run([sys.executable, "-c", _EACH, *names], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
