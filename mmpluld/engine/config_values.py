"""Values of a config that no run can use: of the wrong kind for the argument they are given to, or out of its range."""

from __future__ import annotations

import inspect
import logging
import math
import re
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Union, get_args, get_origin

from mmpluld.errors import InputError

__all__ = ["check_kinds", "check_ranges", "check_shared", "check_top", "is_part"]

_Rule = tuple[Callable[[Any], bool], str]


def _whole(least: int, most: float = math.inf) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _number(least: float, most: float = math.inf) -> Callable[[Any], bool]:
    return lambda value: _is_number(value) and math.isfinite(value) and least <= value <= most


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_window(value: Any) -> bool:
    pair = isinstance(value, (list, tuple)) and len(value) == 2 and all(map(_number(-math.inf), value))
    return pair and value[0] < value[1]


_FROM_1: _Rule = (_whole(1), "whole numbers from 1")
_FROM_0: _Rule = (_whole(0), "whole numbers from 0")
_FLAG: _Rule = (_is_flag, "True and False")
_RANGES: dict[str, _Rule] = {
    r"(train|val|test)_dataloader\.batch_size": _FROM_1,
    r"(train|val|test)_dataloader\.num_workers": _FROM_0,
    # mmengine takes 1e3 too.
    r"train_cfg\.(max_epochs|max_iters|val_interval)": (
        lambda value: _number(1)(value) and value == int(value),
        "whole numbers from 1",
    ),
    r"optim_wrapper\.optimizer\.(lr|weight_decay)": (_number(0), "numbers from 0"),
    r"optim_wrapper\.accumulative_counts": _FROM_1,
    r"optim_wrapper\.clip_grad\.(max_norm|clip_value)": (lambda value: _is_number(value) and value > 0, "above 0"),
    r"randomness\.seed": (_whole(0, 2**32 - 1), "whole numbers from 0 to 4294967295"),
    r"auto_scale_lr\.base_batch_size": _FROM_1,
    # A text would be true, whatever it says.
    r"resume": (_is_flag, "True and False; `mmpluld train --resume CHECKPOINT` resumes from a file"),
    r"auto_scale_lr\.enable|env_cfg\.cudnn_benchmark|find_unused_parameters|train_cfg\.by_epoch": _FLAG,
    r"randomness\.(deterministic|diff_rank_seed)": _FLAG,
    r"(train|val|test)_dataloader\.(drop_last|persistent_workers|pin_memory)": _FLAG,
    r"log_level": (
        lambda value: _whole(0)(value) or isinstance(logging.getLevelName(value), int),
        "DEBUG, INFO, WARNING, ERROR and CRITICAL",
    ),
}
_LOADERS = {"train_dataloader", "val_dataloader", "test_dataloader"}
_LOOPS = {"train_cfg", "val_cfg", "test_cfg"}
# What stands at the top, by its kind.
_TOP: dict[str, set[str]] = {
    "dict": {
        "auto_scale_lr", "custom_imports", "data_preprocessor", "default_hooks", "env_cfg", "log_processor", "model",
        "model_wrapper_cfg", "optim_wrapper", "randomness", "visualizer", *_LOADERS, *_LOOPS,
    },
    "container": {"custom_hooks"},
    "dict or container": {"param_scheduler", "test_evaluator", "val_evaluator"},
    "text": {"default_scope", "experiment_name", "launcher", "load_from", "work_dir"},
}  # fmt: skip
_NEEDED = {"env_cfg", "log_level", "model", "randomness"}
_SHARED: dict[str, _Rule] = {
    "data_root": (lambda value: isinstance(value, str), "a path; in quotes, a path may look like a list"),
    "num_slices": _FROM_1,
    "interp": (lambda value: isinstance(value, str), "the name of an interpolation"),
    "window_hu": (_is_window, "two numbers of HU, the lower first"),
    "num_tags": _FROM_1,
    "neg_weight": (_number(0), "numbers from 0"),
    "keep_prob": (_number(0, 1), "numbers from 0 to 1"),
}


def check_shared(name: str, value: Any, source: str) -> None:
    """Refuse a value of one of ``config_names.SHARED`` that none of its places can use; ``source`` says whose it is."""
    accepted, allowed = _SHARED[name]
    if not accepted(value):
        raise InputError(f"{source}: {name} is {value!r}; allowed is {allowed}")


def check_top(config: Mapping[str, Any]) -> None:
    """Refuse values at the top of a config that are of another kind than the runner takes, and None where it needs one.

    Raises:
        InputError: At the first such value.
    """
    for name in sorted(_NEEDED & config.keys()):
        if config[name] is None:
            raise InputError(f"{name} is None; allowed is a {'text' if name == 'log_level' else 'dict'}")
    for kinds, names in _TOP.items():
        for name in sorted(names & config.keys()):
            found = _kind(config[name])
            if found is not None and found not in kinds.split(" or "):
                said = kinds.replace("dict", "a dict").replace("container", "a list").replace("text", "a text")
                raise InputError(f"{name} is {config[name]!r:.80}; allowed is {said}")


