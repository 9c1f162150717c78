"""What a built distribution contains and that it works where it is installed."""

import hashlib
import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    return out


@pytest.fixture(scope="module")
def installed(distributions, tmp_path_factory):
    """A fresh environment that sees our dependencies, with the wheel installed."""
    folder = tmp_path_factory.mktemp("env")
    venv.create(folder, with_pip=False)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    # A path file makes the packages of this environment visible without downloading them again; paths added by
    # the environment's own editable installs are not followed.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (wheel,) = distributions.glob("*.whl")
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-compile",
        "--target",
        str(site),
    ]
    subprocess.run([*command, str(wheel)], check=True)
    return folder, site


def _run(python: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [str(python), *arguments], cwd=cwd, capture_output=True, text=True, env=environment, timeout=240
    )


def test_wheel_holds_configs_tools_and_data(distributions):
    (wheel,) = distributions.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    configs = {str(path.relative_to(ROOT)) for path in (ROOT / "configs").rglob("*.py")}
    assert configs <= {name.removeprefix("mmpluld/.mim/") for name in names}
    assert {"mmpluld/.mim/tools/train.py", "mmpluld/.mim/tools/test.py", "mmpluld/py.typed"} <= set(names)
    zoo = [ROOT / "model-index.yml", *(ROOT / "configs").glob("*/metafile.yml"), *(ROOT / "checkpoints").iterdir()]
    assert {f"mmpluld/.mim/{path.relative_to(ROOT)}" for path in zoo} <= set(names)
    data = {str(path.relative_to(ROOT)) for path in (ROOT / "mmpluld").rglob("*") if path.suffix in {".json", ".j2"}}
    assert len(data) >= 3
    assert data <= set(names)
    assert not any(name.startswith("tests") or name.endswith(".pyc") for name in names)


def test_sdist_holds_what_a_build_needs(distributions):
    (sdist,) = distributions.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    assert {"setup.py", "setup.cfg", "requirements.txt", "README.md", "LICENSE", "tools/train.py"} <= names
    assert {"model-index.yml", "configs/a3d/metafile.yml", "checkpoints/README.md"} <= names
    assert {str(path.relative_to(ROOT)) for path in (ROOT / "configs").rglob("*.py")} <= names
    assert not any(".mim" in name for name in names)


def test_source_tree_gets_no_copies(distributions):
    """An editable install leaves links there, ignored by git and by builds."""
    files = [path for path in (ROOT / "mmpluld" / ".mim").rglob("*") if not path.is_dir()]
    assert all(path.is_symlink() for path in files)


def test_installed_package_finds_its_zoo(installed, tmp_path):
    folder, site = installed
    code = (
        "from pathlib import Path; import mmpluld; from mmpluld.engine.config import find_config\n"
        "print(Path(mmpluld.__file__).parent); print(find_config('a3d_densenet121-fpn_7s_20e_deeplesion').path)"
    )
    done = _run(folder / "bin" / "python", "-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    package, config = map(Path, done.stdout.split())
    assert package == site / "mmpluld"
    assert config == package / ".mim/configs/a3d/a3d_densenet121-fpn_7s_20e_deeplesion.py"


def test_user_in_an_empty_folder(installed, tmp_path):
    """Bases by package name through plain MMEngine, its hub, and a copy of a config that stands alone."""
    folder, site = installed
    python, name = folder / "bin" / "python", "pluld-a3d_densenet121-fpn_7s_20e_deeplesion"
    (tmp_path / "mine.py").write_text(
        f'_base_ = "mmpluld::pluld/{name}.py"\nmodel = dict(rpn_head=dict(loss_cls=dict(neg_weight=0.25)))\n'
    )
    code = f"""
import mmpluld.registry
from mmengine.config import Config
from mmengine.hub import get_config
print(mmpluld.registry.__file__)
print(Config.fromfile("mine.py").model.rpn_head.loss_cls.neg_weight)
print(get_config("mmpluld::pluld/{name}.py").model.rpn_head.loss_cls.neg_weight)
"""
    done = _run(python, "-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [str(site / "mmpluld" / "registry.py"), "0.25", "0.6"]
    done = _run(python, "-m", "mmpluld", "config", "mine.py", "--twin", "--out", "alone.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "neg_weight=0.25" in (tmp_path / "alone.py").read_text()
    assert "_base_" not in (tmp_path / "alone.py").read_text()


def test_installed_train_tool_reports_missing_data(installed, tmp_path):
    folder, site = installed
    tool = site / "mmpluld/.mim/tools/train.py"
    done = _run(folder / "bin" / "python", str(tool), "a3d_densenet121-fpn_7s_20e_deeplesion", cwd=tmp_path)
    assert done.returncode == 2
    assert "annotations/train.json" in done.stderr.splitlines()[-1]
    assert "mmpluld convert deeplesion" in done.stderr.splitlines()[-1]


def test_installed_package_lists_and_fetches_models(installed, tmp_path):
    folder, site = installed
    python = folder / "bin" / "python"
    done = _run(python, "-m", "mmpluld", "models", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    models = json.loads(done.stdout)
    assert all(Path(model["config"]).is_relative_to(site / "mmpluld/.mim/configs") for model in models)
    for model in [model for model in models if model["weights"] and "://" not in model["weights"]][:1]:
        done = _run(python, str(site / "mmpluld/.mim/tools/download.py"), model["name"], cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        weights, config = (tmp_path / line for line in done.stdout.split())
        assert hashlib.sha256(weights.read_bytes()).hexdigest() == model["sha256"]
        assert config.read_text()
