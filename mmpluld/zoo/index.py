"""The index of the zoo: the ``metafile.yml`` of each method's folder of configs, in OpenMMLab's format."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import yaml

from mmpluld.errors import InputError, did_you_mean
from mmpluld.structures.text_files import read_text

__all__ = [
    "IMAGE",
    "PAPER",
    "VOLUME",
    "Result",
    "Scale",
    "ZooModel",
    "default_model",
    "dump_metafile",
    "get_model",
    "load_index",
    "load_metafile",
    "zoo_root",
]

PAPER = " (paper)"  # ends the name of a metric that was copied from a paper, not measured with this package


@dataclass(frozen=True)
class Scale:
    """What false positives are counted per in a table of the papers.

    Attributes:
        per: ``image`` or ``volume``.
        levels: False positives per image or volume, at which sensitivity is told.
        headline: Those that the mean is over.
        prefix: Begins the names of the metrics.
    """

    per: Literal["image", "volume"]
    levels: tuple[float, ...]
    headline: tuple[float, ...]
    prefix: str = ""

    @property
    def names(self) -> list[str]:
        """Names of the sensitivities, by level."""
        return [self.name(level) for level in self.levels]

    def name(self, level: float) -> str:
        """Name of the sensitivity at a level."""
        return f"Sens{self.prefix}@{level:g}"

    @property
    def mean_of(self) -> str:
        """The levels of the mean, in words."""
        return f"{self.headline[0]:g}-{self.headline[-1]:g}"

    @property
    def average(self) -> str:
        """Name of the mean."""
        return f"Avg{self.prefix}@{self.mean_of}"


IMAGE = Scale("image", (0.5, 1, 2, 4, 8, 16), (0.5, 1, 2, 4))
VOLUME = Scale("volume", (0.125, 0.25, 0.5, 1, 2, 4, 8), (0.125, 0.25, 0.5, 1, 2, 4, 8), "3D")


@dataclass(frozen=True)
class Result:
    """Figures of one model on one dataset.

    Attributes:
        dataset: Name of the test data.
        metrics: Name -> value; sensitivities in per cent.
        paper: The figures are a paper's, not measured with this package.
    """

    dataset: str
    metrics: Mapping[str, float]
    paper: bool

    @property
    def source(self) -> str:
        """Where the figures are from: ``paper`` or ``measured``."""
        return "paper" if self.paper else "measured"

    @property
    def scale(self) -> Scale:
        """What false positives are counted per."""
        return VOLUME if any(name in self.metrics for name in (*VOLUME.names, VOLUME.average)) else IMAGE

    @property
    def average(self) -> float | None:
        """Mean sensitivity over the headline levels as the source gives it, or None."""
        return self.metrics.get(self.scale.average)


@dataclass(frozen=True)
class ZooModel:
    """One entry of the index.

    Attributes:
        name: That of the config file without ``.py``.
        collection: The method it belongs to.
        config: Path of the config below the root of the zoo.
        metadata: What else the index says, as written.
        results: Figures of papers first.
        weights: Address of the bundle: http(s), file URL, or a path below the root of the zoo; None where there are
            no published weights.
        sha256: Digest of the bundle, 64 lower-case hexadecimal digits; empty without weights.
        size: Bytes of the bundle; 0 without weights.
        root: Folder that ``config`` and a relative ``weights`` start from.
    """

    name: str
    collection: str
    config: str
    metadata: Mapping[str, Any]
    results: tuple[Result, ...]
    weights: str | None
    sha256: str
    size: int
    root: Path

    @property
    def shipped(self) -> bool:
        """Whether the weights come with the package and need no network."""
        return self.weights is not None and "://" not in self.weights

    @property
    def default(self) -> bool:
        """Whether detection takes this model if none is named."""
        return self.metadata.get("Default") is True

    @property
    def weights_text(self) -> str:
        """Size of the weights in words; empty without weights."""
        notes = [text for text, holds in (("shipped", self.shipped), ("default", self.default)) if holds]
        return ", ".join([f"{self.size / 1e6:.1f} MB", *notes]) if self.weights else ""

    @property
    def weights_url(self) -> str:
        """Where to fetch the weights from.

        Raises:
            InputError: If no weights are published.
        """
        if self.weights is None:
            raise InputError(
                f"{self.name}: no weights are published; train them with `mmpluld train {self.name}`, or choose a "
                "model that `mmpluld models` lists with weights"
            )
        return str(self.root / self.weights) if self.shipped else self.weights


def zoo_root() -> Path:
    """Folder of ``configs`` and ``checkpoints``: ``.mim`` in an installed wheel, else the checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / ".mim" / "model-index.yml"  # a link to the original in an editable install
    return installed.resolve().parent if installed.is_file() else package.parent


def load_index(root: str | os.PathLike[str] | None = None) -> dict[str, ZooModel]:
    """Read the index of the zoo.

    Args:
        root: Folder of ``configs``; by default that of this package.

    Returns:
        Models by name, in the order of the folders and of their files.

    Raises:
        InputError: If a file is missing or malformed; the message names file and entry.
    """
    folder = zoo_root() if root is None else Path(root)
    metafiles = sorted(folder.glob("configs/*/metafile.yml"))
    if not metafiles:
        raise InputError(f"{folder}: holds no configs/*/metafile.yml; install the package anew")
    states = [path.stat() for path in metafiles]
    return dict(_read_index(folder, tuple(metafiles), tuple((state.st_mtime_ns, state.st_size) for state in states)))


