"""Schedules that do not fit their training."""

from __future__ import annotations

from typing import Any

import pytest
from mmengine.config import Config
from mmengine.runner import EpochBasedTrainLoop

from mmpluld.engine.config import load_config
from mmpluld.engine.schedule import check_schedule
from mmpluld.errors import InputError

WARM_UP = {"type": "LinearLR", "by_epoch": False, "start_factor": 0.1, "end": 50}
STEPS = {"type": "MultiStepLR", "milestones": [4, 6]}


def told(schedulers: Any, **loop: Any) -> str | None:
    loop = loop or {"by_epoch": True, "max_epochs": 8}
    return check_schedule(Config({"train_cfg": loop, "param_scheduler": schedulers}))


@pytest.mark.parametrize("loop", [{"by_epoch": False, "max_iters": 9}, {"type": "IterBasedTrainLoop", "max_iters": 9}])
def test_epochs_in_a_loop_over_iterations_are_refused(loop):
    with pytest.raises(InputError, match=r"^param_scheduler\[1\]: MultiStepLR counts epochs.* set its by_epoch to "):
        told([WARM_UP, STEPS], **loop)
    assert told([WARM_UP, {**STEPS, "by_epoch": False}], **loop) is None
    assert told(None, **loop) is None


def test_schedulers_of_several_optimizers_are_named_by_theirs():
    with pytest.raises(InputError, match=r"^param_scheduler\.generator\[1\]: MultiStepLR counts epochs"):
        told({"critic": WARM_UP, "generator": [WARM_UP, STEPS]}, by_epoch=False, max_iters=9)


@pytest.mark.parametrize("kind", ["mine.LoopOfEpochs", EpochBasedTrainLoop])
def test_loops_over_epochs_by_other_names_are_none_over_iterations(kind):
    assert told([STEPS], type=kind, max_epochs=8) is None


def test_schedules_of_other_lengths_are_told():
    assert told([WARM_UP, STEPS]) is None
    assert told([WARM_UP, {**STEPS, "milestones": [4, 8]}]) == (
        "param_scheduler: has a milestone after epoch 8, and train_cfg.max_epochs is 8"
    )
    cosine = {"type": "CosineAnnealingLR", "T_max": 6, "end": 6}
    assert told(cosine) == (
        "param_scheduler: ends after epoch 6, and train_cfg.max_epochs is 8; its last value stays until then"
    )
    assert told({"one": [{**cosine, "end": 10, "convert_to_iter_based": True}], "other": WARM_UP}) == (
        "param_scheduler: ends after epoch 10, and train_cfg.max_epochs is 8; the training ends before it does"
    )
    loop = {"type": "EpochBasedTrainLoop", "max_epochs": 8}
    assert told([{**STEPS, "end": 2}, {**cosine, "begin": 2, "end": 8}], **loop) is None


@pytest.mark.parametrize("name", ["lens-afp_densenet121_9s_phantom", "lens-afp_densenet121_9s_8e_deeplesion"])
def test_schedules_of_the_zoo_fit(name):
    assert check_schedule(load_config(name)) is None
