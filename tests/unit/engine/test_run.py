"""Finding configs, and moving the data of one."""

import pytest

from mmpluld.engine.run import find_config, train
from mmpluld.errors import InputError

NAME = "a3d_densenet121-fpn_7s_20e_deeplesion"


@pytest.mark.parametrize("name", [NAME, f"{NAME}.py", f"configs/a3d/{NAME}.py"])
def test_zoo_config_by_name_or_path(name, monkeypatch, request):
    monkeypatch.chdir(request.config.rootpath)
    assert find_config(name).name == f"{NAME}.py"


def test_own_config_by_path(tmp_path):
    own = tmp_path / "mine.py"
    own.write_text("")
    assert find_config(own) == own


def test_unknown_config_names_the_nearest():
    with pytest.raises(InputError, match=f"a3d_densenet121-fpn_7s_20e_deplesion: .* did you mean '{NAME}'"):
        find_config("a3d_densenet121-fpn_7s_20e_deplesion")


def test_unknown_config_far_from_all():
    with pytest.raises(InputError, match="give a path or a name of the zoo"):
        find_config("xyz")


def test_resume_from_a_missing_checkpoint(tmp_path):
    with pytest.raises(InputError, match="nothing.pth: no such checkpoint"):
        train(NAME, work_dir=tmp_path, resume=str(tmp_path / "nothing.pth"))
    assert not list(tmp_path.iterdir())
