"""What a built distribution contains and that it works where it is installed."""

import hashlib
import json
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_wheel_holds_configs_tools_and_data(distributions):
    (wheel,) = distributions.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    configs = {str(path.relative_to(ROOT)) for path in (ROOT / "configs").rglob("*.py")}
    assert configs <= {name.removeprefix("mmpluld/.mim/") for name in names}
    assert {"mmpluld/.mim/model-index.yml", "mmpluld/py.typed"} <= set(names)
    zoo = [*(ROOT / "configs").glob("*/metafile.yml"), *(ROOT / "checkpoints").iterdir()]
    assert {f"mmpluld/.mim/{path.relative_to(ROOT)}" for path in zoo} <= set(names)
    tools = {name.rpartition("/")[2] for name in names if "/tools/" in name}
    assert tools == {"train.py", "test.py", "download.py"}, "maintainers' scripts stay in the checkout"
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
    assert {"CITATION.cff", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "tools/publish_model.py"} <= names
    assert {".ci/run", ".pre-commit-config.yaml"} <= names
    for folder in (".github", "benchmarks", "docs", "tests"):  # what its tests run or read
        files = [path.relative_to(ROOT) for path in (ROOT / folder).rglob("*") if path.is_file()]
        there = [path for path in files if path.suffix != ".pyc" and not any(part[0] == "." for part in path.parts[1:])]
        assert {str(path) for path in there} - names == set()


def test_source_tree_gets_no_copies(distributions):
    """An editable install leaves links there, ignored by git and by builds."""
    files = [path for path in (ROOT / "mmpluld" / ".mim").rglob("*") if not path.is_dir()]
    assert all(path.is_symlink() for path in files)


def test_user_in_an_empty_folder(installed, run, tmp_path):
    """Bases by package name through plain MMEngine, its hub, and a copy of a config that stands alone."""
    folder, site = installed
    python, name = folder / "bin" / "python", "pluld-a3d_densenet121-fpn_7s_20e_deeplesion"
    (tmp_path / "mine.py").write_text(
        f'_base_ = "mmpluld::pluld/{name}.py"\nmodel = dict(rpn_head=dict(loss_cls=dict(neg_weight=0.25)))\n'
    )
    code = f"""
import sys
from mmengine.config import Config
from mmengine.hub import get_config, get_model
import mmpluld
print(mmpluld.__file__)
print("mmdet.models" in sys.modules)
print(Config.fromfile("mine.py").model.rpn_head.loss_cls.neg_weight)
print(get_config("mmpluld::pluld/{name}.py").model.rpn_head.loss_cls.neg_weight)
model = get_model("mmpluld::pluld/{name}.py")
print(type(model).__name__, type(model.backbone).__name__, type(model.rpn_head.loss_cls).__name__)
"""
    done = run(python, "-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        str(site / "mmpluld" / "__init__.py"),
        "False",
        "0.25",
        "0.6",
        "MaskRCNN TruncatedDenseNet PartialLabelLoss",
    ]
    done = run(python, "-m", "mmpluld", "config", "mine.py", "--twin", "--out", "alone.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "neg_weight=0.25" in (tmp_path / "alone.py").read_text()
    assert "_base_" not in (tmp_path / "alone.py").read_text()


def test_installed_train_tool_reports_missing_data(installed, run, tmp_path):
    folder, site = installed
    tool = site / "mmpluld/.mim/tools/train.py"
    done = run(folder / "bin" / "python", str(tool), "a3d_densenet121-fpn_7s_20e_deeplesion", cwd=tmp_path)
    assert done.returncode == 2
    assert "annotations/train.json" in done.stderr.splitlines()[-1]
    assert "mmpluld convert deeplesion" in done.stderr.splitlines()[-1]


def test_installed_package_lists_and_fetches_models(installed, run, tmp_path):
    folder, site = installed
    python = folder / "bin" / "python"
    done = run(python, "-m", "mmpluld", "models", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    models = json.loads(done.stdout)
    assert all(Path(model["config"]).is_relative_to(site / "mmpluld/.mim/configs") for model in models)
    for model in [model for model in models if model["weights"] and "://" not in model["weights"]][:1]:
        done = run(python, str(site / "mmpluld/.mim/tools/download.py"), model["name"], cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        bundle = tmp_path / done.stdout.strip()
        assert hashlib.sha256(bundle.read_bytes()).hexdigest() == model["sha256"]
