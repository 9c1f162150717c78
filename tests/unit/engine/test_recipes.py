"""A recipe is one file, merged over the config of any row of its schedule, under a name of its own."""

from __future__ import annotations

import pytest

from mmpluld.cli.main import run
from mmpluld.engine.config import find_config, load_config, twin_name
from mmpluld.engine.recipes import recipe_file, recipe_name, recipes_of
from mmpluld.errors import InputError

ROW = "pluld-a3d_densenet121-fpn_mask-only_7s_20e_deeplesion"
NAME = "pluld-a3d_densenet121-fpn_mask-only_paper_7s_20e_deeplesion"


def test_names():
    assert recipe_name(ROW, "paper") == NAME
    assert recipe_name(ROW, "") == ROW
    assert recipes_of(ROW) == ["paper"]
    assert recipes_of("lens-afp_densenet121_9s_8e_deeplesion") == []
    assert recipes_of("legacy-a3d_densenet121-fpn_7s_deeplesion") == []


@pytest.mark.parametrize("twin", [False, True])
def test_a_name_with_the_recipe_is_found_at_both_sizes(twin):
    name = twin_name(NAME) if twin else NAME
    found = find_config(name)
    assert (found.path, found.twin, found.recipe, found.name) == (find_config(ROW).path, twin, "paper", name)
    assert load_config(found).filename.endswith(f"/{name}.py")
    assert load_config(NAME, twin=True).filename == load_config(twin_name(NAME)).filename


def test_what_the_recipe_says_is_merged_and_nothing_else():
    own, recipe = load_config(ROW), load_config(NAME)
    assert recipe.optim_wrapper.optimizer.pop("lr") == 0.002
    assert own.optim_wrapper.optimizer.pop("lr") == 0.02
    assert recipe.param_scheduler[1].milestones == [12, 14]
    assert recipe.auto_scale_lr.base_batch_size == recipe.train_dataloader.batch_size == 2
    for config, high in ((own, 2050), (recipe, 3071)):
        for loader in (config.train_dataloader, config.val_dataloader, config.test_dataloader):
            assert loader.dataset.pipeline.window.pop("window_hu") == (-1024, high)
        config.train_dataloader.dataset.pipeline.pop("augment")
        config.train_dataloader.pop("batch_size")
        for key in ("param_scheduler", "auto_scale_lr"):
            config.pop(key)
    assert recipe.to_dict() == own.to_dict()


def test_the_miniature_keeps_the_proportions():
    own, recipe = load_config(twin_name(ROW)), load_config(twin_name(NAME))
    paper = load_config(NAME)
    assert recipe.optim_wrapper.optimizer.type == own.optim_wrapper.optimizer.type
    assert recipe.optim_wrapper.optimizer.lr == pytest.approx(own.optim_wrapper.optimizer.lr / 10)
    drops, epochs = recipe.param_scheduler[1].milestones, recipe.train_cfg.max_epochs
    assert recipe.param_scheduler[1].end == epochs == own.train_cfg.max_epochs
    share = [epoch / paper.train_cfg.max_epochs for epoch in paper.param_scheduler[1].milestones]
    assert drops == [round(part * epochs) for part in share]
    low, high = recipe.test_dataloader.dataset.pipeline.window.window_hu
    own_low, own_high = own.test_dataloader.dataset.pipeline.window.window_hu
    assert low == own_low
    assert (high - low) / (own_high - own_low) == pytest.approx(4095 / 3074, abs=0.01)


@pytest.mark.parametrize("row", ["retinanet-a3d_densenet121-fpn", "pluld-fcos-a3d_densenet121-fpn"])
def test_a_row_that_is_about_what_the_recipe_says_is_refused(row):
    """Whether the row itself sets it or a row that it inherits from."""
    with pytest.raises(InputError, match=r"sets optim_wrapper.optimizer.lr = 0.002\d?, which recipe 'paper' would"):
        load_config(f"{row}_paper_7s_20e_deeplesion")
    with pytest.raises(InputError, match=r"is about a learning rate of 0\.02, which recipe 'paper' would"):
        load_config("pluld-a3d_densenet121-fpn_lr-0.02_paper_7s_20e_deeplesion")


def test_unknown_recipes_and_schedules_name_what_there_is():
    with pytest.raises(InputError, match="'papr' is not known; did you mean 'paper'"):
        recipe_file("papr", "20e")
    with pytest.raises(InputError, match="'paper' is for rows of 20e, not of 8e"):
        recipe_file("paper", "8e")


def test_a_row_with_its_recipe_can_be_written_out_and_inherited(tmp_path):
    out, own = tmp_path / "paper_row.py", tmp_path / "mine.py"
    assert run(["config", NAME, "--out", str(out)]) == 0
    own.write_text(f"_base_ = {out.name!r}\noptim_wrapper = dict(optimizer=dict(lr=0.004))\n")
    config = load_config(own)
    assert config.optim_wrapper.optimizer.lr == 0.004
    assert config.param_scheduler == load_config(NAME).param_scheduler
