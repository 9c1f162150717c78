"""Mistakes in a config are found, and named by their place, before anything is built."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

import mmdet.registry
import mmengine.registry
from mmengine.config import Config
from mmengine.registry import Registry

import mmpluld.registry
from mmpluld.engine.config import import_custom
from mmpluld.engine.config_keys import DEFAULT_TYPES, check_untyped, keywords_passed_on
from mmpluld.engine.config_names import RUNNER_KEYS
from mmpluld.engine.config_values import check_kinds, check_ranges, check_top
from mmpluld.errors import InputError, did_you_mean, nearest

__all__ = ["check_complete", "check_config", "is_registered"]

# Keys that mmengine's builders take out before they call the class, by registry.
BUILDER_KEYS = {
    "hook": {"priority"},
    "parameter scheduler": {"convert_to_iter_based"},
    "optim_wrapper": {"constructor", "paramwise_cfg"},
    "weight initializer": {"override"},
}
# Arguments that mmengine's builders give, which a config cannot, by registry.
BUILDERS_OWN = {
    "data sampler": {"dataset", "sampler"},
    "loop": {"runner"},
    "optimizer": {"params"},
    "parameter scheduler": {"optimizer"},
}
# Keys that whoever holds a part takes out before it is built, by the end of its place: DETR's head does.
HOLDER_KEYS = {".loss_cls": {"bg_cls_weight"}}
# Under keys that end so, `type` names something that no registry holds, or a layer whose builder adds arguments.
UNREGISTERED: tuple[str, ...] = ("norm_cfg", "act_cfg", "conv_cfg", "adapt_cfg", "dqs_cfg", "upsample_cfg", "nms_cfg")
UNREGISTERED += ("_trans", "nms", "fusion", "dcn", "override", "roi_layer")
# What mmengine's runner takes together.
_TOGETHER = (
    ("train_dataloader", "train_cfg", "optim_wrapper"),
    ("val_dataloader", "val_cfg", "val_evaluator"),
    ("test_dataloader", "test_cfg", "test_evaluator"),
)


def check_config(config: Config) -> None:
    """Check every ``type`` with its keywords and their kinds, other known keys, ranges, and the spelling at the top.

    Raises:
        InputError: At the first unknown type, key or misspelt top-level key, or value that no run can use, with its
            place in the config.
    """
    content = config._cfg_dict.to_dict()
    check_top(content)
    import_custom(config)
    for key in config:
        similar = nearest(key, RUNNER_KEYS, cutoff=0.87)
        # `tiny_train_pipeline` is somebody's own name, `train_piplines` is a slip.
        if similar is not None and similar != key and not key.endswith(f"_{similar}"):
            raise InputError(f"config key '{key}' is unknown; did you mean '{similar}'?")
    for place, node in _typed_dicts(content, ""):
        _check_node(place, node, (node["type"],))
    for place, names in DEFAULT_TYPES.items():
        node = content.get(place)
        if isinstance(node, Mapping) and "type" not in node:
            if place == "train_cfg":
                node, names = _train_loop(node, names)
            _check_node(place, node, names)
    check_untyped(content, _is_ours_or_mmdets)
    check_ranges(content)


def check_complete(config: Config) -> None:
    """Check that of loader, loop and what belongs to them a run has all or none, of training, validation and test each.

    Raises:
        InputError: Some are missing.
    """
    for names in _TOGETHER:
        missing = [name for name in names if config.get(name) is None]
        if 0 < len(missing) < len(names):
            raise InputError(
                f"{' and '.join(missing)}: None or missing; {', '.join(names)} belong together, so give all three or "
                "set all three to None"
            )


def _train_loop(node: Mapping[str, Any], names: tuple[str, ...]) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    """Keywords of a training loop without a type, and the name of the one that ``by_epoch`` chooses."""
    rest = {key: value for key, value in node.items() if key != "by_epoch"}
    if "by_epoch" not in node:
        raise InputError("train_cfg: has no by_epoch; set it to True, or to False for a loop over iterations")
    return rest, names[:1] if node["by_epoch"] else names[1:]


def _typed_dicts(node: Any, place: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Walk a config and yield every dict that asks for something registered, with its dotted place."""
    if isinstance(node, Mapping):
        if isinstance(node.get("type"), str):
            yield place, node
        for key, value in node.items():
            if not str(key).endswith(UNREGISTERED) and node.get("type") != "Albu":  # Albu has names of its own
                yield from _typed_dicts(value, f"{place}.{key}" if place else str(key))
    elif isinstance(node, (list, tuple)):
        for index, value in enumerate(node):
            yield from _typed_dicts(value, f"{place}[{index}]")


