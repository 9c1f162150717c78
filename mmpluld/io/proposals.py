"""Proposals on disk: every 2D box that a detector's experts find in the volumes of an annotation file.

A store is a folder: ``proposals.json`` says what was examined by what, ``volumes/<volume id>.npz`` holds one volume
each. A shard is written whole or not at all and depends on no other, so any number of processes may write shards of one
store, and whoever reads it holds one volume at a time.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmpluld.atomic import atomic_write_text
from mmpluld.errors import InputError, counted
from mmpluld.io.shards import note_version, read_shard, shard_path, shard_volumes, write_shard
from mmpluld.structures.text_files import read_json
from mmpluld.typing import BoolArray, FloatArray, IntArray, StrPath
from mmpluld.version import __version__

__all__ = ["SCHEMA", "ProposalHeader", "ProposalStore", "VolumeProposals"]

SCHEMA = "mmpluld.proposals/1"
_HEADER = "proposals.json"
_WHAT = f"a folder that `mmpluld propose` made, with {_HEADER}"
_NAMES = ("config", "checkpoint", "annotations")  # of files, beside the SHA-256 of what is in them
_DIGEST = "_sha256"
_AGAIN = "remove it and run `mmpluld propose` again, which makes what is missing"
# Number of columns (0: a vector) and type on disk of the arrays of a shard; in memory they have 64 bits.
_ARRAYS: dict[str, tuple[int, type[np.generic]]] = {
    "runs": (2, np.int32),
    "boxes": (4, np.float32),
    "scores": (0, np.float32),
    "expert": (0, np.int32),
    "run": (0, np.int32),
    "grid": (0, np.int32),
    "slice": (0, np.int32),
    "tracklet": (0, np.int32),
}
# The same and the rest of a shard, as `read_shard` is told it.
_SHARD: dict[str, tuple[str, tuple[str | int, ...]]] = {
    **{
        name: (kind.__name__, ("R" if name == "runs" else "N", *([columns] if columns else [])))
        for name, (columns, kind) in _ARRAYS.items()
    },
    "gap_mm": ("float64", ()),
    "interval_mm": ("float64", ()),
    "volume": ("str", ()),
}


@dataclass(frozen=True)
class VolumeProposals:
    """What the experts of a detector found in one volume, before their fusion, and the tracklets after it.

    Attributes:
        volume: Id of the volume in the annotation file.
        gap_mm: Distance of the grid slices.
        interval_mm: Distance of the scan's slices.
        runs: (R, 2) number of the first slice and number of slices of each uninterrupted run of the series; each has a
            grid of its own, ``GridMap(number of slices, interval_mm, gap_mm)``.
        boxes: (N, 4) x1, y1, x2, y2, pixel edges of the volume; float32 on disk.
        scores: (N,) scores in [0, 1]; float32 on disk.
        expert: (N,) whose the box is, number in :attr:`ProposalStore.experts`.
        run: (N,) row of ``runs``.
        grid: (N,) position on the grid of that run, from 0.
        slice: (N,) number of the scan slice nearest to it (``GridMap.slices_to_scan``).
        tracklet: (N,) number of the box's tracklet in the volume, from 0; -1 for a box that the fusion of the experts
            suppressed or that scores too little to be linked.
    """

    volume: str
    gap_mm: float
    interval_mm: float
    runs: IntArray
    boxes: FloatArray
    scores: FloatArray
    expert: IntArray
    run: IntArray
    grid: IntArray
    slice: IntArray
    tracklet: IntArray

    @property
    def num_tracklets(self) -> int:
        """How many tracklets there are."""
        return int(self.tracklet.max(initial=-1)) + 1

    def of_expert(self, number: int) -> VolumeProposals:
        """The boxes of one expert."""
        own = self.expert == number
        columns = ("boxes", "scores", "expert", "run", "grid", "slice", "tracklet")
        return replace(self, **{name: getattr(self, name)[own] for name in columns})

    def tracklet_boxes(self, box_score: float = 0.0) -> BoolArray:
        """Which boxes (N,) are in a tracklet, from its first to its last that scores at least ``box_score``."""
        good = (self.tracklet >= 0) & (self.scores >= box_score)
        first = np.full(self.num_tracklets + 1, np.iinfo(np.int64).max)
        last = np.full(self.num_tracklets + 1, -1)
        np.minimum.at(first, self.tracklet[good], self.grid[good])
        np.maximum.at(last, self.tracklet[good], self.grid[good])
        within = (self.grid >= first[self.tracklet]) & (self.grid <= last[self.tracklet])
        return np.asarray(within & (self.tracklet >= 0), dtype=np.bool_)

    def fault(self, num_experts: int) -> str:
        """What contradicts the description above, in words; empty if nothing does."""
        count = len(self.scores)
        for name, (columns, _) in _ARRAYS.items():
            value = getattr(self, name)
            wanted = (len(value) if name == "runs" else count, *([columns] if columns else []))
            if value.shape != wanted:
                return f"{name} has shape {value.shape}, needed is {wanted}"
        if not (np.isfinite([self.gap_mm, self.interval_mm]).all() and min(self.gap_mm, self.interval_mm) > 0):
            return f"gap_mm is {self.gap_mm:g}, interval_mm {self.interval_mm:g}; both are numbers above 0"
        if not (np.isfinite(self.boxes).all() and np.isfinite(self.scores).all()):
            return "boxes and scores are not all finite"
        if count and not (self.boxes[:, 2:] > self.boxes[:, :2]).all():
            return "a box has no area"
        if count and not 0 <= self.scores.min() <= self.scores.max() <= 1:
            return f"scores go from {self.scores.min():g} to {self.scores.max():g}, allowed is 0 to 1"
        limits = {"expert": num_experts, "run": len(self.runs)}
        for name in ("expert", "run", "grid", "slice", "tracklet"):
            value, least = getattr(self, name), -1 if name == "tracklet" else None if name == "slice" else 0
            if least is not None and (value < least).any():
                return f"{name} goes down to {value.min()}, below {least}"
            if name in limits and (value >= limits[name]).any():
                return f"{name} goes up to {value.max()}, there are {limits[name]}"
        first, length = self.runs[self.run].T if count else np.zeros((2, 0), np.int64)
        if ((self.slice < first) | (self.slice >= first + length)).any():
            return "a box lies on a slice outside its run"
        linked = np.flatnonzero(self.tracklet >= 0)
        places = np.stack([self.tracklet[linked], self.run[linked], self.grid[linked]])
        if np.unique(places, axis=1).shape[1] < len(linked):
            return "a tracklet has two boxes on one slice"
        return ""


@dataclass(frozen=True)
class ProposalHeader:
    """What proposals were made of and how; two stores with equal headers hold the same.

    Attributes:
        config: Name of the config.
        config_sha256: Of those of its values that decide what is found.
        checkpoint: Name of the file of weights.
        checkpoint_sha256: Of that file.
        annotations: Name of the annotation file.
        annotations_sha256: Of that file.
        experts: Names of the datasets, one expert each.
        settings: The rules by which boxes are linked into tracklets.
        precision: ``fp32`` or ``bf16``.
        fold: ``[k, K, seed]`` if the volumes are those of the patients of fold k of K only; None: all.
    """

    config: str
    config_sha256: str
    checkpoint: str
    checkpoint_sha256: str
    annotations: str
    annotations_sha256: str
    experts: tuple[str, ...]
    settings: dict[str, Any]
    precision: str = "fp32"
    fold: tuple[int, int, int] | None = None

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        plain: dict[str, Any] = json.loads(json.dumps({"schema": SCHEMA, **asdict(self)}))
        return plain


class ProposalStore:
    """A folder of proposals, one shard a volume.

    Args:
        folder: Folder that :meth:`create` or ``mmpluld propose`` made.

    Attributes:
        header: What the proposals were made of.

    Raises:
        InputError: It holds no proposals, or a header that is not one.
    """

    def __init__(self, folder: StrPath) -> None:
        self.folder = Path(folder)
        path = self.folder / _HEADER
        self.header = _parse(read_json(path, _WHAT), path)

    @classmethod
    def create(cls, folder: StrPath, header: ProposalHeader) -> ProposalStore:
        """Make a store, or open the one that is there and has an equal header, whatever the files are called.

        Raises:
            InputError: The one that is there is of something else, or the folder cannot be written to.
        """
        path = Path(folder) / _HEADER
        begun = path.exists()
        if not begun:
            if shard_volumes(folder):
                raise InputError(f"{path}: is gone, but the folder holds shards; restore it, or choose another folder")
            atomic_write_text(path, json.dumps(header.plain() | {"version": __version__}, indent=1) + "\n")
        store = cls(folder)
        found, wanted = store.header.plain(), header.plain()
        for name, value in wanted.items():
            if name not in _NAMES and found[name] != value:
                raise InputError(
                    f"{path}: these proposals are of {name.removesuffix(_DIGEST)} {_named(name, found)}, not "
                    f"{_named(name, wanted)}{_of_one_name(name, found, wanted)}; choose another folder, or remove this "
                    "one"
                )
        if begun:
            note_version(path, read_json(path, _WHAT))
        return store

    @property
    def experts(self) -> tuple[str, ...]:
        """Names of the datasets, one expert each, in the order of :attr:`VolumeProposals.expert`."""
        return self.header.experts

    @property
    def volumes(self) -> list[str]:
        """Ids of the volumes with a shard, sorted."""
        return shard_volumes(self.folder)

    def path(self, volume: str) -> Path:
        """File of a volume's shard; an id that is no plain name of a file is quoted as in a web address."""
        return shard_path(self.folder, volume)

    def missing(self, volumes: Iterable[str]) -> list[str]:
        """Those of some volumes that have no shard, in the order given."""
        there = set(self.volumes)
        return [name for name in volumes if name not in there]

    def load(self, volume: str) -> VolumeProposals:
        """Read the shard of a volume.

        Raises:
            InputError: There is none, or it is damaged.
        """
        arrays = read_shard(self.folder, volume, _SHARD, _AGAIN)
        values: dict[str, Any] = {name: _widened(arrays[name]) for name in _ARRAYS}
        values |= {name: float(arrays[name]) for name in ("gap_mm", "interval_mm")}
        found = VolumeProposals(volume=str(arrays["volume"]), **values)
        fault = f"is of volume '{found.volume}'" if found.volume != volume else found.fault(len(self.experts))
        if fault:
            raise InputError(f"{self.path(volume)}: not a shard of this store ({fault}); {_AGAIN}")
        return found

    def save(self, proposals: VolumeProposals) -> None:
        """Write the shard of a volume, whole or not at all; equal proposals make equal files.

        Raises:
            ValueError: The proposals contradict themselves.
            InputError: The shard cannot be written.
        """
        fault = proposals.fault(len(self.experts))
        if fault:
            raise ValueError(f"proposals of volume '{proposals.volume}': {fault}")
        arrays = {name: getattr(proposals, name).astype(kind) for name, (_, kind) in _ARRAYS.items()}
        numbers = {name: np.array(getattr(proposals, name), np.float64) for name in ("gap_mm", "interval_mm")}
        volume = {"volume": np.array(proposals.volume)}
        write_shard(self.folder, proposals.volume, {**volume, **numbers, **arrays})


