"""A model of the zoo as two files that stand alone: its weights and its complete config."""

from __future__ import annotations

import os
from pathlib import Path

from mmpluld.atomic import atomic_write_text
from mmpluld.engine.config import FoundConfig, is_twin, load_config
from mmpluld.errors import InputError
from mmpluld.outputs import check_output_folder
from mmpluld.zoo.download import fetch, file_name, sha256_of
from mmpluld.zoo.index import ZooModel, get_model

__all__ = ["download_model"]


def _found(model: ZooModel) -> FoundConfig:
    """The config of a model; that of a miniature is its row's."""
    path = model.root / model.config
    return FoundConfig(path, twin=is_twin(model.name) and path.stem != model.name)


def download_model(name: str, dest: str | os.PathLike[str] = ".", overwrite: bool = False) -> tuple[Path, Path]:
    """Put weights and complete config of a model into a folder.

    Args:
        name: Name in the zoo.
        dest: Folder; made if missing.
        overwrite: Replace files of the same names that have other content.

    Returns:
        The checkpoint, and the config with all its bases resolved into one file, ``<name>.py``.

    Raises:
        InputError: Unknown name, no published weights, ``dest`` is a file, or a file there has other content.
        DownloadError: See :func:`mmpluld.zoo.fetch`.
    """
    model = get_model(name)
    url = model.weights_url
    folder = Path(dest)
    check_output_folder(folder)
    weights, config = folder / file_name(url), folder / f"{model.name}.py"
    text = load_config(_found(model)).pretty_text
    for path, same in (
        (weights, lambda: sha256_of(weights) == model.sha256),
        (config, lambda: config.read_bytes() == text.encode()),
    ):
        if path.exists() and not overwrite and not (path.is_file() and same()):
            raise InputError(f"{path}: is there with other content; --overwrite replaces it")
    fetch(url, weights, model.sha256)
    atomic_write_text(config, text)
    return weights, config
