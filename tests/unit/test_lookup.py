"""What MMEngine finds of this package, in the environment the tests run in (an editable install, or a wheel)."""

import subprocess
import sys
from pathlib import Path

import mmpluld
from mmpluld.zoo.index import zoo_root

NAME = "pluld/pluld-a3d_densenet121-fpn_7s_20e_deeplesion.py"


def run(code, folder):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=folder, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_importing_the_package_is_light(tmp_path):
    code = "import sys; before = set(sys.modules); import mmpluld; print(*sorted(set(sys.modules) - before))"
    assert run(code, tmp_path) == ["mmpluld mmpluld.lazy mmpluld.version"]


def test_detector_is_offered_without_loading_the_network(tmp_path):
    """`from mmpluld import Detector` in a fresh process: the libraries of the network come with the first scan."""
    code = (
        "import sys; from mmpluld import CTVolume, Detector, Findings; d = Detector()\n"
        "print(Detector.__name__, *sorted({'torch', 'mmdet', 'mmengine', 'pandas', 'matplotlib'} & set(sys.modules)))\n"
        "import mmpluld\n"
        "try: mmpluld.Detektor\n"
        "except AttributeError as error: print(error)"
    )
    assert run(code, tmp_path) == ["Detector", "module 'mmpluld' has no attribute 'Detektor'"]


def test_installed_configs_are_the_ones_of_the_zoo():
    installed = Path(mmpluld.__file__).parent / ".mim" / "configs" / NAME
    assert installed.resolve() == (zoo_root() / "configs" / NAME).resolve()