def _widened(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """What disk holds in 32 bits, in 64."""
    return values.astype(np.float64 if values.dtype.kind == "f" else np.int64)


def _named(name: str, header: Mapping[str, Any]) -> str:
    """A value of a header; of a digest, what the file is called too."""
    value = json.dumps(header[name])
    if not name.endswith(_DIGEST):
        return value
    return f"{json.dumps(header[name.removesuffix(_DIGEST)])} (SHA-256 {header[name][:16]})"


def _of_one_name(name: str, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """What differs where two files are called alike."""
    plain = name.removesuffix(_DIGEST)
    if plain == name or found[plain] != wanted[plain]:
        return ""
    return ", with other settings" if plain == "config" else ", another file of that name"


def _parse(data: Any, path: Path) -> ProposalHeader:
    found = data.get("schema") if isinstance(data, dict) else None
    if found != SCHEMA:
        raise InputError(
            f"{path}: schema is {found!r}; allowed is '{SCHEMA}', give a folder that `mmpluld propose` made"
        )
    names = [field.name for field in fields(ProposalHeader)]
    lacking = [name for name in names if name not in data]
    if lacking:
        raise InputError(f"{path}: lacks {', '.join(lacking)}; restore it, or propose anew into another folder")
    values = {name: data[name] for name in names}
    experts, fold = values["experts"], values["fold"]
    if not (isinstance(experts, list) and experts and all(isinstance(name, str) for name in experts)):
        raise InputError(f"{path}: experts is {experts!r}; needed are names, restore it")
    if fold is not None and not (isinstance(fold, list) and len(fold) == 3 and all(isinstance(n, int) for n in fold)):
        raise InputError(f"{path}: fold is {fold!r}; needed are {counted(3, 'whole number')} or null, restore it")
    return ProposalHeader(**{**values, "experts": tuple(experts), "fold": None if fold is None else tuple(fold)})
