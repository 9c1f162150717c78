"""Configs are found by path or name, and read in the papers' size or in miniature."""

from __future__ import annotations

from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmpluld.engine.config import find_config, load_config, twin_name
from mmpluld.engine.config_digest import config_digest
from mmpluld.errors import InputError
from mmpluld.registry import build_model

NAME = "a3d_densenet121-fpn_7s_20e_deeplesion"
TWIN = "a3d_densenet121-fpn_7s_phantom"
ROOT = Path(__file__).parents[3]


class TestFindConfig:
    @pytest.mark.parametrize("name", [NAME, f"{NAME}.py", f"configs/a3d/{NAME}.py"])
    def test_zoo_config_by_name_or_path(self, name, monkeypatch):
        monkeypatch.chdir(ROOT)
        found = find_config(name)
        assert (found.path.name, found.twin, found.name) == (f"{NAME}.py", False, NAME)

    @pytest.mark.parametrize("name", [TWIN, f"{TWIN}.py", f"configs/a3d/{TWIN}.py"])
    def test_name_of_a_miniature_means_the_config_of_its_row(self, name):
        found = find_config(name)
        assert (found.path.name, found.twin, found.name) == (f"{NAME}.py", True, TWIN)

    @pytest.mark.parametrize("path", ["mine/{}", "./{}", "../{}", "configs/{}", "configs/pluld/{}", "/x/{}", "{}/"])
    @pytest.mark.parametrize("name", [NAME, f"{NAME}.py", f"{TWIN}.py"])
    def test_a_path_that_is_missing_is_missing(self, path, name, tmp_path, monkeypatch):
        """Whatever its last part is called: it is not the zoo's config of that name."""
        monkeypatch.chdir(tmp_path)
        with pytest.raises(InputError, match="no such config file; the zoo's config of this name is `a3d.*` or"):
            find_config(path.format(name))

    def test_a_folder_is_no_config(self, tmp_path):
        with pytest.raises(InputError, match="is a folder; give a config file in it"):
            find_config(tmp_path)

    @pytest.mark.parametrize("base", [f"mine/{NAME}.py", f"{NAME}.py", f"../configs/a3d/{NAME}.py"])
    def test_a_base_that_is_missing_is_missing(self, base, tmp_path):
        own = tmp_path / "mine.py"
        own.write_text(f"_base_ = {base!r}\n")
        with pytest.raises(InputError, match=f"cannot be read as a config: .*{NAME}.py"):
            load_config(own)

    def test_own_config_by_path(self, tmp_path):
        own = tmp_path / "mine.py"
        own.write_text("")
        assert find_config(own).path == own
        assert [find_config(own, twin).name for twin in (False, True)] == ["mine", "mine_phantom"]

    def test_unknown_config_names_the_nearest(self):
        with pytest.raises(InputError, match=f"a3d_densenet121-fpn_7s_20e_deplesion: .* did you mean '{NAME}'"):
            find_config("a3d_densenet121-fpn_7s_20e_deplesion")

    def test_unknown_config_far_from_all(self):
        with pytest.raises(InputError, match="give a path, or a name that `mmpluld models` lists"):
            find_config("xyz")

    def test_twin_name(self):
        assert twin_name(NAME) == TWIN
        assert twin_name("legacy-a3d_densenet121-fpn_7s_deeplesion") == "legacy-a3d_densenet121-fpn_7s_phantom"


class TestLoadConfig:
    def test_options(self, tmp_path):
        path = tmp_path / "a.py"
        path.write_text("train_cfg = dict(max_epochs=3)\nmodel = dict(scales=[1, 2])\n")
        config = load_config(path, ["train_cfg.max_epochs=5", "model.scales=[3,4]", "experiment_name=x=y"])
        assert config.train_cfg.max_epochs == 5
        assert config.model.scales == [3, 4]
        assert config.experiment_name == "x=y"

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("model = dict(", r"a\.py: cannot be read as a config: SyntaxError"),
            ("_base_ = 'gone.py'", r"a\.py: cannot be read as a config: .*gone\.py"),
            ("x = y", r"a\.py: cannot be read as a config: NameError: name 'y' is not defined"),
            ("raise SystemExit(0)", r"a\.py: cannot be read as a config: SystemExit: 0"),
            ("_base_ = 'x_phantom.py'", r"a miniature is no file: inherit from its row"),
        ],
    )
    def test_broken_file(self, tmp_path, text, message):
        path = tmp_path / "a.py"
        path.write_text(text)
        with pytest.raises(InputError, match=message) as error:
            load_config(path)
        assert "\n" not in str(error.value)

    def test_missing_file_and_malformed_options(self, tmp_path):
        with pytest.raises(InputError, match=r"a\.py: no such config file"):
            load_config(tmp_path / "a.py")
        path = tmp_path / "a.py"
        path.write_text("work_dir = 'x'\n")
        with pytest.raises(InputError, match="--cfg-options x: write key=value"):
            load_config(path, ["x"])
        with pytest.raises(InputError, match=r"--cfg-options work_dir\.y=1: does not fit"):
            load_config(path, ["work_dir.y=1"])


