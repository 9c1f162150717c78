"""The index of the zoo agrees with the configs, the papers' tables, the shipped weights and the pages."""

import shutil
from pathlib import Path

import pytest
import yaml

from mmpluld.engine.bundle_config import bundle_config
from mmpluld.engine.checkpoint import load_weights
from mmpluld.engine.config import FoundConfig, load_config
from mmpluld.inputs import sha256_of
from mmpluld.publish.pages import complete_metafiles, write_pages
from mmpluld.zoo.bundle import Bundle
from mmpluld.zoo.index import load_index

ROOT = Path(__file__).resolve().parents[2]
MODELS = load_index(ROOT)
SHIPPED = [model for model in MODELS.values() if model.shipped]


def test_index_and_pages_are_up_to_date(tmp_path):
    """`python tools/model_zoo.py` would change nothing."""
    for name in ("configs", "docs"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "model-index.yml", tmp_path)
    changed = [path.relative_to(tmp_path) for path in [*complete_metafiles(tmp_path), *write_pages(tmp_path)]]
    assert changed == [], "run `python tools/model_zoo.py`"


def test_every_config_has_an_entry_and_every_entry_a_config():
    leaves = [path for path in (ROOT / "configs").rglob("*.py") if not {"_base_", "trunks"} & set(path.parts)]
    twins = [FoundConfig(path, twin=True) for path in leaves if path.parent.name not in ("legacy", "starter")]
    configs = {found.name: found.path for found in [*map(FoundConfig, leaves), *twins]}
    assert {name: ROOT / model.config for name, model in MODELS.items()} == configs


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*/metafile.yml")), ids=lambda path: path.parent.name)
def test_metafile_is_what_mim_expects(path):
    """openmim and modelindex crash on other types: lists hold text, weights and config are text."""
    content = yaml.safe_load(path.read_text())
    (collection,) = content["Collections"]
    assert (ROOT / collection["README"]).is_file()
    assert collection["README"] == f"configs/{path.parent.name}/README.md"
    assert set(collection["Paper"]) == {"URL", "Title"}
    for value in collection["Metadata"].values():
        assert isinstance(value, list)
        assert value
        assert all(isinstance(item, str) for item in value)
    for model in content["Models"]:
        assert model["In Collection"] == collection["Name"]
        assert all(isinstance(value, (str, int)) for value in model["Metadata"].values())


def test_only_paper_figures_stand_beside_real_data():
    """No figure on DeepLesion was measured with this package, and no paper has figures of phantoms or real volumes."""
    measured = {"phantom": "Phantom", "starter": "Real CT, 12 volumes"}
    for model in MODELS.values():
        data = model.name.rpartition("_")[2]
        for result in model.results:
            assert result.dataset == ("DeepLesion" if result.paper else measured[data])
            assert data == "deeplesion" or not result.paper


def test_shipped_files_are_those_of_the_index():
    files = {path.relative_to(ROOT).as_posix() for path in (ROOT / "checkpoints").glob("*.zip")}
    assert files == {model.weights for model in SHIPPED}
    sizes = [(ROOT / file).stat().st_size for file in files]
    assert max(sizes, default=0) <= 8e6
    assert sum(sizes) <= 40e6


def test_one_model_is_the_default():
    assert [model.default for model in MODELS.values()].count(True) == 1


@pytest.mark.parametrize("model", SHIPPED, ids=lambda model: model.name)
def test_shipped_bundle_loads_and_has_a_card(model):
    from mmengine.registry import DefaultScope

    from mmpluld.registry import MODELS as REGISTRY

    path = Path(model.weights_url)
    assert sha256_of(path) == model.sha256
    assert path.stat().st_size == model.size
    card = path.with_suffix(".md").read_text()
    assert model.sha256 in card
    assert "not for diagnosis" in card
    bundle = Bundle.open(path)
    assert bundle.name == model.name
    assert all(bundle.read(member) for member in bundle.members)
    config = bundle_config(bundle)
    assert "train_cfg" not in config.model.get("roi_head", {}), "written before a build changed it"
    with DefaultScope.overwrite_default_scope("mmpluld"):
        for content in (config, load_config(model.name)):
            load_weights(REGISTRY.build(content.model), f"zoo:{model.name}")
