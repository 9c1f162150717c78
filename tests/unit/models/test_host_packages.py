"""Importing the models leaves the host packages as they are, for people who use a part of them in their own project."""

from __future__ import annotations

import subprocess
import sys

SNAPSHOT = """
import sys, types
from mmpluld.compat.ops import install_ops
install_ops()  # the stand-in for mmcv's compiled operators, which stays
import torch, mmengine.runner, mmengine.fileio, mmdet.models, mmdet.datasets
from mmengine.registry import DefaultScope, Registry
from mmengine.runner import CheckpointLoader

HOSTS = ("mmengine", "mmcv", "mmdet", "torch")

def snapshot():
    found = {"loaders": dict(CheckpointLoader._schemes), "scope": DefaultScope.get_current_instance()}
    found["torch"] = (torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled())
    for module in list(sys.modules.values()):
        name = getattr(module, "__name__", "")
        if type(module) is not types.ModuleType or name.split(".")[0] not in HOSTS:
            continue
        for key, value in vars(module).items():
            found[name, key] = id(value)
            if isinstance(value, type) and value.__module__ == name:
                found |= {(name, key, inner): id(member) for inner, member in vars(value).items()}
            if isinstance(value, Registry):
                found |= {(name, key, inner): id(member) for inner, member in value.module_dict.items()}
    return found

before = snapshot()
import mmpluld.models
after = snapshot()
print([key for key, value in before.items() if after[key] != value])
print(sorted(name for name in sys.modules if name.split(".")[:2] == ["mmpluld", "engine"]))
"""


def test_nothing_is_replaced():
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", SNAPSHOT], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "[]"]
