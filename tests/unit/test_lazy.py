"""Names of packages that load their modules late."""

import ast
import importlib
from pathlib import Path

import pytest

import mmpluld

ROOT = Path(mmpluld.__file__).parent
LAZY = [
    ".".join(("mmpluld", *file.parent.relative_to(ROOT).parts))
    for file in sorted(ROOT.rglob("__init__.py"))
    if any(
        isinstance(node, ast.Name) and node.id == "lazy_names"
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
    )
]


def test_packages_are_found():
    assert {"mmpluld", "mmpluld.engine", "mmpluld.inference"} <= set(LAZY)


@pytest.mark.parametrize("package", LAZY)
def test_all_public_names_are_listed_and_there(package):
    module = importlib.import_module(package)
    names = dir(module)
    assert set(module.__all__) - set(names) == set()
    assert names == sorted(names) and "__doc__" in names
    assert [name for name in module.__all__ if not hasattr(module, name)] == []


def test_other_names_are_not_there():
    with pytest.raises(AttributeError, match=r"module 'mmpluld.inference' has no attribute 'Detektor'"):
        importlib.import_module("mmpluld.inference").Detektor  # noqa: B018
