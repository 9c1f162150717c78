"""Trainings of parts that do not belong together are refused."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest
from mmengine.registry import DefaultScope
from torch import nn

from mmpluld.engine.config import load_config
from mmpluld.engine.fit_check import FitCheck
from mmpluld.errors import InputError
from mmpluld.registry import HOOKS, build_model


def built(name: str) -> nn.Module:
    with DefaultScope.overwrite_default_scope("mmpluld"):
        return build_model(load_config(name))


@pytest.fixture(scope="module")
def lens() -> nn.Module:
    return built("lens-afp_densenet121_4datasets_9s_phantom")


def training(model: nn.Module, *names: str | None, only: str | None = None, hooks: list[Any] | None = None) -> Any:
    """What a runner has before its first step."""
    parts = [SimpleNamespace(metainfo={} if name is None else {"dataset": {"name": name}}) for name in names]
    loader = SimpleNamespace(dataset=SimpleNamespace(datasets=parts), sampler=SimpleNamespace(only=only))
    return SimpleNamespace(model=model, train_dataloader=loader, hooks=hooks or [], logger=logging.getLogger("fit"))


ALL = ("deeplesion", "lits", "luna16", "nih-ln")


def test_each_expert_has_its_dataset(lens):
    FitCheck().before_train(training(lens, *ALL))
    FitCheck().before_train(training(lens, "deeplesion", None))  # a dataset that does not tell


def test_experts_without_data_are_refused(lens, caplog):
    some = training(lens, "deeplesion", "luna16")
    message = r"model\.rpn_head\.datasets: no training dataset is called lits or nih-ln, there are deeplesion, luna16"
    with pytest.raises(InputError, match=message):
        FitCheck().before_train(some)
    with pytest.raises(InputError, match="called luna16 or lits or nih-ln, there are deeplesion;"):
        FitCheck().before_train(training(lens, *ALL, only="deeplesion"))
    FitCheck(started=True).before_train(some)  # the weights that it starts from may have them
    assert "keeps what load_from gave it, or its random start" in caplog.text


def test_a_dataset_without_an_expert_is_refused(lens):
    with pytest.raises(InputError, match=r"has no expert for dataset 'luna61', .*; did you mean 'luna16'\?"):
        FitCheck(started=True).before_train(training(lens, "luna61", "deeplesion", "lits", "nih-ln"))


@pytest.mark.parametrize(
    ("name", "needed"),
    [
        ("mulan_densenet121_9s_phantom", ["TagStatisticsHook"]),
        ("lesanet_vgg16_phantom", ["TagStatisticsHook", "NumberedPatientsHook"]),
        ("lens-afp_densenet121_mean-teacher_9s_phantom", ["MeanTeacherHook"]),
    ],
)
def test_hooks_that_a_model_learns_nothing_right_without(name, needed):
    model, hooks = built(name), [HOOKS.build({"type": kind}) for kind in needed]
    FitCheck().before_train(training(model, None, hooks=hooks))
    for hook in hooks:
        others = [other for other in hooks if other is not hook]
        with pytest.raises(InputError, match=rf"^custom_hooks: has no {type(hook).__name__}, which .*; a config's own"):
            FitCheck().before_train(training(model, None, hooks=others))
