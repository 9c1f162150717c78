"""The tables are consistent, and every row has its configs."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from mmengine.config import Config

from mmpluld.engine.config import find_config, load_config, twin_name
from mmpluld.engine.recipes import recipe_name, recipes_of
from mmpluld.errors import InputError
from mmpluld.evaluation.functional import get_protocol
from mmpluld.phantom import PhantomSpec
from mmpluld.registry import TASK_UTILS
from mmpluld.reproduce import TABLES, get_tables
from mmpluld.reproduce.tables import with_recipe, without_oracles
from mmpluld.reproduce.twin_data import SETTINGS
from mmpluld.structures.records import LESION_TYPES


@cache
def loaded(name: str, *options: str) -> Config:
    """A config of the zoo, read once; not to be changed."""
    return load_config(name, options)


@pytest.mark.parametrize("name", TABLES)
def test_rows_have_configs_of_both_sizes_and_full_paper_lines(name):
    table = TABLES[name]
    for row in table.rows:
        for twin in (False, True)[table.twins_only :]:
            found = find_config(row.config_name(twin))
            assert (found.twin, found.name) == (twin, row.config_name(twin))
        assert len(row.paper) in (0, len(get_protocol(table.protocol).levels) + 1)


@pytest.mark.parametrize("name", TABLES)
def test_keys_are_unique_and_pairs_name_rows(name):
    table = TABLES[name]
    keys = [row.key for row in table.rows]
    assert len(set(keys)) == len(keys)
    for pair in table.pairs:
        assert set(pair) <= set(keys)
        assert pair[0] != pair[1]


@pytest.mark.parametrize("name", TABLES)
def test_specialties_are_lesion_types_and_the_margin_is_positive(name):
    table = TABLES[name]
    assert table.margin > 0
    for kinds in table.specialties.values():
        assert kinds
        assert set(kinds) <= set(LESION_TYPES.values())


def test_a_key_means_the_same_config_and_options_in_every_table():
    configs: dict[str, set[tuple[str, ...]]] = {}
    for table in TABLES.values():
        for row in table.rows:
            made = (row.labels.key if row.labels else "", row.fpr.mode if row.fpr else "")
            configs.setdefault(row.key, set()).add((row.config, *row.options, *made))
    assert {key for key, names in configs.items() if len(names) > 1} == set()
    assert len(set.union(*configs.values())) == len(configs)


def test_labels_of_one_name_are_mined_in_one_way():
    known = {}
    for row in (row for table in TABLES.values() for row in table.rows if row.labels):
        assert known.setdefault(row.labels.key, row.labels) == row.labels
    assert {"cross-slice", "unlabeled", "second-round", "distillation", "oracle-unlabeled"} < set(known)


def test_real_data_have_no_oracles_and_the_paper_s_row_has_the_paper_s_steps():
    table = without_oracles(TABLES["lens-table4"])
    kept = [row.key for row in table.rows]
    assert [row.key for row in TABLES["lens-table4"].rows if row.key not in kept] == [
        f"lens-oracle-{name}" for name in ("cross-slice", "intra-patient", "cross-dataset", "unlabeled")
    ]
    assert all(set(pair) <= set(kept) for pair in table.pairs)
    assert ("lens-unlabeled", "lens-longer") in table.pairs
    assert without_oracles(TABLES["lens-table2"]) == TABLES["lens-table2"]
    none = next(row for row in table.rows if row.paper[-1:] == (36.8,))
    sampler = loaded(none.config_name(twin=False)).train_dataloader.sampler
    assert "only" not in sampler  # else it would be as long as four datasets


@pytest.mark.parametrize(("name", "rows", "rounding"), [("table1", 6, 0.005), ("lens-table2", 9, 0.05)])
def test_paper_averages_are_those_of_the_headline_columns(name, rows, rounding):
    # Printed columns and averages are rounded separately.
    table = TABLES[name]
    complete = [row.paper for row in table.rows if row.paper and None not in row.paper]
    assert len(complete) == rows
    for *values, average in complete:
        headline = [values[index] for index in get_protocol(table.protocol).headline_index]
        assert average == pytest.approx(sum(headline) / len(headline), abs=2.1 * rounding)


@pytest.mark.parametrize("name", TABLES)
def test_rows_without_a_training_test_the_weights_of_a_row_beside_them(name):
    rows = {row.key: row for row in TABLES[name].rows}
    for row in rows.values():
        if row.training != row.key:
            assert rows[row.training].training == row.training
            for twin in (False, True):
                own, trained = (loaded(r.config_name(twin), *r.options) for r in (row, rows[row.training]))
                for part in ("train_dataloader", "optim_wrapper", "param_scheduler"):
                    assert own[part] == trained[part]
                assert {**own.train_cfg, "val_begin": 0} == {**trained.train_cfg, "val_begin": 0}
                if row.trained_as:  # what it adds to the network learns nothing there
                    continue
                networks = [config.model.to_dict() | {"test_cfg": None} for config in (own, trained)]
                assert networks[0] == networks[1]


@pytest.mark.parametrize(("name", "keep"), [("figure4", 0.5), ("figure4-nomask", 1.0)])
def test_figure_4_goes_from_0_to_1_by_tenths(name, keep):
    rows = [row for row in TABLES[name].rows if row.x is not None]
    assert [row.x for row in rows] == pytest.approx([tenths / 10 for tenths in range(11)])
    for row in rows:
        model = loaded(row.config_name(twin=False)).model
        assert model.train_cfg.rpn.assigner.pos_iou_thr == 0.5
        loss = model.rpn_head.loss_cls
        if (name, row.x) == ("figure4-nomask", 1.0):
            assert loss == loaded("a3d_densenet121-fpn_7s_20e_deeplesion").model.rpn_head.loss_cls  # no loss is left
        else:
            assert loss.neg_weight == row.x
            assert loss.keep_prob == keep or row.x == 0


# Settings of the row without options, where no other row has them; configs may leave them at their default.
OWN = {"model.train_cfg.rcnn.assigner.ignore_iou_thr": -1}


CHOICES = [name for name in TABLES if name.startswith("choose-")]


@pytest.mark.parametrize("name", CHOICES)
def test_what_is_chosen_is_chosen_on_validation_patients(name):
    assert TABLES[name].split == "val"


def test_rules_of_propagation_are_compared_with_those_of_table_4():
    first, *others = TABLES["choose-propagation"].rows
    own = TABLES["lens-table4"].row("lens-cross-slice")
    assert (first.key, first.labels) == (own.key, own.labels)
    assert len(others) >= 3
    for row in others:
        assert (row.config, row.options, row.labels.strategies) == (own.config, own.options, own.labels.strategies)
        assert row.labels.twin_rules != own.labels.twin_rules
    assert {(row.key, first.key) for row in others} == set(TABLES["choose-propagation"].pairs)


@pytest.mark.parametrize("name", [name for name in CHOICES if name != "choose-propagation"])
def test_what_a_config_has_is_among_what_is_compared(name):
    table = TABLES[name]
    changed = [row for row in table.rows if row.options]
    assert len(changed) >= 3
    (name,) = {row.config_name(twin=True) for row in changed}
    config = loaded(name)
    for settings in zip(*(row.options for row in changed), strict=True):
        (key,) = {setting.partition("=")[0] for setting in settings}
        value: Any = config
        for part in key.split("."):
            value = value[int(part)] if part.isdigit() else value[part] if part in value else OWN[key]
        own = [f"{key}={OWN[key]:g}" for row in table.rows if not row.options and key in OWN]
        assert f"{key}={value:g}" in [*settings, *own]
        assert len(set(settings)) == len(settings)


@pytest.mark.parametrize("name", ["table1", "table2", "figure4", "figure4-nomask"])
def test_every_row_of_the_partial_label_paper_has_its_own_recipe(name):
    table = with_recipe(TABLES[name], "paper")
    assert table.name == f"{name}-paper"
    assert table.title.endswith("(recipe: paper)")
    for row, own in zip(table.rows, TABLES[name].rows, strict=True):
        assert "paper" in recipes_of(own.config_name(twin=False))
        assert row.config_name(twin=False) == recipe_name(own.config_name(twin=False), "paper")
        assert row.config_name(twin=True) == twin_name(row.config_name(twin=False))
        assert row.run_name(twin=True) != own.run_name(twin=True)


def test_figure_7_has_a_curve_for_each_dataset_and_way():
    table = TABLES["lens-figure7"]
    lines: dict[str, list[float]] = {}
    for row in table.rows:
        lines.setdefault(row.line, []).append(row.x)
    assert len(lines) == 9
    assert {tuple(places) for places in lines.values()} == {(25, 50, 75, 100)}
    trained = [row for row in table.rows if "joint" in row.key and not row.weights_of]
    assert len(trained) == 4  # one joint detector of each share, tested three times
    assert set(table.pairs) == {
        (row.key.replace(way, "joint"), row.key)
        for row in table.rows
        for way in ("alone", "own")
        if f"-{way}-" in row.key
    }


def test_equal_steps_on_a_dataset_of_figure_7_are_those_of_an_epoch_that_has_no_other():
    row = next(row for row in TABLES["lens-figure7"].rows if row.key == "lens-nih-ln-own-50")
    datasets = load_config(row.config_name(twin=True), list(row.options)).train_dataloader.dataset.datasets
    assert [name for name, dataset in datasets.items() if dataset is not None] == ["nih-ln"]
    assert datasets["nih-ln"].fraction == 0.5


def test_the_gate_compares_labels_on_the_same_images_of_the_validation_patients():
    tables = get_tables("gate")
    assert [table.name for table in tables] == ["gate-lens", "gate-one-stage"]
    for table in tables:
        assert (table.split, table.seeds, table.twins_only) == ("val", 5, True)
        complete, marked, oracle = table.rows[:3]
        assert not marked.options
        assert (complete.config, oracle.config) == (marked.config,) * 2
        assert "train_key_slices.json" in complete.options[0]
        assert "train_unmarked_ignored.json" in oracle.options[0]
        assert complete.options[1:] == oracle.options[1:]
        for row in (complete, oracle):
            load_config(row.config_name(twin=True), list(row.options))
        places = {row.run_name(True, table.split) for row in table.rows}
        assert len(places) == len(table.rows)


@pytest.mark.parametrize(
    "name",
    [
        "a3d_densenet121-fpn_7s_phantom",
        "faster-rcnn_r50-fpn_3s_phantom",
        "lens-rpn_densenet121_4datasets_9s_phantom",
        "mulan_densenet121_volumes_9s_phantom",
        "retinanet-a3d_densenet121-fpn_7s_phantom",
    ],
)
def test_every_marked_lesion_of_a_miniature_has_an_anchor_of_its_size(name):
    config = loaded(name)
    proposals = config.model.get("rpn_head") or config.model.bbox_head
    head = proposals.get("head") or proposals
    anchors = torch.cat(TASK_UTILS.build(head.anchor_generator).gen_base_anchors())
    widths, heights = (anchors[:, 2:] - anchors[:, :2]).T
    pad_mm, pixel_mm = PhantomSpec().pad_mm, config.test_dataloader.dataset.pipeline.resize.pixel_mm
    for long_mm in range(SETTINGS["min_long_mm"], 46):
        side = (long_mm + 2 * pad_mm) / pixel_mm
        common = widths.clamp(max=side) * heights.clamp(max=side)
        assert (common / (side**2 + widths * heights - common)).max() > 0.6, side


def test_unknown_table_names_the_nearest():
    with pytest.raises(InputError, match="'tabel1' is not known; did you mean 'table1'"):
        get_tables("tabel1")
    with pytest.raises(InputError, match="one of table1, table2"):
        get_tables("zzz")
