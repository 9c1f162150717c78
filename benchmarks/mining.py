"""Mining of simulated proposals: time and memory.

Each volume is 100 slices, 2 mm apart, with 10 boxes a slice of four experts: those of ten lesions and others. A patient
has two volumes with the same lesions, of which one is annotated in the first. Each size is mined in a process of its
own, whose peak memory is that of reading annotations and shards, of mining, and of writing; what grows with the number
of slices are the annotations.

Run: python -m benchmarks mining
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._apart import apart, peak_memory_mb
from mmpluld.inputs import sha256_of
from mmpluld.io.embeddings import EmbeddingHeader, EmbeddingStore, Vectors, VolumeEmbeddings
from mmpluld.io.proposals import ProposalHeader, ProposalStore, VolumeProposals
from mmpluld.mining.mine import mine_files
from mmpluld.structures import AnnotationSet, LesionRecord, VolumeRecord
from mmpluld.typing import FloatArray

EXPERTS = ("deeplesion", "luna16", "lits", "nih-ln")
SLICES, LESIONS, BOXES, SIZE = 100, 10, 10, 512
STRATEGIES = ("cross-slice", "intra-patient", "cross-dataset", "unlabeled")
SIZES = (10_000, 100_000)


def simulated_volume(number: int) -> VolumeRecord:
    """One of two volumes of a patient."""
    patient, study = divmod(number, 2)
    name = f"{patient:06d}_{study + 1:02d}_01"
    return VolumeRecord(
        name, f"{patient:06d}", f"{study + 1:02d}", "01", {"kind": "png16", "path": name}, 1, SLICES, (SIZE, SIZE),
        (2.0, 0.8, 0.8),
    )  # fmt: skip


def _corners(rng: np.random.Generator, count: int) -> FloatArray:
    """(count, 4) boxes of 16 to 40 pixels."""
    low = rng.uniform(0, SIZE - 48, (count, 2))
    return np.hstack([low, low + rng.uniform(16, 40, (count, 2))])


def _proposals(volume: VolumeRecord, rng: np.random.Generator) -> VolumeProposals:
    """Ten lesions of ten slices each, two boxes on each, and boxes at random."""
    lesions = _corners(rng, LESIONS)
    first = rng.integers(0, SLICES - 10, LESIONS)
    on = np.repeat(np.arange(LESIONS), 20)
    grid = first[on] + np.tile(np.arange(10), 2 * LESIONS)
    fused = np.tile(np.repeat([True, False], 10), LESIONS)
    rest = SLICES * BOXES - len(on)
    boxes = np.vstack([lesions[on] + rng.normal(0, 1, (len(on), 4)), _corners(rng, rest)])
    places = np.concatenate([grid, rng.integers(0, SLICES, rest)])
    tracklet = np.concatenate([np.where(fused, on, -1), LESIONS + np.arange(rest)])
    tracklet[LESIONS * 20 + rest // 2 :] = -1
    return VolumeProposals(
        volume.id, 2.0, 2.0, np.array([[1, SLICES]]), boxes,
        scores=np.concatenate([rng.uniform(0.4, 1, len(on)), rng.uniform(0.01, 0.55, rest)]),
        expert=np.concatenate([np.where(fused, 0, rng.integers(1, 4, len(on))), rng.integers(0, 4, rest)]),
        run=np.zeros(len(boxes), np.int64), grid=places, slice=places + 1, tracklet=tracklet,
    )  # fmt: skip


def _vectors(rng: np.random.Generator, count: int) -> Vectors:
    vectors = rng.normal(size=(count, 256))
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def simulate(folder: Path, slices: int, seed: int = 0) -> None:
    """Write annotations, proposals and embeddings of so many slices."""
    volumes = [simulated_volume(number) for number in range(slices // SLICES)]
    lesions = []
    for number, volume in list(enumerate(volumes))[::2]:  # of each patient the first volume
        shard = _proposals(volume, np.random.default_rng([seed, number]))
        x1, y1, x2, y2 = shard.boxes[5].tolist()
        key = int(shard.slice[5])
        lesions.append(LesionRecord(number, volume.id, (x1, y1, key, x2, y2, key + 1), key_slice=key))
    path = folder / "train.json"
    AnnotationSet({"name": "deeplesion", "label_scope": "universal-partial"}, volumes, lesions).save(path)
    digest = sha256_of(path)
    header = ProposalHeader("simulated", "", "", "", path.name, digest, EXPERTS, {})
    store = ProposalStore.create(folder / "proposals", header)
    embedded = EmbeddingStore.create(
        folder / "embeddings",
        EmbeddingHeader("simulated", "", "", digest, sha256_of(folder / "proposals" / "proposals.json"), 256),
    )
    shared = _vectors(np.random.default_rng(seed), LESIONS)
    for number, volume in enumerate(volumes):
        rng = np.random.default_rng([seed, number])
        shard = _proposals(volume, rng)
        store.save(shard)
        tracklets = np.arange(shard.num_tracklets)
        # The same ten lesions in both volumes of a patient.
        vectors = np.vstack([shared, _vectors(rng, len(tracklets) - LESIONS)])
        marked = 1 - number % 2
        numbers = np.array([number])[:marked]
        made_of = sha256_of(store.path(volume.id))
        embedded.save(VolumeEmbeddings(volume.id, numbers, shared[:marked], tracklets, vectors, made_of))


def _mine(folder: Path) -> dict[str, Any]:
    """Mine what was simulated; seconds, peak memory, and what was found."""
    before, start = peak_memory_mb(), time.process_time()
    result = mine_files(
        folder / "train.json", [folder / "proposals"], strategies=STRATEGIES, embedding_folders=[folder / "embeddings"]
    )
    mined = time.process_time()
    mined_mb = peak_memory_mb()
    result.annotations.save(folder / "mined.json")
    last = result.counts[-1]
    return {
        "slices": last["slices"], "lesions found": last["lesions_3d"], "2D boxes": last["boxes_2d"],
        "uncertain": last["uncertain_2d"], "mining, CPU [s]": mined - start,
        "writing, CPU [s]": time.process_time() - mined,
        "start [MB]": before, "mining, peak [MB]": mined_mb, "writing, peak [MB]": peak_memory_mb(),
    }  # fmt: skip


def run() -> dict[str, Any]:
    """Mine each size."""
    rows = []
    for slices in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            simulate(Path(folder), slices)
            rows.append(apart(_mine, Path(folder)))
    return {
        "name": "Mining",
        "bar": "100,000 slices in minutes on two cores; memory grows with what is mined, not with the proposals",
        "rows": rows,
    }
