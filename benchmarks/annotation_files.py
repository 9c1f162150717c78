"""Saving and loading an annotation file with half a million uncertain boxes: time and memory.

Run: python -m benchmarks annotation_files
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks._apart import apart, peak_memory_mb
from benchmarks.mining import SLICES, simulated_volume
from mmpluld.structures import AnnotationSet, LesionRecord

UNCERTAIN = 500_000


def _annotations(folder: Path) -> dict[str, Any]:
    """Write and read half a million uncertain boxes."""
    volumes = [simulated_volume(number) for number in range(UNCERTAIN // SLICES)]
    lesions = []
    for number in range(UNCERTAIN):
        z = 1 + number % SLICES
        box, name = (10.123, 20.5, z, 40.25, 50.125, z + 1), volumes[number // SLICES].id
        record: dict[str, Any] = {"ignore": True, "origin": "mined", "score": 0.75, "attributes": {"expert": "lits"}}
        lesions.append(LesionRecord(number, name, box, **record))
    held, start = peak_memory_mb(), time.process_time()
    made = AnnotationSet({"name": "deeplesion", "label_scope": "universal-partial"}, volumes, lesions)
    made.save(folder / "many.json")
    saved, written_mb = time.process_time(), peak_memory_mb()
    del made, lesions
    read = AnnotationSet.load(folder / "many.json")
    assert len(read.lesions) == UNCERTAIN
    return {
        "uncertain boxes": UNCERTAIN, "file [MB]": (folder / "many.json").stat().st_size / 1e6,
        "saving, CPU [s]": saved - start, "loading, CPU [s]": time.process_time() - saved, "records alone [MB]": held,
        "saving, peak [MB]": written_mb, "loading, peak [MB]": peak_memory_mb(),
    }  # fmt: skip


def run() -> dict[str, Any]:
    """Measure both in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        row = apart(_annotations, Path(folder))
    bar = "seconds, with every check of the schema; memory in proportion to the records"
    return {"name": "Annotation files", "bar": bar, "rows": [row]}
