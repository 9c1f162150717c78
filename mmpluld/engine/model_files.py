"""A model of the zoo as two files that stand alone: its weights and its complete config."""

from __future__ import annotations

import os
from pathlib import Path

from mmpluld.engine.config import FoundConfig, is_twin, load_config
from mmpluld.engine.config_file import require_replaceable, write_config
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
    weights, target = folder / file_name(url), folder / f"{model.name}.py"
    config = load_config(_found(model))
    # Both before the first is written.
    require_replaceable(weights, lambda: sha256_of(weights) == model.sha256, overwrite)
    require_replaceable(target, lambda: target.read_bytes() == str(config.pretty_text).encode(), overwrite)
    fetch(url, weights, model.sha256)
    return weights, write_config(config, target, overwrite)
