"""The command line: exit status, one-line errors, speed-relevant laziness."""

import os
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


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--oot", "f2"], "--oot: no such option; did you mean '--out'?"),
        (["--scor-thr=0.3", "-x"], "--scor-thr: no such option; did you mean '--score-thr'?, -x: no such option"),
        (["--", "--oot"], "one of the arguments -o/--out --list is required"),
        (["--score", "0.3"], "--out --list is required"),
    ],
)
def test_unknown_options_are_told_first(arguments, told, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["detect", "scan.nii", *arguments])
    error = capsys.readouterr().err
    assert ended.value.code == 2 and told in error and error.count("\n") == 1
    assert ("no such option" in error) is ("no such option" in told)


def test_help_is_shown_beside_an_unknown_option(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["detect", "--oot", "-h"])
    assert ended.value.code == 0 and "usage" in capsys.readouterr().out


def test_bad_input_is_one_line_and_status_2(tmp_path, capsys):
    missing = tmp_path / "missing.json"
    assert main(["evaluate", str(missing), str(missing), "--protocol", "lens-3d"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("mmpluld: error: ")
    assert str(missing) in error
    assert error.count("\n") == 1


def test_a_scan_without_a_name_is_not_the_folder_one_is_in(capsys):
    assert main(["detect", "", "--checkpoint", "x", "--out", "o"]) == 2
    assert "scan is empty; is a variable of the shell not set?" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--help"], ["mine", "--help"]])
def test_help_imports_no_heavy_package(arguments):
    code = (
        "import sys, contextlib, mmpluld.cli.main as m\n"
        f"with contextlib.suppress(SystemExit): m.main({arguments})\n"
        "print(sorted({'torch', 'numpy', 'mmdet', 'mmengine', 'SimpleITK'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "[]"


@pytest.mark.parametrize("wrong", ["scan", "weights"])
def test_detect_refuses_before_it_loads_the_network(tmp_path, wrong):
    (tmp_path / "scan.nii").write_text("no scan")
    argv = ["detect", str(tmp_path / "scan.nii"), "--out", str(tmp_path / "out")]
    if wrong == "weights":
        argv += ["--config", "a3d_densenet121-fpn_7s_phantom", "--checkpoint", str(tmp_path / "gone.pth")]
    code = (
        "import sys; from mmpluld.cli.main import main\n"
        f"status = main({argv!r})\n"
        "print(status, sorted({'torch', 'mmdet', 'SimpleITK', 'jinja2'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.count("\n") == 1
    assert {"scan": "scan.nii", "weights": "gone.pth"}[wrong] in done.stderr
    assert done.stdout == "2 []\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_messages_with_any_name_on_any_terminal(tmp_path, encoding):
    name = str(tmp_path).encode() + b"/" + "患者 скан".encode("gbk", "replace") + "скан\n".encode() + b".nii"
    environment = {**os.environ, "LC_ALL": "C", "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    arguments = [name, b"--out", str(tmp_path / "o").encode()]
    done = subprocess.run(
        [os.fsencode(sys.executable), b"-m", b"mmpluld", b"detect", *arguments], capture_output=True, env=environment
    )
    assert done.returncode == 2
    assert done.stderr.count(b"\n") == 1
    assert b"no such file or folder" in done.stderr
    assert b"\\xbb\\xbc" in done.stderr
