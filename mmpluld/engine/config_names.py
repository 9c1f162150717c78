"""What the names at the top of a config do: run something, set a value in many places, or nothing, which is refused.

A config is a program whose bases have run before it. A value that a base has copied into its dataloaders does not
change when an inheriting config gives its name another value. Here that either takes effect or is refused.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.fileio import load

from mmpluld.engine.nodes import nodes
from mmpluld.errors import InputError, did_you_mean

__all__ = [
    "RUNNER_KEYS",
    "SHARED",
    "TWIN_KEYS",
    "base_files",
    "check_names",
    "keep_runner_keys",
    "leaves",
    "places",
    "read_parts",
    "set_shared",
]

# What Runner.from_cfg and the commands read at the top of a config.
RUNNER_KEYS = {
    "auto_scale_lr", "compile", "custom_hooks", "custom_imports", "data_preprocessor", "default_hooks",
    "default_scope", "env_cfg", "experiment_name", "find_unused_parameters", "launcher", "load_from", "log_level",
    "log_processor", "model", "model_wrapper_cfg", "optim_wrapper", "param_scheduler", "randomness", "resume",
    "sync_bn", "test_cfg", "test_dataloader", "test_evaluator", "train_cfg", "train_dataloader", "val_cfg",
    "val_dataloader", "val_evaluator", "visualizer", "work_dir",
}  # fmt: skip
# What bases of mmdet have for its own script: no run here reads it.
_OTHERS = {"runner_type", "tta_model", "tta_pipeline"}
# At the top of a config each of these sets every argument of its name.
SHARED = ("data_root", "num_slices", "interp", "window_hu", "num_tags", "neg_weight", "keep_prob")
# What makes the miniature of a config, merged in this order: bases carry all but the last, a leaf may add that.
TWIN_KEYS = ("twin_model", "twin_data", "twin_source", "twin_schedule", "twin")

_OWN_SCOPE = (
    ast.FunctionDef,
    ast.AsyncFunctionDef,
    ast.ClassDef,
    ast.Lambda,
    ast.ListComp,
    ast.SetComp,
    ast.DictComp,
    ast.GeneratorExp,
)
_NOTHING = object()
_BASE_REFERENCE = re.compile(r"_base_(?:\.|\[['\"])(\w+)")


def places(config: Mapping[str, Any], name: str) -> list[str]:
    """Dotted places below the top of a config at which a key of this name stands, in file order."""
    return [place for place, _ in _values(config, name)]


def _values(config: Mapping[str, Any], name: str) -> Iterator[tuple[str, Any]]:
    for place, node in nodes(config):
        if place and isinstance(node, Mapping) and name in node:
            yield f"{place}.{name}", node[name]


def leaves(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Dotted place and value of everything that is no dict, lists as a whole."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from ((f"{key}.{place}", item) for place, item in leaves(value))
        else:
            yield key, value


def set_shared(config: Config, name: str, value: Any, source: str) -> None:
    """Give every argument called ``name`` this value.

    Raises:
        InputError: If the config has no such argument; ``source`` begins the message.
    """
    former = {str(old).rstrip("/") for _, old in _values(read_parts(config), name) if name == "data_root" and old}
    holders = [node for place, node in nodes(config._cfg_dict) if place and isinstance(node, dict) and name in node]
    for node in holders:
        node[name] = value
    if not holders:
        raise InputError(f"{source}: {name} has no effect: no part of the config has an argument of this name")
    for place, node in nodes(read_parts(config)):
        if place.endswith(f".{name}"):
            continue
        if isinstance(node, str) and any(f"{node}/".startswith(f"{old}/") for old in former - {str(value).rstrip("/")}):
            raise InputError(f"{source}: {name} would not reach {place} = {node!r}; set that place too")


def check_names(path: Path, config: Config) -> None:
    """Refuse names at the top of a config file or of its bases that nothing reads.

    Args:
        path: The config file.
        config: What mmengine made of it.

    Raises:
        InputError: At the first such name, with the places that would take effect; or if one of ``SHARED`` is set at
            the top of a file and, by it or one that inherits it, to another value in a part.
    """
    _check_file(path, config, frozenset(), is_root=True)
    _check_said_once(path, config)


def _check_file(path: Path, config: Config, read_by_children: frozenset[str], is_root: bool = False) -> None:
    text = path.read_text(encoding="utf-8")
    bases = base_files(path)
    assigned, loaded = _names(path, text)
    used = loaded | read_by_children | RUNNER_KEYS | {*SHARED, *TWIN_KEYS, "_base_"} | (set() if is_root else _OTHERS)
    # A config that was written out by a tool keeps the names of its source beside their copies.
    flat = is_root and not bases and "read_base" not in loaded
    for name in assigned:
        if name in used or name.startswith("_") or (flat and _stands_below(config._cfg_dict, name)):
            continue
        raise InputError(f"{path}: {name!r} has no effect, nothing reads it{_advice(name, config)}")
    for base in bases:
        _check_file(base, config, read_by_children | set(_BASE_REFERENCE.findall(text)))


def _names(path: Path, text: str) -> tuple[list[str], set[str]]:
    """Names that a config file assigns outside functions, and those that it reads."""
    if path.suffix != ".py":
        return list(load(str(path))), set()
    tree = ast.parse(text)
    read = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    return list(dict.fromkeys(_stored(tree))), read


def _stored(node: ast.AST) -> Iterator[str]:
    """Names that are assigned below a node, but in no scope of its own."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Name) and isinstance(child.ctx, ast.Store):
            yield child.id
        if not isinstance(child, _OWN_SCOPE):
            yield from _stored(child)


