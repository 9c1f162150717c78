"""Keys of dicts that have no ``type``: what the part of the program that reads them knows, and nothing else."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from mmengine.dist import init_dist
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner
from mmengine.utils.dl_utils import set_multi_processing
from torch.utils.data import DataLoader

from mmpluld.datasets.steps import type_name
from mmpluld.engine.config_values import is_part
from mmpluld.engine.schedule import schedulers
from mmpluld.errors import InputError, did_you_mean

__all__ = ["DEFAULT_TYPES", "check_untyped", "keywords_passed_on"]

# What mmengine builds at these places where no type is given.
DEFAULT_TYPES: dict[str, tuple[str, ...]] = {
    "log_processor": ("LogProcessor",),
    "optim_wrapper": ("OptimWrapper",),
    "test_cfg": ("TestLoop",),
    "train_cfg": ("EpochBasedTrainLoop", "IterBasedTrainLoop"),
    "val_cfg": ("ValLoop",),
    "visualizer": ("Visualizer",),
}
_LOADERS = ("train_dataloader", "val_dataloader", "test_dataloader")
# What Runner.build_dataloader takes out before the rest goes to the DataLoader.
_LOADER_KEYS = {"dataset", "sampler", "batch_sampler", "num_batch_per_epoch", "worker_init_fn", "collate_fn"}
# What DefaultOptimWrapperConstructor reads; other constructors have keys of their own.
_PARAMWISE = {
    "bias_decay_mult", "bias_lr_mult", "bypass_duplicate", "custom_keys", "dcn_offset_lr_mult", "dwconv_decay_mult",
    "flat_decay_mult", "norm_decay_mult",
}  # fmt: skip
_NMS = {
    "class_agnostic", "iou_thr", "iou_threshold", "max_num", "method", "min_score", "offset", "score_threshold",
    "sigma", "split_thr", "type",
}  # fmt: skip
_PROPOSALS = {"max_per_img", "min_bbox_size", "nms", "nms_pre", "score_thr"}
_ASSIGNED = {"allowed_border", "assigner", "debug", "pos_weight", "sampler"}
# What the stages of mmdet's and our detectors read from the model's train_cfg and test_cfg.
_STAGES: dict[str, dict[str, set[str]]] = {
    "train_cfg": {
        "rpn": _ASSIGNED,
        "rpn_proposal": _PROPOSALS,
        "rcnn": (_ASSIGNED - {"allowed_border"}) | {"dynamic_rcnn", "mask_size", "soft_mask_target"},
    },
    "test_cfg": {
        "rpn": _PROPOSALS,
        "rcnn": {"mask_thr_binary", "max_per_img", "nms", "score_thr"},
    },
}
_OF_EXPERTS = {"calibrated", "experts", "fusion", "gated"}  # of test_cfg.rcnn, where the head has experts
_ONE_STAGE = {"train_cfg": _ASSIGNED, "test_cfg": _PROPOSALS | {"mask_thr_binary"}}
# Detectors, and the heads of them, of which the above is all that is read; others may read more.
_TWO_STAGES = ("FasterRCNN", "MaskRCNN")
_SINGLE_STAGE = ("RetinaNet", "FCOS")
_HEADS = (
    "AFPHead", "CenterNetProposalHead", "ExpertRoIHead", "FCOSHead", "IgnoreAwareFCOSHead", "LesionRoIHead",
    "MulanRoIHead", "PerDatasetHead", "RetinaHead", "RPNHead", "SharedCountRPNHead", "StandardRoIHead",
)  # fmt: skip


def check_untyped(config: Mapping[str, Any], known: Callable[[str], bool]) -> None:
    """Refuse unknown keys of the dicts that the runner and the detectors read themselves.

    Args:
        config: Top of a config, as plain dicts.
        known: Whether a part (``model.roi_head``, say) of this type is mmdet's or this package's; a user's own may read
            what it likes from ``train_cfg`` and ``test_cfg``.

    Raises:
        InputError: At the first unknown key, with its place and the nearest name.
    """
    _check_environment(config)
    for name in _LOADERS:
        loader = config.get(name)
        if isinstance(loader, Mapping) and "type" not in loader:
            _refuse_others(name, loader, _LOADER_KEYS | _parameters(DataLoader.__init__))
            for key in ("sampler", "batch_sampler"):
                if loader.get(key) is not None and not is_part(loader[key]):
                    raise InputError(f"{name}.{key} is {loader[key]!r}; allowed is a dict with a type, or None")
    _check_optimizer(config.get("optim_wrapper"))
    for name, hook in _items(config.get("default_hooks")):
        if isinstance(hook, Mapping) and "type" not in hook:
            usual = ("runtime_info", "timer", "sampler_seed", "logger", "param_scheduler", "checkpoint")
            hint = did_you_mean(name, usual, f"usual are {', '.join(usual)}", cutoff=0.7)
            raise InputError(f"default_hooks.{name}: has no type{hint if name not in usual else ''}")
    for place, hook in _each("custom_hooks", config.get("custom_hooks")):
        if not is_part(hook):
            raise InputError(f"{place}: has no type; name one, such as EMAHook")
    for place, scheduler in schedulers(config.get("param_scheduler")):
        if not is_part(scheduler):
            raise InputError(f"{place}: has no type; name one, such as MultiStepLR")
    _check_detector(config.get("model"), "model", known)


def _each(place: str, parts: Any) -> Iterator[tuple[str, Any]]:
    """Place and value of each part of a list."""
    for index, part in enumerate(parts if isinstance(parts, (list, tuple)) else ()):
        yield f"{place}[{index}]", part


def keywords_passed_on(entry: Any) -> set[str]:
    """Keywords that a class takes by ``**kwargs`` and hands to a function that is known."""
    if inspect.isclass(entry) and issubclass(entry, CheckpointHook):
        own = _parameters(CheckpointHook.__init__)
        return own | (_parameters(Runner.save_checkpoint) - {"out_dir", "filename"})
    return set()


def _check_environment(config: Mapping[str, Any]) -> None:
    environment = config.get("env_cfg")
    _refuse_others("env_cfg", environment, {"cudnn_benchmark", "mp_cfg", "dist_cfg", "resource_limit"})
    if isinstance(environment, Mapping):
        workers = _parameters(set_multi_processing) - {"distributed"}
        _refuse_others("env_cfg.mp_cfg", environment.get("mp_cfg"), workers)
        group = _parameters(torch.distributed.init_process_group) | _parameters(init_dist)
        _refuse_others("env_cfg.dist_cfg", environment.get("dist_cfg"), group | {"init_backend", "port"})
    _refuse_others("randomness", config.get("randomness"), _parameters(Runner.set_randomness))
    scaling = config.get("auto_scale_lr")
    _refuse_others("auto_scale_lr", scaling, {"enable", "base_batch_size"})
    if isinstance(scaling, Mapping) and scaling.get("enable") and not scaling.get("base_batch_size"):
        raise InputError("auto_scale_lr.enable is True, which needs base_batch_size, the one that the rate is for")


def _check_optimizer(wrapper: Any) -> None:
    if not isinstance(wrapper, Mapping):
        return
    own = wrapper.get("optimizer")
    if "constructor" not in wrapper and (own is None or not is_part(own)):
        raise InputError(f"optim_wrapper.optimizer is {own!r}; allowed is a dict with a type, such as AdamW")
    clip = wrapper.get("clip_grad")
    if isinstance(clip, Mapping):
        by_value = clip.get("type", "norm") == "value"
        function = torch.nn.utils.clip_grad_value_ if by_value else torch.nn.utils.clip_grad_norm_
        _refuse_others("optim_wrapper.clip_grad", clip, (_parameters(function) - {"parameters"}) | {"type"})
    if wrapper.get("constructor", "DefaultOptimWrapperConstructor") == "DefaultOptimWrapperConstructor":
        paramwise = wrapper.get("paramwise_cfg")
        _refuse_others("optim_wrapper.paramwise_cfg", paramwise, _PARAMWISE)
        for name, factors in _items(paramwise.get("custom_keys") if isinstance(paramwise, Mapping) else None):
            _refuse_others(f"optim_wrapper.paramwise_cfg.custom_keys.{name}", factors, {"lr_mult", "decay_mult"})


def _check_detector(model: Any, place: str, known: Callable[[str], bool]) -> None:
    """The stages of a detector, and of one in another (``PerDatasetDetector``)."""
    if not isinstance(model, Mapping):
        return
    _check_detector(model.get("detector"), f"{place}.detector", known)
    parts = [model, *(part for _, part in _all_dicts(model, skip=("train_cfg", "test_cfg", "data_preprocessor")))]
    if not all(known(str(part["type"])) for part in parts if "type" in part):
        return
    heads = [model[name] for name in ("rpn_head", "roi_head", "bbox_head") if isinstance(model.get(name), Mapping)]
    if not all(type_name(head) in _HEADS for head in heads):
        return
    kind = type_name(model)
    for which, stages in _STAGES.items():
        settings = model.get(which)
        if kind in _SINGLE_STAGE:
            _check_stage(f"{place}.{which}", settings, _ONE_STAGE[which])
        elif kind in _TWO_STAGES:
            _refuse_others(f"{place}.{which}", settings, stages)
            for stage, keys in stages.items():
                found = settings.get(stage) if isinstance(settings, Mapping) else None
                _check_stage(f"{place}.{which}.{stage}", found, keys | _keys_of_head(model, which, stage))


def _keys_of_head(model: Mapping[str, Any], which: str, stage: str) -> set[str]:
    """Keys of a stage that only some heads read."""
    head = model.get("roi_head")
    experts = isinstance(head, Mapping) and type_name(head) == "ExpertRoIHead"
    return _OF_EXPERTS if experts and (which, stage) == ("test_cfg", "rcnn") else set()


def _check_stage(place: str, settings: Any, keys: Iterable[str]) -> None:
    _refuse_others(place, settings, keys)
    for name in ("nms", "fusion"):
        if isinstance(settings, Mapping):
            _refuse_others(f"{place}.{name}", settings.get(name), _NMS)


def _all_dicts(node: Mapping[str, Any], skip: tuple[str, ...]) -> Iterable[tuple[str, Mapping[str, Any]]]:
    for key, value in node.items():
        if key not in skip and isinstance(value, Mapping):
            yield key, value
            yield from _all_dicts(value, skip)


def _refuse_others(place: str, node: Any, keys: Iterable[str]) -> None:
    """Refuse keys of a dict that are none of ``keys``."""
    keys = set(keys)
    for key, _ in _items(node):
        if key not in keys:
            hint = did_you_mean(key, keys, f"known are {', '.join(sorted(keys))}")
            raise InputError(f"{place}.{key}: nothing reads it{hint}")


def _items(node: Any) -> list[tuple[str, Any]]:
    return [(str(key), value) for key, value in node.items()] if isinstance(node, Mapping) else []


def _parameters(function: Callable[..., Any]) -> set[str]:
    """Names of a function's keywords."""
    kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return {item.name for item in inspect.signature(function).parameters.values() if item.kind not in kinds} - {"self"}