@cache
def _registries() -> list[Registry]:
    """All registries that a name is looked up in, those of this package first, with their modules imported."""
    modules = (mmpluld.registry, mmdet.registry, mmengine.registry)
    found = {id(value): value for module in modules for value in vars(module).values() if isinstance(value, Registry)}
    for registry in found.values():
        registry.import_from_location()
    scopes = ["mmpluld", "mmdet", "mmengine"]
    return sorted(found.values(), key=lambda registry: scopes.index(registry.scope))


def _candidates(name: str) -> dict[str, Any]:
    """The registered objects that ``name`` can mean, by the name of their registry."""
    scope, _, short = name.rpartition(".")
    found: dict[str, Any] = {}
    for registry in _registries():
        entry = registry.module_dict.get(short)
        if entry is not None and (not scope or registry.scope == scope):
            found.setdefault(registry.name, entry)
    return found


def is_registered(name: str) -> bool:
    """Whether a registry of this package or of its hosts holds something of this name, so that nothing is imported."""
    return bool(_candidates(name))


def _is_ours_or_mmdets(name: str) -> bool:
    """Whether all that this name can mean is written in this package, mmdet or its hosts."""
    hosts = ("mmpluld", "mmdet", "mmcv", "mmengine", "torch")
    found = _candidates(name).values()
    return all(getattr(entry, "__module__", "").partition(".")[0] in hosts for entry in found)


def _check_node(place: str, node: Mapping[str, Any], names: tuple[str, ...]) -> None:
    """Check the keywords of what a dict asks for by ``names``, any of which it may be."""
    name = names[0]
    candidates = [(key, entry) for each in names for key, entry in _candidates(each).items()]
    if not candidates:
        if "." in name:  # another package's scope, or an import path; its own builder will tell
            return
        known = {key for registry in _registries() for key in registry.module_dict}
        hint = did_you_mean(name, known, "is the module that registers it in custom_imports?")
        raise InputError(f"{place}.type: '{name}' is unknown{hint}")
    keywords = [_settable(registry_name, entry) for registry_name, entry in candidates]
    accepted = set().union(*(names for names in keywords if names is not None))
    silent = {"type", "_scope_"}.union(*(keys for end, keys in HOLDER_KEYS.items() if place.endswith(end)))
    for key in node if None not in keywords else ():
        if key not in accepted | silent:
            hint = did_you_mean(key, accepted, f"known are {', '.join(sorted(accepted))}")
            raise InputError(f"{place}.{key}: {name} has no such argument{hint}")
    if len(candidates) == 1:
        check_kinds(place, name, node, candidates[0][1])


def _settable(registry_name: str, entry: Callable[..., Any]) -> set[str] | None:
    """Names that a config can give for an entry of a registry, or None if any."""
    names = _keywords(entry)
    if names is None:
        return None
    return (names - BUILDERS_OWN.get(registry_name, set())) | BUILDER_KEYS.get(registry_name, set())


def _keywords(entry: Callable[..., Any]) -> set[str] | None:
    """Names of the keywords that a class or function takes, or None if it takes any."""
    constructors = [entry]
    if inspect.isclass(entry):
        constructors = [vars(base)["__init__"] for base in inspect.getmro(entry)[:-1] if "__init__" in vars(base)]
    names: set[str] = set()
    if hasattr(entry, "keywords_of"):  # a dataclass that makes an object of the keywords that are not its own
        names |= {field.name for field in dataclasses.fields(entry.keywords_of)}
    closed = not constructors
    for position, constructor in enumerate(constructors):
        try:
            parameters = inspect.signature(constructor).parameters.values()
        except ValueError:  # implemented in C
            return None
        names |= {
            parameter.name
            for parameter in parameters
            if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        }
        closed = closed or not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
        if closed and position == 0:
            break
        # With several bases a class may hand its keywords past the next one in line, so all of them count.
    passed_on = keywords_passed_on(entry)
    return (names | passed_on) - {"self"} if closed or passed_on else None
