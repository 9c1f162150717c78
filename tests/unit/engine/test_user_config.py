"""Configs in a user's own folder: bases by package name, modules beside the file."""

import sys

import pytest

from mmpluld.engine.config import load_config
from mmpluld.errors import InputError
from mmpluld.registry import MODELS
from mmpluld.zoo.index import zoo_root

NAME = "pluld/pluld-a3d_densenet121-fpn_7s_20e_deeplesion.py"


@pytest.mark.parametrize("twin", [False, True])
def test_base_by_package_name_is_the_base_by_path(twin, tmp_path):
    change = "model = dict(rpn_head=dict(loss_cls=dict(pos_weight=2.0)))\n"
    by_name, by_path = tmp_path / "by_name.py", tmp_path / "by_path.py"
    by_name.write_text(f'_base_ = "mmpluld::{NAME}"\n{change}')
    by_path.write_text(f'_base_ = "{zoo_root() / "configs" / NAME}"\n{change}')
    config = load_config(by_name, twin=twin)
    assert config.pretty_text == load_config(by_path, twin=twin).pretty_text
    assert config.model.rpn_head.loss_cls.pos_weight == 2


def test_module_beside_the_config_is_imported_from_any_folder(tmp_path, monkeypatch):
    project, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    project.mkdir()
    elsewhere.mkdir()
    (project / "module_beside_the_config.py").write_text(
        "from mmpluld.registry import MODELS\n\n@MODELS.register_module()\nclass PartBesideTheConfig:\n    pass\n"
    )
    (project / "mine.py").write_text(
        f'_base_ = "mmpluld::{NAME}"\ncustom_imports = dict(imports=["module_beside_the_config"])\n'
    )
    monkeypatch.chdir(elsewhere)
    monkeypatch.setattr(sys, "path", [*sys.path])
    try:
        config = load_config("../project/mine.py")
        assert config.custom_imports.imports == ["module_beside_the_config"]
        assert MODELS.get("PartBesideTheConfig").__module__ == "module_beside_the_config"
    finally:
        MODELS.module_dict.pop("PartBesideTheConfig", None)
        sys.modules.pop("module_beside_the_config", None)


def test_modules_of_one_name_beside_two_configs_are_refused(tmp_path, monkeypatch):
    for folder in ("a", "b"):
        (tmp_path / folder / "namesakes").mkdir(parents=True)
        (tmp_path / folder / "namesakes" / "__init__.py").write_text("")
        (tmp_path / folder / "namesakes" / "parts.py").write_text(f"OWNER = {folder!r}\n")
        (tmp_path / folder / "mine.py").write_text(
            f'_base_ = "mmpluld::{NAME}"\ncustom_imports = dict(imports="namesakes.parts")\n'
        )
    monkeypatch.setattr(sys, "path", [*sys.path])
    try:
        load_config(tmp_path / "a" / "mine.py")
        load_config(tmp_path / "a" / "mine.py")
        with pytest.raises(
            InputError, match=r"mine.py: custom_imports: namesakes.parts is .*b.*, but this process has"
        ):
            load_config(tmp_path / "b" / "mine.py")
    finally:
        sys.modules.pop("namesakes", None)
        sys.modules.pop("namesakes.parts", None)


def test_missing_module_is_named(tmp_path):
    config = tmp_path / "mine.py"
    config.write_text(f'_base_ = "mmpluld::{NAME}"\ncustom_imports = dict(imports=["no_such_module_anywhere"])\n')
    with pytest.raises(InputError, match=r"mine.py.*no_such_module_anywhere.*beside"):
        load_config(config)