@lru_cache(maxsize=1)
def _read_index(folder: Path, metafiles: tuple[Path, ...], states: tuple[tuple[int, int], ...]) -> dict[str, ZooModel]:
    """Models by name; read once for as long as the files are as they were, since YAML takes its time."""
    models: dict[str, ZooModel] = {}
    for path in metafiles:
        for entry in load_metafile(path)["Models"]:
            model = _model(entry, path, folder)
            if model.name in models:
                raise InputError(f"{path}: model {model.name!r} is listed twice; names are unique in the whole index")
            models[model.name] = model
    return models


def get_model(name: str) -> ZooModel:
    """The model of this name.

    Raises:
        InputError: If there is none; the message names the nearest.
    """
    models = load_index()
    if name in models:
        return models[name]
    hint = did_you_mean(name, models, "`mmpluld models` lists them")
    raise InputError(f"{name!r} is no model of the zoo{hint}")


def default_model() -> ZooModel:
    """The model that detection takes if none is named: the one whose entry says ``Metadata: Default: true``.

    Raises:
        InputError: If there is none, or several.
    """
    marked = [model for model in load_index().values() if model.default]
    if len(marked) != 1:
        names = ", ".join(model.name for model in marked) or "none"
        raise InputError(f"the index marks {names} as default, needed is one model; name a model with --model")
    return marked[0]


def load_metafile(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read one ``metafile.yml`` as plain values.

    Raises:
        InputError: If it cannot be read or has no list of models.
    """
    content = _read(Path(path))
    for key in ("Collections", "Models"):
        if not isinstance(content.get(key), list):
            raise InputError(f"{path}: {key!r} must be a list; see the other metafiles of configs/")
    return content


def dump_metafile(content: Mapping[str, Any]) -> str:
    """A metafile as text, always laid out in the same way."""
    return str(yaml.safe_dump(dict(content), sort_keys=False, width=120, allow_unicode=True))


def _read(path: Path) -> dict[str, Any]:
    text = read_text(path, "the zoo's index whole, install the package anew")
    try:
        content = yaml.safe_load(text)
    except RecursionError:
        raise InputError(f"{path}: not readable as YAML (nested too deep); correct the file") from None
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, KeyError) as error:  # the last: odd tags and dates
        raise InputError(f"{path}: not readable as YAML ({' '.join(str(error).split())}); correct the file") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}, not a mapping; see the metafiles of configs/")
    return content


def _model(entry: Any, path: Path, root: Path) -> ZooModel:
    """One checked entry."""
    if not isinstance(entry, dict):
        raise InputError(f"{path}: an entry of 'Models' is no mapping: {entry!r}")
    name = entry.get("Name")
    where = f"{path}: model {name!r}"
    for key, kind in (("Name", str), ("In Collection", str), ("Config", str), ("Metadata", dict)):
        if not isinstance(entry.get(key), kind):
            raise InputError(f"{where}: {key!r} is {entry.get(key)!r}, must be a {kind.__name__}")
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", entry["Name"]):
        raise InputError(f"{where}: a name is lower-case letters, digits, '.', '_' and '-'")
    metadata, weights = entry["Metadata"], entry.get("Weights")
    sha256, size = metadata.get("SHA256", ""), metadata.get("Size", 0)
    if weights is not None:
        if not (isinstance(sha256, str) and re.fullmatch("[0-9a-f]{64}", sha256)):
            raise InputError(f"{where}: Metadata.SHA256 is {sha256!r}, must be 64 lower-case hexadecimal digits")
        if not (isinstance(size, int) and size > 0):
            raise InputError(f"{where}: Metadata.Size is {size!r}, must be the bytes of the weights")
        if not re.fullmatch(rf"[\w.-]+-{sha256[:8]}\.zip", str(weights).rpartition("/")[2]):
            raise InputError(f"{where}: the file name of {weights!r} must end in -{sha256[:8]}.zip, after its SHA256")
    if metadata.get("Default", False) not in (True, False) or (metadata.get("Default") and weights is None):
        raise InputError(f"{where}: Metadata.Default is {metadata['Default']!r}, must be true, of a model with weights")
    listed = entry.get("Results", [])
    if not isinstance(listed, list):
        raise InputError(f"{where}: 'Results' is {listed!r}, must be a list")
    results = [result for item in listed for result in _results(item, where)]
    return ZooModel(
        name=entry["Name"],
        collection=entry["In Collection"],
        config=entry["Config"],
        metadata=metadata,
        results=tuple(sorted(results, key=lambda result: not result.paper)),
        weights=weights,
        sha256=sha256 if weights else "",
        size=size if weights else 0,
        root=root,
    )


def _results(item: Any, where: str) -> list[Result]:
    """A result of the index, split into the paper's figures and our own."""
    if not (isinstance(item, dict) and isinstance(item.get("Metrics"), dict) and isinstance(item.get("Dataset"), str)):
        raise InputError(f"{where}: a result needs 'Task', 'Dataset' and 'Metrics', found {item!r}")
    split: dict[bool, dict[str, float]] = {True: {}, False: {}}
    for key, value in item["Metrics"].items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise InputError(f"{where}: metric {key!r} is {value!r}, must be a number")
        split[key.endswith(PAPER)][key.removesuffix(PAPER)] = float(value)
    return [Result(item["Dataset"], metrics, paper) for paper, metrics in split.items() if metrics]