class TestTwin:
    def test_bases_carry_what_shrinks_them_and_a_leaf_comes_last(self, tmp_path):
        (tmp_path / "model.py").write_text(
            "model = dict(width=64, depth=8)\ntwin_model = dict(model=dict(width=4), work_dir='a')\n"
        )
        (tmp_path / "schedule.py").write_text(
            "optim_wrapper = dict(optimizer=dict(type='SGD', lr=1.0, momentum=0.9))\n"
            "twin_schedule = dict(optim_wrapper=dict(optimizer=dict(_delete_=True, type='AdamW', lr=0.1)))\n"
        )
        leaf = tmp_path / "leaf.py"
        leaf.write_text(
            "_base_ = ['model.py', 'schedule.py']\nmodel = dict(depth=9)\n"
            "twin = dict(optim_wrapper=dict(optimizer=dict(lr=0.2)))\n"
        )
        paper, twin = load_config(leaf), load_config(leaf, twin=True)
        assert paper.to_dict() == {
            "model": {"width": 64, "depth": 9},
            "optim_wrapper": {"optimizer": {"type": "SGD", "lr": 1.0, "momentum": 0.9}},
        }
        assert twin.to_dict() == {
            "model": {"width": 4, "depth": 9},
            "work_dir": "a",
            "optim_wrapper": {"optimizer": {"type": "AdamW", "lr": 0.2}},
        }

    def test_options_change_the_miniature(self):
        config = load_config(NAME, ["train_cfg.max_epochs=2", "data_root=elsewhere"], twin=True)
        assert config.train_cfg.max_epochs == 2
        assert config.test_dataloader.dataset.data_root == "elsewhere"

    def test_the_same_by_name_and_by_option(self):
        assert load_config(TWIN).to_dict() == load_config(NAME, twin=True).to_dict() != load_config(NAME).to_dict()

    def test_what_is_written_out_is_plain_and_complete(self, tmp_path):
        config = load_config(TWIN)
        assert Path(config.filename).name == f"{TWIN}.py"
        path = tmp_path / f"{TWIN}.py"
        path.write_text(config.pretty_text)
        assert Config.fromfile(path).to_dict() == config.to_dict()
        assert load_config(path).to_dict() == config.to_dict()
        with pytest.raises(InputError, match="has no miniature: .* was written out is plain"):
            load_config(path, twin=True)

    def test_a_file_is_no_miniature_by_its_name(self, tmp_path):
        path = tmp_path / "mine_phantom.py"
        path.write_text(f"_base_ = {str(find_config(NAME).path)!r}\n")
        assert load_config(path).to_dict() == load_config(NAME).to_dict()

    def test_data_of_its_own_and_shared_values_stay(self, tmp_path):
        path = tmp_path / "mine.py"
        path.write_text(f"_base_ = {str(find_config(NAME).path)!r}\ndata_root = 'mine'\nwindow_hu = (-1350, 150)\n")
        config, zoo = load_config(path, twin=True), load_config(NAME, twin=True)
        for which, file in (("train", "train"), ("val", "val"), ("test", "test")):
            dataset = config[f"{which}_dataloader"].dataset
            assert (dataset.data_root, dataset.ann_file) == ("mine", f"annotations/{file}.json")
            assert tuple(dataset.pipeline.window.window_hu) == (-1350, 150)
        assert config.model == zoo.model
        assert zoo.test_dataloader.dataset.ann_file == "truth/test_key_slices.json"
        path.write_text(path.read_text() + "twin = dict(data_root='small')\n")
        assert load_config(path, twin=True).train_dataloader.dataset.data_root == "small"
        assert load_config(path).train_dataloader.dataset.data_root == "mine"

    def test_slips_in_a_miniature(self, tmp_path):
        path = tmp_path / "mine.py"
        path.write_text("model = dict(a=1)\ntwin = dict(modle=dict(a=2))\n")
        with pytest.raises(InputError, match=r"mine\.py: twin\.modle has no effect, no run reads it"):
            load_config(path, twin=True)
        path.write_text("model = dict(a=1)\ntwin = None\n")
        with pytest.raises(InputError, match="has no miniature"):
            load_config(path, twin=True)

    def test_a_miniature_that_does_not_fit(self, tmp_path):
        path = tmp_path / "mine.py"
        path.write_text(f"_base_ = {str(find_config(NAME).path)!r}\nauto_scale_lr = None\n")
        with pytest.raises(
            InputError, match=r"mine\.py, miniature: twin_schedule does not fit the config: auto_scale_lr"
        ):
            load_config(path, twin=True)

    def test_replaced_values_of_a_users_config_are_named(self, tmp_path, caplog):
        path = tmp_path / "mine.py"
        text = f"_base_ = {str(find_config(NAME).path)!r}\noptim_wrapper = dict(optimizer=dict(lr=0.005))\n"
        path.write_text(text + "model = dict(neck=dict(out_channels=32))\nval_cfg = dict(fp16=True)\n")
        load_config(path, twin=True)
        (record,) = caplog.records
        assert "values of its own for model.neck.out_channels, optim_wrapper.optimizer.lr;" in record.message
        path.write_text(text + "twin = dict(optim_wrapper=dict(optimizer=dict(lr=0.005)))\n")
        caplog.clear()
        assert load_config(path, twin=True).optim_wrapper.optimizer.lr == 0.005
        assert not caplog.records

    def test_one_without_a_miniature(self, tmp_path):
        path = tmp_path / "a.py"
        path.write_text("work_dir = 'x'\n")
        with pytest.raises(InputError, match=r"a\.py: has no miniature: none of twin_model"):
            load_config(path, twin=True)


@pytest.mark.parametrize("name", ["retinanet-a3d_densenet121-fpn_7s_phantom", "lens-afp_densenet121_9s_phantom"])
def test_a_config_has_the_same_digest_once_its_network_is_built(name: str) -> None:
    config = load_config(name)
    before = config_digest(config)
    with DefaultScope.overwrite_default_scope("mmpluld"):
        build_model(config)
    assert config_digest(config) == before
