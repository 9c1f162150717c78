"""Pipelines as named steps."""

from __future__ import annotations

import pytest

from mmpluld.datasets.steps import num_slices, pipeline_steps, type_name
from mmpluld.datasets.transforms import LoadSliceStack
from mmpluld.engine.config import load_config
from mmpluld.errors import InputError

LOAD, FLIP, PACK = {"type": "LoadSliceStack", "num_slices": 5}, {"type": "RandomFlip"}, {"type": "PackDetInputs"}


def test_order_decides_and_empty_places_are_left_out():
    # mmengine writes a config out with its keys sorted.
    steps = {"flip": FLIP, "load": LOAD, "order": ["load", "crop", "flip", "mask", "pack"], "pack": PACK, "mask": None}
    assert pipeline_steps(steps) == [LOAD, FLIP, PACK]
    assert pipeline_steps({**steps, "gone": None, "crop": {}}) == [LOAD, FLIP, PACK]


def test_plain_lists_and_nothing():
    assert pipeline_steps([FLIP, PACK]) == [FLIP, PACK]
    assert pipeline_steps(None) == pipeline_steps({"order": []}) == []


@pytest.mark.parametrize(
    ("pipeline", "message"),
    [
        ({"load": LOAD, "pack": PACK}, r"pipeline of steps load, pack: has no order; add order=\[\.\.\.\]"),
        ({"load": LOAD, "pack": PACK, "order": ["load"]}, "order lacks 'pack'; every step stands there once: load"),
        ({"load": LOAD, "order": ["load", "load"]}, "order has a name twice"),
    ],
)
def test_a_step_without_a_place(pipeline, message):
    with pytest.raises(InputError, match=message):
        pipeline_steps(pipeline)


@pytest.mark.parametrize("kind", ["LoadSliceStack", "mmpluld.LoadSliceStack", LoadSliceStack])
def test_a_class_by_any_of_its_names(kind):
    config = {"test_dataloader": {"dataset": {"pipeline": [{"type": kind, "num_slices": 9}]}}}
    assert type_name({"type": kind}) == "LoadSliceStack"
    assert num_slices(config) == 9
    assert type_name(None) == type_name({}) == ""


def test_number_of_slices():
    assert num_slices({"test_dataloader": {"dataset": {"pipeline": [LOAD, PACK]}}}) == 5
    assert num_slices({}) is None
    assert num_slices(load_config("faster-rcnn_r50-fpn_3s_20e_deeplesion")) == 3
