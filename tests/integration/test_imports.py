"""Every module can be imported first, also where mmcv has no compiled operators."""

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
sys.exit(", ".join(failed) or 0)
"""


def _modules(pattern: str) -> list[str]:
    places = sorted(place for place in ROOT.glob(pattern) if not {".mim", "__main__.py"} & set(place.parts))
    parts = [place.relative_to(ROOT.parent).with_suffix("").parts for place in places]
    return [".".join(part).removesuffix(".__init__") for part in parts]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a module each needs a process of its own")
@pytest.mark.parametrize(
    "pattern",
    [
        "datasets/transforms/intensity.py",
        pytest.param("**/*.py", marks=[pytest.mark.slow, pytest.mark.timeout(1500)]),
    ],
)
def test_a_module_alone(pattern):
    names = _modules(pattern)
    assert names
    done = subprocess.run([sys.executable, "-c", _EACH, *names], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
