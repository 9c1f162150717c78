"""``mmpluld config``: any config as one file that says the same."""

import pytest

from mmpluld.cli.main import main
from mmpluld.engine.config import load_config

NAME = "pluld-a3d_densenet121-fpn_7s_20e_deeplesion"


@pytest.mark.parametrize("twin", [False, True])
def test_copy_says_the_same_and_needs_no_other_file(twin, tmp_path, capsys):
    target = tmp_path / "mine.py"
    assert main(["config", NAME, "--out", str(target), *(["--twin"] if twin else [])]) == 0
    assert capsys.readouterr().out == f"{target}\n"
    assert "_base_" not in target.read_text()
    assert load_config(target)._cfg_dict == load_config(NAME, twin=twin)._cfg_dict


def test_printed_with_changes(capsys):
    assert main(["config", NAME, "--cfg-options", "train_cfg.max_epochs=3"]) == 0
    printed = capsys.readouterr().out
    assert printed == load_config(NAME, ["train_cfg.max_epochs=3"]).pretty_text
    assert "max_epochs=3" in printed


def test_other_content_is_kept_unless_asked(tmp_path, capsys):
    target = tmp_path / "mine.py"
    target.write_text("a = 1\n")
    assert main(["config", NAME, "--out", str(target)]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert target.read_text() == "a = 1\n"
    assert main(["config", NAME, "--out", str(target), "--overwrite"]) == 0
    assert main(["config", NAME, "--out", str(target)]) == 0  # the same content is no conflict


@pytest.mark.parametrize("out", ["mine.txt", "taken.py", "file/mine.py"])
def test_a_place_that_cannot_be_written_is_one_line(out, tmp_path, capsys):
    (tmp_path / "taken.py").mkdir()
    (tmp_path / "file").write_text("")
    assert main(["config", NAME, "--out", str(tmp_path / out)]) == 2
    error = capsys.readouterr().err
    assert str(tmp_path) in error
    assert error.count("\n") == 1
