"""Whether the model, the data and the hooks of a training belong together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from mmdet.engine.hooks import MeanTeacherHook
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from mmpluld.engine.seen_patients import NumberedPatientsHook
from mmpluld.engine.tag_statistics import TagStatisticsHook
from mmpluld.engine.wrapped import single_datasets, unwrapped
from mmpluld.errors import InputError, did_you_mean
from mmpluld.registry import MODELS

__all__ = ["FitCheck"]

_WITH_EXPERTS = ("PerDatasetHead", "ExpertBBoxHead", "PerDatasetDetector")


class FitCheck(Hook):
    """Refuses, before its first step, a training of parts that do not belong together.

    Each would run to its end: experts that no dataset trains answer with their random start, and without its hook a
    model learns something else.

    Args:
        started: Whether the weights come from another training, in which an expert without data may have been trained.
    """

    priority = "VERY_HIGH"

    def __init__(self, started: bool = False) -> None:
        self.started = started

    def before_train(self, runner: Runner) -> None:
        """Look.

        Raises:
            InputError: An expert has no dataset, a dataset no expert, or a hook is missing.
        """
        model = unwrapped(runner.model)
        for kind, use in _needed_hooks(model):
            if not any(isinstance(hook, kind) for hook in runner.hooks):
                raise InputError(
                    f"custom_hooks: has no {kind.__name__}, which {use}; a config's own list replaces that of its "
                    f'base, so add dict(type="{kind.__name__}") to it'
                )
        trained = _trained_datasets(runner.train_dataloader)
        with_experts = tuple(map(MODELS.get, _WITH_EXPERTS))
        for place, module in model.named_modules():
            if trained and isinstance(module, with_experts):
                self._compare(".".join(filter(None, ("model", place, "datasets"))), module.datasets, trained, runner)

    def _compare(self, place: str, experts: Sequence[str], trained: Sequence[str], runner: Runner) -> None:
        for name in trained:
            if name not in experts:
                raise InputError(
                    f"{place}: has no expert for dataset {name!r}, there are {', '.join(experts)}"
                    f"{did_you_mean(name, experts)}; add it, or set CTLesionDataset(name=...)"
                )
        idle = [name for name in experts if name not in trained]
        if not idle:
            return
        fault = f"{place}: no training dataset is called {' or '.join(idle)}, there are {', '.join(trained)}"
        if not self.started:
            raise InputError(f"{fault}; leave such an expert out, or train on its dataset too")
        runner.logger.warning(f"{fault}; such an expert keeps what load_from gave it, or its random start")


def _needed_hooks(model: nn.Module) -> Iterator[tuple[type[Hook], str]]:
    if hasattr(getattr(model, "roi_head", model), "set_tag_statistics"):
        yield TagStatisticsHook, "counts the tags that its losses are balanced by"
    if isinstance(model, MODELS.get("LesionEmbedder")):
        yield NumberedPatientsHook, "tells `mmpluld embed` whom the training has seen"
    if isinstance(model, MODELS.get("MeanTeacherDetector")):
        yield MeanTeacherHook, "makes the teacher of its student"


def _trained_datasets(loader: Any) -> list[str]:
    """Names of the datasets that batches come from; empty where one does not tell."""
    only = getattr(loader.sampler, "only", None)
    if only is not None:
        return [only]
    headers = [getattr(part, "metainfo", {}).get("dataset") for part in single_datasets(loader.dataset)]
    names = {str(header["name"]) if isinstance(header, dict) and "name" in header else "" for header in headers}
    return [] if "" in names else sorted(names)
