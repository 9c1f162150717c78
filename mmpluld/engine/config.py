"""Finding and reading configs, in the papers' size or in miniature."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.utils import import_modules_from_strings

from mmpluld.engine.config_names import (
    RUNNER_KEYS,
    SHARED,
    TWIN_KEYS,
    base_files,
    check_names,
    keep_runner_keys,
    leaves,
    places,
    read_parts,
    set_shared,
)
from mmpluld.engine.config_values import check_shared
from mmpluld.engine.option_values import parse_value
from mmpluld.engine.recipes import merge_recipe, recipe_name, recipes_of
from mmpluld.errors import InputError, alike, did_you_mean, name_some, suggest
from mmpluld.typing import StrPath
from mmpluld.zoo.index import zoo_root

__all__ = [
    "FoundConfig",
    "apply_options",
    "find_config",
    "has_twin",
    "import_custom",
    "is_twin",
    "load_config",
    "twin_name",
]

_TWIN_END = "_phantom"
_LOGGER = logging.getLogger(__name__)


def twin_name(name: str) -> str:
    """Name of the miniature of a config of the zoo: ``a3d_..._7s_20e_deeplesion`` has ``a3d_..._7s_phantom``."""
    return re.sub(r"(_\d+e)?_deeplesion$", "", name) + _TWIN_END


def is_twin(name: str) -> bool:
    """Whether a name of the zoo is that of a miniature."""
    return name.endswith(_TWIN_END)


@dataclass(frozen=True)
class FoundConfig:
    """A config file, whether its miniature is meant, and the recipe to train it by if not its own."""

    path: Path
    twin: bool = False
    recipe: str = ""

    @property
    def name(self) -> str:
        """Name of the file without its ending, with the recipe's in it, or of its miniature."""
        stem = recipe_name(self.path.stem, self.recipe)
        return stem if not self.twin or is_twin(stem) else twin_name(stem)


def has_twin(path: Path) -> bool:
    """Whether a config file has a miniature."""
    return any(key in Config.fromfile(path) for key in TWIN_KEYS)


def find_config(config: StrPath, twin: bool = False) -> FoundConfig:
    """Find a config by its path or its name in the zoo.

    A name of the zoo is the name of a file with or without ``.py``, or the path that the zoo itself gives it
    (``configs/METHOD/NAME.py``). Any other path that is missing is missing, whatever its last part is called. A row has
    further names, one for each recipe that it can be trained by (:mod:`mmpluld.engine.recipes`).

    Args:
        config: Path or name. A name of the zoo that ends in ``_phantom`` means a miniature.
        twin: Whether the miniature is meant, whatever the name.

    Raises:
        InputError: If there is no such file; the message names the nearest config of the zoo.
    """
    path = Path(config)
    name = path.name.removesuffix(".py")
    if path.is_file():
        return FoundConfig(path, twin)
    if path.is_dir():
        raise InputError(f"{config}: is a folder; give a config file in it, or a name of the zoo")
    zoo: dict[str, FoundConfig] = {}
    for found in sorted((zoo_root() / "configs").rglob("*.py")):
        if "_base_" not in found.parts:
            for recipe in ("", *recipes_of(found.stem)):
                full = recipe_name(found.stem, recipe)
                zoo[full] = FoundConfig(found, twin, recipe)
                zoo[twin_name(full)] = FoundConfig(found, True, recipe)
    is_name = os.fspath(config) in (name, f"{name}.py")
    if name in zoo and (is_name or path.parent == zoo[name].path.parent.relative_to(zoo_root())):
        return zoo[name]
    if name in zoo:
        hint = f"; the zoo's config of this name is `{name}` or {zoo[name].path}"
    else:
        hint = f"; {suggest(alike(name, zoo), 'give a path, or a name that `mmpluld models` lists')}"
    raise InputError(f"{config}: no such config file{hint}")


