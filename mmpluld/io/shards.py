"""Folders of one file of arrays a volume, below ``volumes`` of a store: written whole, read without pickle."""

from __future__ import annotations

import io
import os
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote, unquote

import numpy as np
import numpy.typing as npt

from mmpluld.atomic import TEMPORARY, atomic_path
from mmpluld.errors import InputError
from mmpluld.inputs import read_bytes
from mmpluld.progress import note
from mmpluld.typing import StrPath
from mmpluld.version import __version__

__all__ = ["note_version", "read_shard", "shard_path", "shard_volumes", "write_shard"]

_FOLDER, _SUFFIX = "volumes", ".npz"
# What zip, zlib and NumPy raise on bytes that were changed; encryption and packing that zip files may have and shards
# have not are a RuntimeError.
_DAMAGE = (OSError, ValueError, TypeError, EOFError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error)


def shard_path(folder: StrPath, volume: str) -> Path:
    """Where a store keeps the arrays of a volume; characters that names of files should not have are quoted."""
    name = quote(volume, safe=" ()+,=@", errors="surrogatepass")
    name = f"%2E{name[1:]}" if name.startswith(".") else name
    return Path(folder) / _FOLDER / f"{name}{_SUFFIX}"


def shard_volumes(folder: StrPath) -> list[str]:
    """Ids of the volumes that a store has arrays of, sorted."""
    try:
        names = [entry.name for entry in os.scandir(Path(folder) / _FOLDER)]
    except FileNotFoundError:
        return []
    return sorted(
        unquote(name.removesuffix(_SUFFIX), errors="surrogatepass")
        for name in names
        if name.endswith(_SUFFIX) and not name.startswith(TEMPORARY)
    )


def note_version(path: Path, header: Mapping[str, object]) -> None:
    """Say that a folder was begun by another version of the package, whose results may differ from ours.

    Args:
        path: File of the header, for the note.
        header: What it says; folders of early versions do not name theirs.
    """
    version = header.get("version")
    if version not in (None, __version__):
        note(f"{path}: begun by mmpluld {version}, goes on with {__version__}; another folder keeps the two apart")


def write_shard(folder: StrPath, volume: str, arrays: Mapping[str, npt.NDArray[np.generic]]) -> None:
    """Write the arrays of a volume, whole or not at all; equal arrays give equal bytes.

    Raises:
        InputError: The file cannot be written.
    """
    path = shard_path(folder, volume)
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            buffer = io.BytesIO()
            # Not np.savez, which pickles what is no plain array.
            np.lib.format.write_array(buffer, np.asarray(array, order="C"), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), buffer.getvalue(), zipfile.ZIP_DEFLATED)


def read_shard(
    folder: StrPath, volume: str, wanted: Mapping[str, tuple[str, tuple[str | int, ...]]], remedy: str
) -> dict[str, npt.NDArray[np.generic]]:
    """Read the arrays of a volume.

    Args:
        folder: The store.
        volume: Id of the volume.
        wanted: Name -> (type as NumPy names it, shape); a letter in a shape is a size that is the same wherever it
            stands, and the type ``str`` means a text of any length, such as
            ``{"boxes": ("float32", ("N", 4)), "scores": ("float32", ("N",))}``.
        remedy: What to do about a faulty file, for the message.

    Raises:
        InputError: The file is missing, damaged, or holds something else.
    """
    path = shard_path(folder, volume)
    data = read_bytes(path, f"a store that has volume {volume!r}; {remedy}")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            # Not np.load, which parses an array's head before its checksum is compared.
            members = {name.removesuffix(".npy"): archive.read(name) for name in archive.namelist()}
        found = {name: np.lib.format.read_array(io.BytesIO(read)) for name, read in members.items()}
    except _DAMAGE as error:
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        raise InputError(f"{path}: damaged ({reason}); {remedy}") from error
    if found.keys() != wanted.keys():
        raise InputError(f"{path}: holds {', '.join(sorted(found))}; needed are {', '.join(sorted(wanted))}, {remedy}")
    sizes: dict[str, int] = {}
    for name, (kind, shape) in wanted.items():
        array = found[name]
        fits = (array.dtype.kind == "U" if kind == "str" else array.dtype == kind) and array.ndim == len(shape)
        for size, given in zip(shape, array.shape, strict=False):
            fits = fits and given == (sizes.setdefault(size, given) if isinstance(size, str) else size)
        if not fits:
            text = ", ".join(map(str, shape))
            raise InputError(f"{path}: {name} is {array.dtype} {array.shape}; needed is {kind} ({text}), {remedy}")
    return found
