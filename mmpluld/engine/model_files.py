"""A published model as one file in a folder of the user's."""

from __future__ import annotations

from pathlib import Path

from mmpluld.engine.config_file import require_replaceable
from mmpluld.inputs import sha256_of
from mmpluld.outputs import check_output_folder
from mmpluld.typing import StrPath
from mmpluld.zoo.download import fetch, file_name
from mmpluld.zoo.index import get_model

__all__ = ["download_model"]


def download_model(name: str, dest: StrPath = ".", overwrite: bool = False) -> Path:
    """Put the bundle of a model into a folder.

    Args:
        name: Name in the zoo.
        dest: Folder; made if missing.
        overwrite: Replace a file of the same name that has other content.

    Returns:
        The bundle.

    Raises:
        InputError: Unknown name, no published weights, ``dest`` is a file, or the file there has other content.
        DownloadError: See :func:`mmpluld.zoo.fetch`.
    """
    model = get_model(name.removeprefix("zoo:"))
    url = model.weights_url
    folder = Path(dest)
    check_output_folder(folder)
    target = folder / file_name(url)
    require_replaceable(target, lambda: sha256_of(target) == model.sha256, overwrite)
    return fetch(url, target, model.sha256)
