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
    "runner_type", "sync_bn", "test_cfg", "test_dataloader", "test_evaluator", "train_cfg", "train_dataloader",
    "tta_model", "tta_pipeline", "val_cfg", "val_dataloader", "val_evaluator", "visualizer", "work_dir",
}  # fmt: skip
# At the top of a config each of these sets every argument of its name.
SHARED = ("data_root", "num_slices", "interp", "window_hu", "num_tags", "neg_weight", "keep_prob")
# What makes the miniature of a config, merged in this order: bases carry all but the last, a leaf may add that.
TWIN_KEYS = ("twin_model", "twin_data", "twin_source", "twin_schedule", "twin")

_BASE_REFERENCE = re.compile(r"_base_(?:\.|\[['\"])(\w+)")


def places(config: Mapping[str, Any], name: str) -> list[str]:
    """Dotted places below the top of a config at which a key of this name stands, in file order."""
    return [place for place, _ in _values(config, name)]


def _values(config: Mapping[str, Any], name: str) -> Iterator[tuple[str, Any]]:
    for place, node in _nodes(config, ""):
        if place and isinstance(node, Mapping) and name in node:
            yield f"{place}.{name}", node[name]


def leaves(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Dotted place and value of everything that is no dict, lists as a whole."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from ((f"{key}.{place}", item) for place, item in leaves(value))
        else:
            yield key, value


def _nodes(node: Any, place: str) -> Iterator[tuple[str, Any]]:
    """A node and all below it, each with its dotted place."""
    yield place, node
    items: Any = ()
    if isinstance(node, Mapping):
        items = node.items()
    elif isinstance(node, (list, tuple)):
        items = enumerate(node)
    for key, value in items:
        yield from _nodes(value, f"{place}.{key}" if place else str(key))


def set_shared(config: Config, name: str, value: Any, source: str) -> None:
    """Give every argument called ``name`` this value.

    Raises:
        InputError: If the config has no such argument; ``source`` begins the message.
    """
    if not _set_below(config._cfg_dict, name, value):
        raise InputError(f"{source}: {name} has no effect: no part of the config has an argument of this name")


def _set_below(node: Any, name: str, value: Any) -> bool:
    """Set ``name`` in all dicts below this one; whether there was any."""
    found = False
    children = node.values() if isinstance(node, Mapping) else node if isinstance(node, (list, tuple)) else ()
    for child in children:
        if isinstance(child, dict) and name in child:
            child[name], found = value, True
        found = _set_below(child, name, value) or found
    return found


def check_names(path: Path, config: Config) -> None:
    """Refuse names at the top of a config file or of its bases that nothing reads.

    Args:
        path: The config file.
        config: What mmengine made of it.

    Raises:
        InputError: At the first such name, with the places that would take effect; or if a file sets one of ``SHARED``
            at its top and again, to another value, in a part.
    """
    if path.suffix == ".py":
        _check_file(path, config, frozenset())


def _check_file(path: Path, config: Config, read_by_children: frozenset[str]) -> None:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    assigned = dict(_assignments(tree))
    for name in assigned.keys() & set(SHARED):
        if "_base_" in assigned:
            _check_said_once(path, tree, name, assigned[name])
        else:
            _check_alike(path, config, name)
    loaded = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    used = loaded | read_by_children | RUNNER_KEYS | {*SHARED, *TWIN_KEYS, "_base_"}
    for name in assigned:
        if name in used or name.startswith("__"):
            continue
        # A config that was written out by a tool keeps the names of its source beside their copies.
        if "_base_" not in assigned and _stands_below(config._cfg_dict, name):
            continue
        raise InputError(f"{path}: {name!r} has no effect, nothing reads it{_advice(name, config)}")
    for base in _bases(path, assigned.get("_base_")):
        _check_file(base, config, read_by_children | set(_BASE_REFERENCE.findall(text)))


def _assignments(tree: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    """Names assigned at the top of a file, with what they are assigned."""
    for node in tree.body:
        if isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign)) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                for name in ast.walk(target):
                    if isinstance(name, ast.Name):
                        yield name.id, node.value


def _check_said_once(path: Path, tree: ast.Module, name: str, value: ast.expr) -> None:
    """Refuse a file that sets a shared name at its top and another value in a part of its own."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id in TWIN_KEYS:
            continue
        for call in ast.walk(node):
            for keyword in call.keywords if isinstance(call, ast.Call) else ():
                said = keyword.value
                same = isinstance(said, ast.Name) and said.id == name
                if keyword.arg == name and not same and ast.dump(said) != ast.dump(value):
                    raise InputError(
                        f"{path}, line {said.lineno}: sets {name} once more; {name} at the top sets it everywhere, so "
                        "leave one of the two out"
                    )


def _check_alike(path: Path, config: Config, name: str) -> None:
    """Refuse a file without bases in which a shared name stands at the top and several other values below."""
    found = {place: value for place, value in _values(read_parts(config), name) if not _covers(value, config[name])}
    if len({repr(value) for value in found.values()}) > 1:
        said = ", ".join(f"{place} = {value!r}" for place, value in found.items())
        raise InputError(f"{path}: {name} = {config[name]!r} at the top, but {said}; leave the one at the top out")


def base_files(path: Path) -> list[Path]:
    """The files that a config inherits from by name."""
    if path.suffix != ".py":
        return []
    return _bases(path, dict(_assignments(ast.parse(path.read_text(encoding="utf-8")))).get("_base_"))


def _bases(path: Path, value: ast.expr | None) -> list[Path]:
    if value is None:
        return []
    names = ast.literal_eval(value)
    # mmengine's own look-up, which knows `package::path`.
    return [
        Path(Config._get_cfg_path(name, str(path))[0]) for name in ([names] if isinstance(names, str) else list(names))
    ]


def _stands_below(config: Mapping[str, Any], name: str) -> bool:
    """Whether the value of a name at the top stands in a part of the config too, so that it says nothing of its own."""
    value = config.get(name)
    return any(_holds(part, value) for key, part in config.items() if key != name)


def _holds(node: Any, value: Any) -> bool:
    if _covers(node, value):
        return True
    children = node.values() if isinstance(node, Mapping) else node if isinstance(node, (list, tuple)) else ()
    return any(_holds(child, value) for child in children)


def _covers(node: Any, value: Any) -> bool:
    """Whether ``node`` is ``value``, or a dict that has at least its keys with its values."""
    if isinstance(value, Mapping) and isinstance(node, Mapping):
        return all(key in node and _covers(node[key], item) for key, item in value.items() if key != "_delete_")
    if isinstance(value, (list, tuple)) and isinstance(node, (list, tuple)):
        return list(value) == list(node)
    return bool(node == value)


def _advice(name: str, config: Config) -> str:
    """What to do about a name that nothing reads."""
    hint = did_you_mean(name, RUNNER_KEYS | {*SHARED, *TWIN_KEYS}, cutoff=0.8)
    if hint:
        return hint
    value = config.get(name)
    parts = read_parts(config)
    found = places(parts, name)
    if isinstance(value, Mapping):  # stands where a dict has all of its arguments
        for place, node in _nodes(parts, ""):
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
