"""Packaging: metadata lives in setup.cfg; here only the `.mim` folder that openmim and MMEngine look for is placed."""

import os
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

MIM_CONTENT = ("configs", "tools", "checkpoints")
INDEX = "model-index.yml"


class BuildPyWithMim(build_py):
    """Copy configs, tools, index and weights of the zoo into ``mmpluld/.mim`` of the build tree, never of the source.

    An editable install runs from the source tree. There ``.mim`` (ignored by git) holds a link to each config and index
    file, so that ``mmpluld::pluld/NAME.py`` works; a link to a folder would hide the folder itself from setuptools.
    """

    def run(self):
        super().run()
        source = Path(__file__).resolve().parent
        target = (source if self.editable_mode else Path(self.build_lib)) / "mmpluld" / ".mim"
        if target.exists():
            shutil.rmtree(target)
        if self.editable_mode:
            self._link(source, target)
            return
        for name in MIM_CONTENT:
            ignore = shutil.ignore_patterns("__pycache__", "*.pyc")
            shutil.copytree(source / name, target / name, ignore=ignore)
        shutil.copy(source / INDEX, target)

    @staticmethod
    def _link(source, target):
        for path in (source / INDEX, *(source / "configs").rglob("*.py"), *(source / "configs").rglob("*.yml")):
            link = target / path.relative_to(source)
            link.parent.mkdir(parents=True, exist_ok=True)
            try:
                link.symlink_to(os.path.relpath(path, link.parent))
            except OSError:  # a file system without links: only `mmpluld::` will not work from this checkout
                return


setup(cmdclass={"build_py": BuildPyWithMim})