def load_config(config: StrPath | FoundConfig, cfg_options: Sequence[str] | None = None, twin: bool = False) -> Config:
    """Read a config and apply changes given as ``key.sub=value``.

    What comes back is plain and complete: the keys that a run reads, with every value in its place.

    Args:
        config: Path, name in the zoo, or what :func:`find_config` returned.
        cfg_options: Changes, applied last. A name of ``config_names.SHARED`` sets every argument of that name.
        twin: Read the miniature: what the bases carry under ``twin_model``, ``twin_data``, ``twin_source`` and
            ``twin_schedule``, and the config itself under ``twin``, is merged in this order. Shared values at the
            config's top stay, and with a ``data_root`` of its own the data do: ``twin_source`` is left out.

    Raises:
        InputError: If the file or one of its bases is missing or broken, a name at its top or a change has no effect,
            or there is no miniature.
    """
    found = config if isinstance(config, FoundConfig) else find_config(config, twin)
    if not found.path.is_file():
        raise InputError(f"{found.path}: no such config file")
    try:
        loaded = Config.fromfile(found.path, import_custom_modules=False)
        import_custom(loaded)
        _drop_scope(loaded._cfg_dict)
        check_names(found.path, loaded)
        if found.recipe:
            merge_recipe(loaded, found.path, found.recipe)
    except InputError:
        raise
    except (Exception, SystemExit) as error:  # a config is a program: anything can happen in it
        reason = " ".join(str(error).split())
        if f"{_TWIN_END}.py" in reason:
            reason += " (a miniature is no file: inherit from its row, or write it with `mmpluld config NAME --twin`)"
        raise InputError(f"{found.path}: cannot be read as a config: {type(error).__name__}: {reason}") from error
    parts = {key: loaded._cfg_dict.pop(key) for key in TWIN_KEYS if key in loaded}
    twins = {key: part for key, part in parts.items() if part is not None}
    own = _settle_shared(loaded, str(found.path))
    if found.twin:
        _shrink(loaded, twins, own, found)
    if found.name != found.path.stem:  # a run writes its config under this name
        renamed = str(found.path.with_name(f"{found.name}.py"))
        loaded = Config(loaded._cfg_dict, cfg_text=loaded.text, filename=renamed)
    apply_options(loaded, cfg_options or (), found.path)
    keep_runner_keys(loaded)
    return loaded


def _shrink(config: Config, twins: Mapping[str, Any], own: Mapping[str, Any], found: FoundConfig) -> None:
    """Make a config its miniature; ``own`` are the shared values that it sets at its top."""
    if not twins:
        raise InputError(
            f"{found.path}: has no miniature: none of {', '.join(TWIN_KEYS)}; inherit from a config of the zoo (a "
            "miniature that was written out is plain, and read without --twin)"
        )
    before = config.to_dict()
    for key, part in twins.items():
        unread = sorted(set(part) - RUNNER_KEYS - set(SHARED))
        if unread:
            raise InputError(f"{found.path}: {key}.{unread[0]} has no effect, no run reads it")
        if key == "twin_source" and "data_root" in own:
            continue  # data of its own, not the phantom's
        try:
            config.merge_from_dict(_copy(part))
        except (AttributeError, KeyError, TypeError) as error:
            raise InputError(f"{found.path}, miniature: {key} does not fit the config: {error}") from error
        _settle_shared(config, f"{found.path}, miniature", () if key == "twin" else own)
    if zoo_root() not in found.path.resolve().parents:
        _note_replaced(before, config.to_dict(), found.path)


def _note_replaced(before: Mapping[str, Any], after: Mapping[str, Any], path: Path) -> None:
    """Say which values of a user's config its miniature does not have."""
    bases: dict[str, Any] = {}
    for base in base_files(path):
        bases |= Config.fromfile(base, import_custom_modules=False).to_dict()
    inherited, own, kept = (dict(leaves(read_parts(node))) for node in (bases, before, after))
    lost = [place for place, value in own.items() if inherited.get(place) != value and kept.get(place) != value]
    if lost:
        _LOGGER.warning(
            "%s: the miniature has values of its own for %s; `twin = dict(...)` sets them", path, name_some(lost, 4)
        )


def import_custom(config: Config) -> None:
    """Import what the config asks for, also modules beside it, wherever the command was called.

    Raises:
        InputError: A module cannot be imported, or ``custom_imports`` is no dict of names of modules.
    """
    if not config.get("custom_imports"):
        return
    folder = str(Path(config.filename).resolve().parent) if config.filename else ""
    if folder and folder not in sys.path:
        sys.path.append(folder)  # last, so that a file there hides no package
    try:
        import_modules_from_strings(**config.custom_imports)
    except (ImportError, TypeError) as error:
        raise InputError(
            f"{config.filename or 'config'}: custom_imports: {error}; put the module beside the config or name its "
            "folder in PYTHONPATH"
        ) from error
    imports = config.custom_imports["imports"]
    for name in [imports] if isinstance(imports, str) else imports:
        _refuse_namesake(name, Path(folder), config.filename)