def _check_said_once(path: Path, config: Config) -> None:
    """Refuse a shared name at the top, here or in a base, with another value in a part that this file sets."""
    if not any(name in config for name in SHARED):
        return
    bases = base_files(path)
    inherited: dict[str, Any] = {}
    for base in bases:
        loaded = Config.fromfile(base, import_custom_modules=False)
        inherited |= loaded.to_dict()
        _check_said_once(base, loaded)
    before = {(name, place): value for name in SHARED for place, value in _values(read_parts(inherited), name)}
    for name in [name for name in SHARED if name in config]:
        found = {
            place: value
            for place, value in _values(read_parts(config), name)
            if not _covers(value, config[name]) and not _covers(before.get((name, place), _NOTHING), value)
        }
        # Without bases, one other value is what a tool has left of the former one; several contradict each other.
        if found and (bases or len({repr(value) for value in found.values()}) > 1):
            said = ", ".join(f"{place} = {value!r}" for place, value in found.items())
            raise InputError(
                f"{path}: {said}, but {name} = {config[name]!r} at the top of this config or of a base sets it "
                "everywhere; leave one of the two out"
            )


def base_files(path: Path) -> list[Path]:
    """The files that a config inherits from by name."""
    # mmengine's own look-up, which knows `package::path`.
    return [Path(Config._get_cfg_path(name, str(path))[0]) for name in Config._get_base_files(str(path))]


def _stands_below(config: Mapping[str, Any], name: str) -> bool:
    """Whether the value of a name at the top stands in a part of the config too, so that it says nothing of its own."""
    value = config.get(name)
    if not isinstance(value, (Mapping, list, tuple)):  # a number stands anywhere by chance
        return any(_covers(found, value) for _, found in _values(config, name))
    parts = (part for key, part in config.items() if key != name)
    return any(_covers(node, value) for part in parts for _, node in nodes(part))


def _covers(node: Any, value: Any) -> bool:
    """Whether ``node`` is ``value``, or a dict that has at least its keys with its values."""
    if isinstance(value, Mapping) and isinstance(node, Mapping):
        return all(key in node and _covers(node[key], item) for key, item in value.items() if key != "_delete_")
    if isinstance(value, (list, tuple)) and isinstance(node, (list, tuple)):
        return list(value) == list(node)
    return bool(node == value)


def _advice(name: str, config: Config) -> str:
    """What to do about a name that nothing reads."""
    hint = did_you_mean(name, RUNNER_KEYS | {*SHARED, *TWIN_KEYS}, cutoff=0.87)
    if hint:
        return hint
    value = config.get(name)
    parts = read_parts(config)
    found = places(parts, name)
    if isinstance(value, Mapping):  # stands where a dict has all of its arguments
        for place, node in nodes(parts):
            if place and isinstance(node, Mapping) and node.keys() >= value.keys() - {"_delete_"}:
                changed = [key for key, item in value.items() if key in node and not _covers(node[key], item)]
                found += [f"{place}.{key}" for key in changed]
    if found:
        return f"; a base that has this name has copied it already. Set {' and '.join(found)}"
    return "; use it in this file, or set the place itself"


def read_parts(config: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of a config that a run reads."""
    return {key: part for key, part in config.items() if key in RUNNER_KEYS}


def keep_runner_keys(config: Config) -> None:
    """Drop every name at the top that is for the config's own use, so that what is left is plain and complete."""
    for name in [key for key in config if key not in RUNNER_KEYS]:
        config._cfg_dict.pop(name)
