"""Several datasets by name, with what they share written once."""

from __future__ import annotations

import pytest

from mmpluld.datasets.named_concat import NamedConcatDataset, dataset_settings
from mmpluld.engine.config import load_config
from mmpluld.errors import InputError

LENS = "lens-afp_densenet121_4datasets_9s_8e_deeplesion"


def test_settings_of_a_single_dataset_and_of_a_list():
    assert dataset_settings({"type": "A", "data_root": "x"}) == [{"type": "A", "data_root": "x"}]
    assert dataset_settings({"datasets": [{"type": "A"}, {"type": "B"}]}) == [{"type": "A"}, {"type": "B"}]


def test_own_values_replace_shared_ones_and_order_decides():
    settings = dataset_settings(
        {
            "shared": {"type": "A", "sampling": {"policy": "all_slices"}},
            "datasets": {
                "b": {"ann_file": "b"},
                "new": {"ann_file": "n"},
                "a": {"ann_file": "a", "type": "B"},
                "c": None,
            },
            "order": ["c", "b", "a"],
        }
    )
    assert [part["ann_file"] for part in settings] == ["b", "a", "n"]
    assert [part["type"] for part in settings] == ["A", "B", "A"]
    assert all(part["sampling"] == {"policy": "all_slices"} for part in settings)


def test_a_fifth_dataset_by_config_alone(tmp_path):
    path = tmp_path / "five.py"
    path.write_text(
        f"_base_ = {str(load_config(LENS).filename)!r}\n"
        "train_dataloader = dict(dataset=dict(datasets=dict(mine=dict(ann_file='mine.json'))))\n"
    )
    settings = dataset_settings(load_config(path).train_dataloader.dataset)
    assert [part["ann_file"].partition("/")[0] for part in settings] == [
        "deeplesion",
        "luna16",
        "lits",
        "nih-ln",
        "mine.json",
    ]
    assert settings[-1]["pipeline"] == settings[0]["pipeline"]


def test_no_dataset_left():
    with pytest.raises(InputError, match="NamedConcatDataset: all of a, b left out; keep one"):
        NamedConcatDataset(datasets={"a": None, "b": None})


@pytest.mark.parametrize(
    ("name", "shared", "message"),
    [
        ("luna61", {"type": "CTLesionDataset"}, r"datasets\.luna61 has no ann_file; did you mean 'luna16'\?"),
        ("luna61", {}, r"datasets\.luna61 has no type; did you mean 'luna16'\?"),
        ("mine", {"type": "CTLesionDataset"}, r"datasets\.mine has no ann_file; give it, or set the dataset to None"),
    ],
)
def test_settings_under_a_misspelt_name(name, shared, message):
    datasets = {"luna16": {"type": "CTLesionDataset", "ann_file": "a"}, "lits": None, name: {"fraction": 0.5}}
    with pytest.raises(InputError, match=f"^NamedConcatDataset: {message}$"):
        NamedConcatDataset(datasets=datasets, shared=shared)
