"""A change at the top of a config takes effect everywhere, or is refused with the place that does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mmengine.config import Config

from mmpluld.engine.config import find_config, load_config
from mmpluld.engine.config_names import places
from mmpluld.errors import InputError
from mmpluld.zoo.index import zoo_root

ROOT = zoo_root() / "configs"
LEAF = find_config("pluld-a3d_densenet121-fpn_7s_20e_deeplesion").path
LENS = find_config("lens-afp_densenet121_4datasets_9s_8e_deeplesion").path
MULAN = find_config("mulan_densenet121_9s_8e_deeplesion").path


def inheriting(folder: Path, text: str, base: object = LEAF) -> Path:
    path = folder / "mine.py"
    path.write_text(f"_base_ = {str(base)!r}\n{text}\n")
    return path


def values(config: Config, name: str) -> set[object]:
    """All values that stand under a name, anywhere."""
    found = set()
    for place in places(config._cfg_dict, name):
        node = config._cfg_dict
        for key in place.split("."):
            node = node[int(key)] if isinstance(node, (list, tuple)) else node[key]
        found.add(tuple(node) if isinstance(node, list) else node)
    return found


SHARED = [
    (LEAF, "data_root", "elsewhere"),
    (LEAF, "num_slices", 3),
    (LEAF, "interp", "peer"),
    (LEAF, "window_hu", (-160, 240)),
    (LEAF, "neg_weight", 0.3),
    (LEAF, "keep_prob", 1.0),
    (LENS, "data_root", "elsewhere"),
    (MULAN, "num_tags", 5),
]


@pytest.mark.parametrize(("base", "name", "value"), SHARED)
def test_a_shared_value_is_set_everywhere(tmp_path, base, name, value):
    assert value not in values(load_config(base), name)
    by_file = load_config(inheriting(tmp_path, f"{name} = {value!r}", base))
    assert values(by_file, name) == {value}
    assert name not in by_file
    by_option = load_config(base, [f"{name}={value}"])
    assert values(by_option, name) == {value}


@pytest.mark.parametrize(("base", "name", "value"), SHARED)
def test_a_config_that_a_tool_has_read_and_written(tmp_path, base, name, value):
    """As `mim gridsearch` does: read by mmengine alone, changed at the top, written out flat."""
    flat = Config.fromfile(base)
    flat[name] = value
    path = tmp_path / "flat.py"
    path.write_text(flat.pretty_text)
    assert values(load_config(path), name) == {value}


def test_own_and_other_places_of_a_shared_value(tmp_path):
    used = inheriting(tmp_path, "data_root = 'a'\ntest_dataloader = dict(dataset=dict(data_root=data_root))")
    assert values(load_config(used), "data_root") == {"a"}
    split = inheriting(tmp_path, "test_dataloader = dict(dataset=dict(data_root='b'))")
    assert values(load_config(split), "data_root") == {"data/deeplesion", "b"}
    twice = inheriting(tmp_path, "data_root = 'a'\ntest_dataloader = dict(dataset=dict(data_root='b'))")
    with pytest.raises(
        InputError, match=r"test_dataloader.dataset.data_root = 'b', but data_root = 'a' .* leave one of the two out"
    ):
        load_config(twice)
    options = ["data_root=a", "test_dataloader.dataset.data_root=b"]
    assert load_config(LEAF, options).test_dataloader.dataset.data_root == "b"
    assert values(load_config(LEAF, options[::-1]), "data_root") == {"a"}


@pytest.mark.parametrize(
    "part",
    [
        "test_dataloader = dict(dataset=dict(data_root='b'))",
        "test_dataloader = {'dataset': {'data_root': 'b'}}",
        "__x = dict(data_root='b')\ntest_dataloader = dict(dataset=dict(**__x))",
        "test_dataloader = dict(dataset=dict())\ntest_dataloader['dataset']['data_root'] = 'b'",
    ],
)
def test_a_part_against_the_top_of_a_base(tmp_path, part):
    inheriting(tmp_path, "data_root = 'a'")
    child = tmp_path / "child.py"
    child.write_text(f"_base_ = 'mine.py'\n{part}\n")
    with pytest.raises(InputError, match=r"child\.py: test_dataloader.dataset.data_root = 'b', but data_root = 'a' at"):
        load_config(child)
    child.write_text("_base_ = 'mine.py'\ndata_root = 'c'\n")
    assert values(load_config(child), "data_root") == {"c"}


def test_data_elsewhere_that_the_root_does_not_reach(tmp_path):
    path = tmp_path / "a.py"
    path.write_text("train_dataloader = dict(data_root='d/x/')\nval_evaluator = dict(ann_file='d/x/val.json')\n")
    with pytest.raises(InputError, match=r"data_root would not reach val_evaluator.ann_file = 'd/x/val.json'"):
        load_config(path, ["data_root=e"])
    assert load_config(path, ["val_evaluator.ann_file=v", "data_root=e"]).train_dataloader.data_root == "e"


@pytest.mark.parametrize(
    "text",
    [
        "if True:\n    neg_weigth = 0.1",
        "for neg_weigth in [1]:\n    work_dir = 'x'",
        "try:\n    neg_weigth = 1\nfinally:\n    pass",
    ],
)
def test_names_in_the_blocks_of_a_file(tmp_path, text):
    with pytest.raises(InputError, match=r"mine\.py: 'neg_weigth' has no effect, .*did you mean 'neg_weight'\?"):
        load_config(inheriting(tmp_path, text))


def test_names_that_only_mmdets_own_script_reads(tmp_path):
    base = tmp_path / "mmdets.py"
    base.write_text("tta_model = dict(type='DetTTAModel')\nmodel = dict(type='RetinaNet')\n")
    assert "tta_model" not in load_config(inheriting(tmp_path, "", base))
    for name in ("tta_model", "tta_pipeline", "runner_type"):
        with pytest.raises(InputError, match=f"mine.py: '{name}' has no effect, nothing reads it"):
            load_config(inheriting(tmp_path, f"{name} = {{}}", base))
        with pytest.raises(InputError, match=f"--cfg-options {name}: has no effect"):
            load_config(LEAF, [f"{name}=a"])


def test_names_of_other_formats_and_of_bases_without_bases(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"_base_": str(LEAF), "train_dataloadr": {"batch_size": 9}}))
    with pytest.raises(InputError, match=r"mine\.json: 'train_dataloadr' has no effect"):
        load_config(path)
    path.write_text(json.dumps({"_base_": str(LEAF), "num_slices": 3}))
    assert values(load_config(path), "num_slices") == {3}
    (tmp_path / "part.py").write_text("max_epochs = 9\n")
    both = tmp_path / "both.py"
    both.write_text(f"_base_ = [{str(LEAF)!r}, 'part.py']\n")
    with pytest.raises(InputError, match=r"part\.py: 'max_epochs' has no effect"):
        load_config(both)


def test_a_shared_value_that_nothing_has(tmp_path):
    with pytest.raises(InputError, match=r"mine\.py: num_tags has no effect: no part of the config has"):
        load_config(inheriting(tmp_path, "num_tags = 4"))
    with pytest.raises(InputError, match=r"--cfg-options num_tags: num_tags has no effect"):
        load_config(LEAF, ["num_tags=4"])


def test_a_value_that_a_base_has_copied(tmp_path):
    text = "loss = dict(type='L', weight=0.6)\nmodel = dict(head=dict(loss_cls=dict(loss, scale=2)))\n"
    (tmp_path / "base.py").write_text(text)
    place = r"model\.head\.loss_cls\.weight"
    with pytest.raises(InputError, match=rf"mine\.py: 'loss' has no effect, nothing reads it; .* Set {place}"):
        load_config(inheriting(tmp_path, "loss = dict(weight=0.3)", "base.py"))
    with pytest.raises(InputError, match=rf"no run reads 'loss'; set {place}"):
        load_config(tmp_path / "base.py", ["loss.weight=0.3"])
    flat = Config.fromfile(tmp_path / "base.py")
    path = tmp_path / "flat.py"
    path.write_text(flat.pretty_text)
    assert load_config(path).to_dict() == {"model": {"head": {"loss_cls": {"type": "L", "weight": 0.6, "scale": 2}}}}
    flat.loss.weight = 0.3
    path.write_text(flat.pretty_text)
    with pytest.raises(InputError, match=rf"flat\.py: 'loss' has no effect, .* Set {place}"):
        load_config(path)


@pytest.mark.parametrize("leaf", sorted(ROOT.glob("*/*_deeplesion.py")), ids=lambda path: path.stem)
def test_a_row_read_and_written_by_mmengine_is_the_same(tmp_path, leaf):
    path, flat = tmp_path / "flat.py", Config.fromfile(leaf)
    pretty = leaf in (LEAF, LENS, MULAN)  # it takes a quarter of a second
    path.write_text(flat.pretty_text if pretty else "".join(f"{k} = {v!r}\n" for k, v in flat.to_dict().items()))
    assert load_config(path).to_dict() == load_config(leaf).to_dict()


def test_names_for_a_configs_own_use(tmp_path):
    inheriting(tmp_path, "rate = 0.5\n__step = 2\noptim_wrapper = dict(optimizer=dict(lr=rate / __step))")
    child = tmp_path / "child.py"
    child.write_text("_base_ = 'mine.py'\nauto_scale_lr = dict(base_batch_size=int(_base_.rate * 8))\n")
    config = load_config(child)
    assert (config.optim_wrapper.optimizer.lr, config.auto_scale_lr.base_batch_size) == (0.25, 4)
    assert "rate" not in config
    child.write_text("_base_ = 'mine.py'\nrate = 0.25\n")
    with pytest.raises(InputError, match=r"child\.py: 'rate' has no effect, nothing reads it"):
        load_config(child)
    grandchild = tmp_path / "grandchild.py"
    grandchild.write_text("_base_ = 'child.py'\n")
    with pytest.raises(InputError, match=r"child\.py: 'rate' has no effect"):
        load_config(grandchild)


def test_a_slip_in_a_key(tmp_path):
    slip = inheriting(tmp_path, "optim_wraper = dict(optimizer=dict(lr=1.0))")
    with pytest.raises(InputError, match=r"'optim_wraper' has no effect, .*; did you mean 'optim_wrapper'\?"):
        load_config(slip)
    with pytest.raises(InputError, match=r"--cfg-options modle\.x: has no effect, .* did you mean 'model'\?"):
        load_config(LEAF, ["modle.x=1"])
