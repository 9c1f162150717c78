"""The config of a bundle: plain values in JSON, which can name only what this package and its hosts register."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config

from mmpluld.datasets.steps import type_name
from mmpluld.engine.config_check import check_config, is_registered
from mmpluld.errors import InputError, printable
from mmpluld.zoo.bundle import CONFIG, Bundle

__all__ = ["bundle_config", "config_bytes"]

_KEYS = ("default_scope", "model", "test_cfg", "test_dataloader")
# What is looked up by name without a registry: by RoI extractors, and by the suppression of boxes, which evaluates the
# name as Python. Whatever is allowed here is a plain name of that kind.
_UNREGISTERED = {"nms", "soft_nms", "RoIAlign", "RoIPool"}
# Registered, but they evaluate texts of their config.
_EVALUATING = {"CameraMotionCompensation", "RFSearchHook"}
_SCOPES = {"mmpluld", "mmdet", "mmengine"}
_TUPLE = "__tuple__"  # a tuple, which JSON has not and transforms tell from a list


def config_bytes(config: Config, source: str) -> bytes:
    """What detection reads of a config, as JSON: the model, the test pipeline, and the rules of a test of volumes.

    Args:
        config: What ``load_config`` returned.
        source: Its name, for messages.

    Raises:
        InputError: If it asks for something that this package and its hosts do not register, or holds a value that JSON
            does not know.
    """
    content = config._cfg_dict.to_dict()
    dataset = content.get("test_dataloader", {}).get("dataset", {})
    if "model" not in content or not dataset.get("pipeline"):
        raise InputError(f"{source}: has no model or no pipeline of test_dataloader; publish with a config of this zoo")
    kept: dict[str, Any] = {
        "default_scope": content.get("default_scope", "mmpluld"),
        "model": content["model"],
        "test_dataloader": {"dataset": {"pipeline": dataset["pipeline"]}},
    }
    test = content.get("test_cfg") or {}
    if type_name(test) == "VolumeTestLoop":
        kept["test_cfg"] = {key: value for key, value in test.items() if key != "fpr"}
    try:
        text = json.dumps(_encoded(kept), indent=1, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"{source}: cannot be written as JSON ({error}); use plain values in the config") from error
    _check_types(_decoded(json.loads(text)), source)
    return text.encode()


def bundle_config(bundle: Bundle, part: str = "") -> Config:
    """The config in a bundle, checked; no code of the bundle runs, neither now nor when the model is built.

    Args:
        bundle: The bundle.
        part: Begins the member's name: ``bundle.FPR`` for that of the false-positive reduction.

    Raises:
        InputError: It is damaged, asks for what is not registered, or does not hold what :func:`check_config` wants.
    """
    place = f"{bundle.path}, {part}{CONFIG}"
    content = _decoded(bundle.json(f"{part}{CONFIG}"))
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise InputError(f"{place}: is no config of a model; fetch the bundle again")
    for key in content:
        if key not in _KEYS:
            raise InputError(f"{place}: has {printable(key)!r}; a bundle's config may have {', '.join(_KEYS)}")
    _check_types(content, place)
    config = Config(content, cfg_text=f"# of {bundle.path.name}\n", filename=f"{bundle.name}.py")
    try:
        check_config(config)
    except InputError as error:
        raise InputError(f"{place}: {error}") from None
    return config


def _check_types(content: Mapping[str, Any], place: str) -> None:
    """Refuse whatever would make a builder import or evaluate something."""
    if content.get("default_scope", "mmpluld") not in _SCOPES:
        raise InputError(f"{place}: default_scope is {printable(str(content['default_scope']))!r}; {_ALLOWED}")
    for where, node in _dicts(content, ""):
        if "_scope_" in node and node["_scope_"] not in _SCOPES:
            raise InputError(f"{place}: {where}._scope_ is {printable(str(node['_scope_']))!r}; {_ALLOWED}")
        if "type" not in node:
            continue
        kind = node["type"]
        known = isinstance(kind, str) and (kind in _UNREGISTERED or is_registered(kind))
        if not known or kind.rpartition(".")[-1] in _EVALUATING:
            raise InputError(f"{place}: {where}.type is {printable(str(kind))!r}; {_ALLOWED}")


_ALLOWED = "a bundle may name only what mmpluld, MMDetection and MMEngine register, since all else could run code"


def _dicts(node: Any, place: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if isinstance(node, Mapping):
        yield place, node
        for key, value in node.items():
            yield from _dicts(value, f"{place}.{printable(str(key))}" if place else printable(str(key)))
    elif isinstance(node, (list, tuple)):
        for index, value in enumerate(node):
            yield from _dicts(value, f"{place}[{index}]")


def _encoded(node: Any) -> Any:
    """Values for JSON, with tuples marked."""
    if isinstance(node, Mapping):
        if wrong := [key for key in node if not isinstance(key, str) or key == _TUPLE]:
            raise TypeError(f"key {wrong[0]!r}")
        return {key: _encoded(value) for key, value in node.items()}
    if isinstance(node, tuple):
        return {_TUPLE: [_encoded(value) for value in node]}
    return [_encoded(value) for value in node] if isinstance(node, list) else node


def _decoded(node: Any) -> Any:
    if isinstance(node, Mapping):
        if set(node) == {_TUPLE} and isinstance(node[_TUPLE], list):
            return tuple(_decoded(value) for value in node[_TUPLE])
        return {key: _decoded(value) for key, value in node.items()}
    return [_decoded(value) for value in node] if isinstance(node, list) else node
