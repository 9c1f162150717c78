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
    assert run(code, tmp_path) == ["mmpluld mmpluld.version"]


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


def test_import_beside_mmengine_makes_the_package_known(tmp_path):
    config = tmp_path / "mine.py"
    config.write_text(f'_base_ = "mmpluld::{NAME}"\nmodel = dict(rpn_head=dict(loss_cls=dict(neg_weight=0.25)))\n')
    code = f"""
import sys
from mmengine.config import Config
from mmengine.hub import get_config, get_model
import mmpluld
print("mmdet.models" in sys.modules)
config = Config.fromfile({str(config)!r})
print(config.model.rpn_head.loss_cls.neg_weight, config.model.rpn_head.loss_cls.keep_prob)
print(get_config("mmpluld::{NAME}").model.rpn_head.loss_cls.neg_weight)
model = get_model("mmpluld::{NAME}")
print(type(model).__name__, type(model.backbone).__name__, type(model.rpn_head.loss_cls).__name__)
"""
    assert run(code, tmp_path) == ["False", "0.25 0.5", "0.6", "MaskRCNN TruncatedDenseNet PartialLabelLoss"]


def test_models_change_nothing_in_the_host_packages(tmp_path):
    code = """
import sys
import mmdet.registry, mmengine.runner, mmengine.hub
import mmpluld.registry
import mmdet.models

def attributes():
    found = {}
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] not in ("mmengine", "mmdet", "mmcv") or name == "mmcv._ext":
            continue
        for key, value in vars(module).items():
            if key.startswith("__") or f"{name}.{key}" in sys.modules:
                continue
            found[name, key] = value
            if isinstance(value, type):
                found.update({(name, key, part): it for part, it in vars(value).items() if not part.startswith("_")})
    return found

before = attributes()
import mmpluld.models
after = attributes()
print(len(before) > 1000, [key for key in before if after.get(key) is not before[key]])
"""
    assert run(code, tmp_path)[-1] == "True []"


def test_installed_configs_are_the_ones_of_the_zoo():
    installed = Path(mmpluld.__file__).parent / ".mim" / "configs" / NAME
    assert installed.resolve() == (zoo_root() / "configs" / NAME).resolve()
