"""`mim download` from an installed wheel: weights on a web server come, otherwise it says what to do."""

import hashlib
import runpy
import shutil
from pathlib import Path

import pytest
import yaml

from mmpluld.engine.config import load_config
from mmpluld.zoo.index import load_index

ROOT = Path(__file__).resolve().parents[2]
NAME = "a3d_densenet121-fpn_7s_20e_deeplesion"
SHIPPED = load_index(ROOT)[f"pluld-{NAME.replace('_20e_deeplesion', '_phantom')}"]
MIM = ("-c", "from mim.cli import cli; cli()", "download", "mmpluld", "--dest", "out", "--config")


def mim_index(source: Path) -> str:
    """What a build of ``source`` gives to mim as its index."""
    return runpy.run_path(str(ROOT / "setup.py"))["mim_index"](source)


def test_weights_on_a_server(installed, run, server, tmp_path):
    """The index of a build whose metafile names an address; the server has the shipped weights."""
    content = Path(SHIPPED.weights_url).read_bytes()
    file = f"{NAME}-{hashlib.sha256(content).hexdigest()[:8]}.zip"
    server.files[f"/{file}"] = content
    source = tmp_path / "source"
    shutil.copytree(ROOT / "configs", source / "configs", ignore=shutil.ignore_patterns("*.py"))
    shutil.copy(ROOT / "model-index.yml", source)
    metafile = source / "configs/a3d/metafile.yml"
    index = yaml.safe_load(metafile.read_text())
    next(model for model in index["Models"] if model["Name"] == NAME)["Weights"] = f"{server.url}/{file}"
    metafile.write_text(yaml.safe_dump(index))
    folder, site = installed
    placed = site / "mmpluld/.mim/model-index.yml"
    before = placed.read_text()
    placed.write_text(mim_index(source))
    try:
        done = run(folder / "bin/python", *MIM, NAME, cwd=tmp_path)
    finally:
        placed.write_text(before)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / file).read_bytes() == content
    written = load_config(tmp_path / f"out/{NAME}.py")
    assert written.pretty_text == load_config(NAME).pretty_text, "what mim writes is the same config"


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        (SHIPPED.name, f"mim cannot fetch these weights: use mmpluld download {SHIPPED.name}"),
        (f"pluld-{NAME}", f"no weights are published: train them with mmpluld train pluld-{NAME}"),
    ],
)
def test_otherwise_it_says_what_to_do(installed, run, tmp_path, name, advice):
    folder, _ = installed
    done = run(folder / "bin/python", *MIM, name, cwd=tmp_path)
    assert done.returncode == 1
    assert f"'{advice}'" in done.stderr
    assert list((tmp_path / "out").iterdir()) == []
    assert advice in (ROOT / "docs/how_to/mim.md").read_text()


def test_every_model_has_an_address_or_advice():
    models = {model["Name"]: model for model in yaml.safe_load(mim_index(ROOT))["Models"]}
    assert models.keys() == load_index(ROOT).keys()
    for name, model in models.items():
        assert model["Weights"].startswith(("http://", "https://")) or model["Weights"].endswith(f" {name}")


def test_a_paper_config_is_not_handed_out_for_its_twin(tmp_path):
    entry = {
        "Name": "toy_phantom",
        "Config": "configs/toy/toy_20e.py",
        "Weights": "https://example.org/toy-00000000.zip",
    }
    (tmp_path / "m.yml").write_text(yaml.safe_dump({"Collections": [], "Models": [entry]}))
    (tmp_path / "model-index.yml").write_text("Import: [m.yml]\n")
    (model,) = yaml.safe_load(mim_index(tmp_path))["Models"]
    assert model["Weights"] == "mim cannot fetch these weights: use mmpluld download toy_phantom"