def _refuse_namesake(name: str, folder: Path, config: str | None) -> None:
    """Refuse a module that is another than the one beside the config: Python imports a name once, from one place."""
    place = folder.joinpath(*name.split("."))
    own = next((path for path in (place.with_suffix(".py"), place / "__init__.py") if path.is_file()), None)
    taken = getattr(sys.modules.get(name), "__file__", None)
    if own is not None and taken is not None and not own.samefile(taken):
        raise InputError(
            f"{config}: custom_imports: {name} is {own}, but this process has {taken} under that name; give one of "
            "the modules another name, or run them in separate processes"
        )


def _drop_scope(node: Any) -> None:
    """Take out what mmengine adds below ``_base_ = "mmpluld::..."``: our scope is the default one anyway."""
    if isinstance(node, dict):
        if node.get("_scope_") == "mmpluld":
            del node["_scope_"]
        node = node.values()
    if not isinstance(node, str) and isinstance(node, Iterable):
        for value in node:
            _drop_scope(value)


def _settle_shared(config: Config, source: str, kept: Container[str] = ()) -> dict[str, Any]:
    """Set the shared values at the top of a config everywhere, but those that are ``kept``; return them."""
    settled = {name: config._cfg_dict.pop(name) for name in SHARED if name in config}
    for name, value in settled.items():
        check_shared(name, value, source)
        if name not in kept:
            set_shared(config, name, value, source)
    return settled


def _copy(node: Any) -> Any:
    """A copy in which no dict stands twice: merging takes ``_delete_`` out of the dicts that it is given."""
    if isinstance(node, Mapping):
        return {key: _copy(value) for key, value in node.items()}
    return type(node)(map(_copy, node)) if isinstance(node, (list, tuple)) else node


def apply_options(config: Config, cfg_options: Sequence[str], path: Path) -> None:
    """Change a loaded config.

    Args:
        config: The config.
        cfg_options: Changes as "key.sub=value" strings; a name of ``config_names.SHARED`` sets every argument of it.
        path: Its file, for messages.

    Raises:
        InputError: A change has no effect, or does not fit.
    """
    for option in cfg_options:
        key, separator, text = option.partition("=")
        if not separator or not all(key.split(".")):
            raise InputError(f"--cfg-options {option}: write key=value, for example train_cfg.max_epochs=2")
        value = parse_value(key, text)
        if key in SHARED:
            check_shared(key, value, "--cfg-options")
            set_shared(config, key, value, f"--cfg-options {key}")
            continue
        _check_reached(config, key)
        _make_room(config._cfg_dict, key)
        try:
            config.merge_from_dict({key: value})
        except (AttributeError, KeyError, TypeError, IndexError, ValueError) as error:
            raise InputError(f"--cfg-options {option}: does not fit {path}: {error}") from error


def _make_room(node: Any, key: str) -> None:
    """Put a dict where a config has None and a change goes below it: mmengine merges into dicts alone."""
    first, _, rest = key.partition(".")
    if rest and isinstance(node, dict) and first in node:
        if node[first] is None:
            node[first] = ConfigDict()
        _make_room(node[first], rest)


def _check_reached(config: Config, key: str) -> None:
    """Refuse a change of something that no run reads."""
    top, _, rest = key.partition(".")
    if top in RUNNER_KEYS:
        return
    found = places(read_parts(config), (rest or top).rpartition(".")[2])
    if top in SHARED:
        raise InputError(f"--cfg-options {key}: {top} is one value; write {top}=VALUE")
    otherwise = f"set {' or '.join(found)}" if found else "see the keys with `mmpluld config`"
    hint = did_you_mean(top, RUNNER_KEYS | set(SHARED), otherwise, cutoff=0.8)
    raise InputError(f"--cfg-options {key}: has no effect, no run reads {top!r}{hint}")
