"""Other ways to train the same rows: what a recipe changes stands in one file and is merged over the config of any row.

``configs/_base_/recipes/<recipe>_<schedule>.py`` is for rows of that schedule. The config of a row with a recipe has a
name of its own, ``a3d_densenet121-fpn_paper_7s_20e_deeplesion``, and is no file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmpluld.engine.config_names import base_files, check_names, leaves, read_parts
from mmpluld.errors import InputError, did_you_mean
from mmpluld.zoo.index import zoo_root

__all__ = ["merge_recipe", "recipe_file", "recipe_name", "recipes_of"]

_RATE = re.compile(r"_lr-([\d.]+)_")
_ROW = re.compile(r"_(?=\d+s_(\d+e)_deeplesion$)")


def recipes_of(name: str) -> list[str]:
    """The recipes for the config of this name, by its schedule."""
    row = _ROW.search(name)
    if not row:
        return []
    ending = f"_{row[1]}.py"
    return [path.name.removesuffix(ending) for path in _files() if path.name.endswith(ending)]


def recipe_name(name: str, recipe: str) -> str:
    """Name of a row's config with a recipe; without one, that of the row."""
    return _ROW.sub(f"_{recipe}_", name) if recipe else name


def recipe_file(recipe: str, schedule: str) -> Path:
    """The file of a recipe for rows of a schedule.

    Raises:
        InputError: If there is none; the message names what there is.
    """
    known = {tuple(path.stem.rsplit("_", 1)): path for path in _files()}
    names = {name for name, _ in known}
    if recipe not in names:
        raise InputError(f"recipe {recipe!r} is not known" + did_you_mean(recipe, names, f"one of {', '.join(names)}"))
    if (recipe, schedule) not in known:
        schedules = ", ".join(other for name, other in known if name == recipe)
        raise InputError(f"recipe {recipe!r} is for rows of {schedules}, not of {schedule}; leave it out")
    return known[recipe, schedule]


def merge_recipe(config: Config, path: Path, recipe: str) -> None:
    """Merge a recipe over the config of a row, before its miniature is made.

    Args:
        config: What mmengine made of the row's file.
        path: That file.
        recipe: One of :func:`recipes_of`.

    Raises:
        InputError: If the row sets a value that the recipe would replace, or its name says one: that value is what the
            row is about.
    """
    row = _ROW.search(path.stem)
    file = recipe_file(recipe, row[1] if row else "")
    changes = Config.fromfile(file)
    check_names(file, changes)
    replaced = {place for place, _ in leaves(changes.to_dict())}
    rate = _RATE.search(path.stem)  # which may be what it inherits, too
    if rate and "optim_wrapper.optimizer.lr" in replaced:
        raise InputError(
            f"{path}: is about a learning rate of {rate[1]}, which recipe {recipe!r} would replace; it is no row to "
            "train by another recipe"
        )
    inherited: dict[str, Any] = {}
    for base in _foundation(path):
        inherited |= dict(leaves(read_parts(Config.fromfile(base, import_custom_modules=False).to_dict())))
    for place, value in leaves(read_parts(config.to_dict())):
        if place in replaced and inherited.get(place) != value:
            raise InputError(
                f"{path}: sets {place} = {value!r}, which recipe {recipe!r} would replace; it is no row to train by "
                "another recipe"
            )
    config.merge_from_dict(changes.to_dict())


def _files() -> list[Path]:
    return sorted((zoo_root() / "configs/_base_/recipes").glob("*.py"))


def _foundation(path: Path) -> Iterator[Path]:
    """The files in ``_base_`` folders that a config and the rows it inherits from are made of."""
    for base in base_files(path):
        if "_base_" in base.parts:
            yield base
        else:
            yield from _foundation(base)
