"""Packaging: metadata lives in setup.cfg; here only the `.mim` folder that openmim and MMEngine look for is placed."""

import os
import shutil
from pathlib import Path

import yaml
from setuptools import setup
from setuptools.command.build_py import build_py

FOLDERS = ("configs", "checkpoints")
TOOLS = ("train.py", "test.py", "download.py")  # what `mim train|test|run` starts; the others are for a checkout
INDEX = "model-index.yml"


class BuildPyWithMim(build_py):
    """Place configs, tools, index and weights of the zoo in ``mmpluld/.mim`` of the build tree, never of the source.

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
            _link(source, target)
            return
        for name in FOLDERS:
            ignore = shutil.ignore_patterns("__pycache__", "*.pyc")
            shutil.copytree(source / name, target / name, ignore=ignore)
        (target / "tools").mkdir()
        for name in TOOLS:
            shutil.copy(source / "tools" / name, target / "tools")
        (target / INDEX).write_text(mim_index(source), encoding="utf-8")


def _link(source: Path, target: Path) -> None:
    for path in (source / INDEX, *(source / "configs").rglob("*.py"), *(source / "configs").rglob("*.yml")):
        link = target / path.relative_to(source)
        link.parent.mkdir(parents=True, exist_ok=True)
        try:
            link.symlink_to(os.path.relpath(path, link.parent))
        except OSError:  # a file system without links: only `mmpluld::` will not work from this checkout
            return


def mim_index(source: Path) -> str:
    """The index as openmim reads it from an installed package: one file, with an address for every model.

    openmim fetches any weights by http(s) and fails on a model that has none. Where it cannot fetch, the address is
    the advice that its error then shows. A config of another name than the model is a paper's, for the model's twin;
    openmim would hand it out unchanged.
    """
    merged = {"Import": [], "Collections": [], "Models": []}  # MMEngine reads the first, and asks for nothing more
    for metafile in yaml.safe_load((source / INDEX).read_text(encoding="utf-8"))["Import"]:
        content = yaml.safe_load((source / metafile).read_text(encoding="utf-8"))
        for key in ("Collections", "Models"):
            merged[key].extend(content[key])
    for model in merged["Models"]:
        name, weights = model["Name"], model.get("Weights")
        if weights is None:
            model["Weights"] = f"no weights are published: train them with mmpluld train {name}"
        elif "://" not in weights or Path(model["Config"]).stem != name:
            model["Weights"] = f"mim cannot fetch these weights: use mmpluld download {name}"
    return yaml.safe_dump(merged, sort_keys=False, width=120, allow_unicode=True)


if __name__ == "__main__":
    setup(cmdclass={"build_py": BuildPyWithMim})
