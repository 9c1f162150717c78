"""The command line: exit status, one-line errors, speed-relevant laziness."""

import subprocess
import sys

import pytest

from mmpluld.cli.main import COMMANDS, main
from mmpluld.version import __version__


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert __version__ in capsys.readouterr().out


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_shows_help_with_an_example(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert f"mmpluld {command}" in capsys.readouterr().out.split("example:")[1]


def test_unknown_command_names_the_nearest(capsys):
    assert main(["trian"]) == 2
    assert capsys.readouterr().err == "mmpluld: error: unknown command 'trian'; did you mean 'train'?\n"


def test_missing_argument_is_one_line(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", "a.json"])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "GT" in error


def test_bad_input_is_one_line_and_status_2(tmp_path, capsys):
    missing = tmp_path / "missing.json"
    assert main(["evaluate", str(missing), str(missing), "--protocol", "lens-3d"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("mmpluld: error: ")
    assert str(missing) in error
    assert error.count("\n") == 1


def test_help_imports_no_heavy_package():
    code = (
        "import sys, contextlib, mmpluld.cli.main as m\n"
        "with contextlib.suppress(SystemExit): m.main(['--help'])\n"
        "print(sorted({'torch', 'numpy', 'mmdet', 'mmengine', 'SimpleITK'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "[]"
