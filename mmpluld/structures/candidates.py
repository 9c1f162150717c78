"""Candidates: 3D proposals of detectors that are known to be lesions or to be none, for false-positive reduction."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from mmpluld.atomic import atomic_write_text
from mmpluld.errors import InputError
from mmpluld.structures.records import AnnotationSet, VolumeRecord
from mmpluld.structures.text_files import read_object
from mmpluld.typing import StrPath

__all__ = ["SCHEMA", "Candidate", "CandidateSet"]

SCHEMA = "mmpluld.candidates/1"
_WANTED = "a file of candidates, as `mmpluld harvest` writes it"

Box = tuple[float, float, float, float, float, float]


@dataclass(frozen=True)
class Candidate:
    """One 3D proposal.

    Attributes:
        volume: Id of its volume.
        box: (x1, y1, z1, x2, y2, z2) voxel edges, z in slice numbers of the series.
        score: The detector's.
        lesion: Id of the lesion that it found, in the annotation file; None: a false positive.
        store: Number of the store that it is from, in :attr:`CandidateSet.stores`.
    """

    volume: str
    box: Box
    score: float
    lesion: int | None
    store: int = 0


@dataclass
class CandidateSet:
    """Candidates of some volumes (schema ``mmpluld.candidates/1``).

    Attributes:
        dataset: Header of the annotation file.
        volumes: Every volume that proposals were harvested from.
        candidates: By volume in this order.
        stores: Of each store of proposals its header.
        rules: By which rules candidates count.
    """

    dataset: dict[str, Any]
    volumes: list[VolumeRecord]
    candidates: list[Candidate]
    stores: list[dict[str, Any]] = field(default_factory=list)
    rules: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, path: StrPath) -> CandidateSet:
        """Read and check a file.

        Raises:
            InputError: If it is missing, of another kind, or contradicts itself.
        """
        data = read_object(path, _WANTED, ("schema", "dataset", "volumes", "candidates", "stores", "rules"))
        if data["schema"] != SCHEMA:
            raise InputError(f"{path}: schema is {data['schema']!r}; allowed is '{SCHEMA}', give {_WANTED}")
        head = {"schema": "mmpluld.annotations/1", "dataset": data["dataset"], "lesions": []}
        volumes = AnnotationSet.parse({**head, "volumes": data["volumes"]}, path).volumes
        known = {volume.id for volume in volumes}
        candidates = [
            _candidate(item, f"{path}: candidate {number}", known, len(data["stores"]))
            for number, item in enumerate(data["candidates"])
        ]
        return cls(data["dataset"], volumes, candidates, data["stores"], data["rules"])

    def save(self, path: StrPath) -> None:
        """Write the file, whole or not at all; one volume or candidate a line."""
        volumes = ",\n".join(json.dumps(item) for item in AnnotationSet(self.dataset, self.volumes).plain_volumes())
        rows = ",\n".join(json.dumps(asdict(item)) for item in self.candidates)
        head = json.dumps({"schema": SCHEMA, "dataset": self.dataset, "stores": self.stores, "rules": self.rules})
        atomic_write_text(path, f'{head[:-1]},\n"volumes": [\n{volumes}],\n"candidates": [\n{rows}]}}\n')


def _candidate(item: Any, where: str, volumes: set[str], num_stores: int) -> Candidate:
    """One checked entry."""
    names = ("volume", "box", "score", "lesion", "store")
    if not isinstance(item, dict) or any(name not in item for name in names):
        raise InputError(f"{where}: needed are {', '.join(names)}; harvest anew")
    box, score = item["box"], item["score"]
    numbers = isinstance(box, list) and all(isinstance(value, (int, float)) for value in (*box, score))
    if not numbers or len(box) != 6 or not all(box[axis] < box[axis + 3] for axis in range(3)):
        raise InputError(
            f"{where}: box is {box}, score {score}; needed are numbers x1, y1, z1, x2, y2, z2, harvest anew"
        )
    if item["volume"] not in volumes or item["store"] not in range(num_stores):
        raise InputError(f"{where}: volume {item['volume']!r} or store {item['store']!r} is not listed; harvest anew")
    x1, y1, z1, x2, y2, z2 = map(float, box)
    return Candidate(item["volume"], (x1, y1, z1, x2, y2, z2), float(score), item["lesion"], int(item["store"]))
