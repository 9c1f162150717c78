"""Packaging: metadata lives in setup.cfg; here only the `.mim` folder that openmim looks for is placed."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

MIM_CONTENT = ("configs", "tools", "checkpoints")


class BuildPyWithMim(build_py):
    """Copy configs, tools, index and weights of the zoo into ``mmpluld/.mim`` of the build tree, never of the source.

    An editable install runs straight from the source tree, where the originals are found; it gets no copy.
    """

    def run(self):
        super().run()
        if self.editable_mode:
            return
        source = Path(__file__).resolve().parent
        target = Path(self.build_lib) / "mmpluld" / ".mim"
        if target.exists():
            shutil.rmtree(target)
        for name in MIM_CONTENT:
            ignore = shutil.ignore_patterns("__pycache__", "*.pyc")
            shutil.copytree(source / name, target / name, ignore=ignore)
        shutil.copy(source / "model-index.yml", target)


setup(cmdclass={"build_py": BuildPyWithMim})