def is_part(node: Any) -> bool:
    """Whether something can be built from this: a dict with a ``type``, or what is built already."""
    return "type" in node if isinstance(node, Mapping) else _kind(node) is None


def check_ranges(config: Mapping[str, Any]) -> None:
    """Refuse values that are out of range at the places that every run reads, and numbers that are none anywhere.

    Raises:
        InputError: At the first such value, with its place and what is allowed.
    """
    for name in sorted(_LOADERS):
        loader = config.get(name)
        for key in ("persistent_workers", "prefetch_factor"):
            if isinstance(loader, Mapping) and loader.get(key) and not loader.get("num_workers"):
                raise InputError(f"{name}.{key} is {loader[key]!r}, which needs num_workers from 1; there it is 0")
    for place, value in _leaves(config, ""):
        if isinstance(value, float) and math.isnan(value):
            raise InputError(f"{place} is nan; give a number")
        if value is None:
            continue
        for pattern, (accepted, allowed) in _RANGES.items():
            if re.fullmatch(pattern, place) and not accepted(value):
                raise InputError(f"{place} is {value!r}; allowed are {allowed}")


def check_kinds(place: str, name: str, node: Mapping[str, Any], entry: Any) -> None:
    """Refuse values of another kind than the arguments of a registered object are for.

    Only arguments whose signature names builtin kinds alone are checked, and lists and dicts are not told apart, nor is
    what is in them: hints of containers are often narrower than what is taken. None passes, too.

    Raises:
        InputError: At the first such value, with its place.
    """
    kinds = _kinds_of(entry)
    for key, value in node.items():
        allowed = kinds.get(key, frozenset())
        found = _kind(value)
        if "number" in allowed and found == "container":  # one for each
            continue
        if allowed and found and found not in allowed and (found in _SINGLE or allowed <= _SINGLE):
            said = " or ".join(_WORDS[kind] for kind in sorted(allowed))
            raise InputError(f"{place}.{key} is {value!r}; {name} takes {said}")


_WORDS = {"container": "a list", "dict": "a dict", "number": "a number", "text": "a text"}
_SINGLE = {"number", "text"}
_KINDS: dict[Any, str] = {
    int: "number", float: "number", bool: "number", str: "text", list: "container", tuple: "container", dict: "dict",
}  # fmt: skip
# What hints call them besides.
_ABSTRACT = {Sequence: "container", Iterable: "container", Mapping: "dict"}
# Packages that ask for a list or a dict only where nothing else will do; mmdet's YOLOFHead asks for one, and takes 512.
_EXACT = ("mmengine", "mmpluld", "torch")


def _kind(value: Any) -> str | None:
    """What a value is, None if nothing that is compared."""
    if isinstance(value, Mapping):
        return "dict"
    return next((kind for type_, kind in _KINDS.items() if isinstance(value, type_)), None)


@cache
def _kinds_of(entry: Any) -> dict[str, frozenset[str]]:
    """Kinds of the values that the arguments of a class or function take, where its signature says so."""
    functions = [entry]
    if inspect.isclass(entry):
        functions = [vars(base)["__init__"] for base in inspect.getmro(entry)[:-1] if "__init__" in vars(base)]
    kinds: dict[str, frozenset[str]] = {}
    for function in functions:  # a subclass says what its own arguments take
        try:
            hints = typing.get_type_hints(function)
            names = inspect.signature(function).parameters
        except (NameError, TypeError, ValueError, AttributeError):  # hints that cannot be evaluated say nothing
            continue
        for name in names:
            allowed = _allowed(hints[name]) if name in hints else frozenset()
            exact = allowed <= _SINGLE or function.__module__.partition(".")[0] in _EXACT
            kinds.setdefault(name, allowed if exact else frozenset())
    return kinds


def _allowed(hint: Any) -> frozenset[str]:
    """Kinds that a type hint admits; none if it holds anything that is not builtin."""
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        parts = [_allowed(part) for part in get_args(hint) if part is not type(None)]
        return frozenset().union(*parts) if all(parts) else frozenset()
    if origin is typing.Literal:
        return frozenset({"text"}) if all(isinstance(item, str) for item in get_args(hint)) else frozenset()
    kind = (_KINDS | _ABSTRACT).get(origin or hint)
    return frozenset({kind}) if kind else frozenset()


def _leaves(node: Any, place: str) -> Iterator[tuple[str, Any]]:
    """Dotted place and value of everything that is neither dict nor list."""
    items: Any = None
    if isinstance(node, Mapping):
        items = ((f"{place}.{key}" if place else str(key), value) for key, value in node.items())
    elif isinstance(node, (list, tuple)):
        items = ((f"{place}[{index}]", value) for index, value in enumerate(node))
    if items is None:
        yield place, node
        return
    for below, value in items:
        yield from _leaves(value, below)
