"""Records to damage: annotations, detections, tables, tags, pickles, checkpoints, the zoo's index."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from mmpluld.structures import AnnotationSet, Detections, DetectionSet, LesionRecord, VolumeRecord

__all__ = ["RECORDS"]

Writer = Callable[[Path], object]
Reader = Callable[[Path], object]

_DL_INFO = {
    "File_name": "000001_01_01_005.png",
    "Measurement_coordinates": '"11, 12, 15, 18, 10, 16, 16, 14"',
    "Bounding_boxes": '"5.5, 7, 21, 23.25"',
    "Lesion_diameters_Pixel_": '"7.5, 6"',
    "Normalized_lesion_location": '"0.5, 0.4, 0.3"',
    "Coarse_lesion_type": "5",
    "Possibly_noisy": "0",
    "Slice_range": '"3, 7"',
    "Spacing_mm_px_": '"0.8, 0.8, 5"',
    "Image_size": '"32, 32"',
    "DICOM_windows": '"-175, 275"',
    "Patient_gender": "F",
    "Patient_age": "62",
    "Train_Val_Test": "1",
}
_LABELS = {
    "term_list": ["chest", "lung"],
    **{f"{split}_lesion_idxs": [row] for row, split in enumerate(("train", "val", "test"))},
    **{f"{split}_{kind}_labels": [[1]] for split in ("train", "val", "test") for kind in ("relevant", "uncertain")},
}
_COCO = {
    "images": [{"id": 1, "file_name": "a.nii", "slice": 3, "patient": "p", "split": "train"}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "lesion": "a", "iscrowd": 0}],
    "categories": [{"id": 1, "name": "liver"}],
}
_METAFILE = """Collections:
- Name: Toy
Models:
- Name: toy_3s_phantom
  In Collection: Toy
  Config: configs/toy/toy_3s_phantom.py
  Metadata: {Slices: 3, Epochs: 2}
  Results:
  - {Task: Lesion Detection, Dataset: phantom, Metrics: {FROC average: 50.0}}
"""
_LOG = '{"loss": 0.5, "epoch": 1, "iter": 1, "step": 1}\n{"froc/avg": 0.5, "step": 1}\n'


def _write_annotations(folder: Path) -> None:
    source = {"kind": "npy", "path": "volumes/a.npy"}
    volume = VolumeRecord("a", "p", "1", "1", source, 0, 9, (16, 16), (5.0, 0.8, 0.8))
    mask = {"size": [16, 16], "counts": "P8"}
    attributes = {"slice_boxes": [[3, 1.0, 2.0, 8.0, 9.0]], "tags": [0], "age": 62.0, "window_hu": [-175, 275]}
    lesion = LesionRecord(0, "a", (1, 2, 3, 8, 9, 4), 3, (1, 2, 8, 9, 2, 8, 7, 3), "lung", mask=mask)
    lesion.attributes = attributes
    AnnotationSet({"name": "x", "label_scope": "y"}, [volume], [lesion]).save(folder / "train.json")


def _read_annotations(folder: Path) -> object:
    from mmpluld.evaluation.functional import DEEPLESION_2D, LENS_3D
    from mmpluld.evaluation.pairing import load_truth

    found = AnnotationSet.load(folder / "train.json")
    truths = [load_truth(folder / "train.json", protocol).images for protocol in (DEEPLESION_2D, LENS_3D)]
    return found, truths


def _write_detections(folder: Path) -> None:
    boxes, keys = np.array([[1, 2, 3, 8, 9, 4.0]]), np.array([3])
    found = Detections(boxes, np.array([0.5]), boxes, keys, diameters_mm=np.array([[3.0, 2.0]]), history=("read",))
    DetectionSet({"a": found}).save(folder / "d.json")


def _text(name: str, text: str) -> Writer:
    return lambda folder: (folder / name).write_text(text)


def _boxes_table(folder: Path) -> object:
    from mmpluld.datasets.converters.box_rows import Convention, read_box_csv

    return read_box_csv(folder / "b.csv", Convention())


def _coco(folder: Path) -> object:
    from mmpluld.datasets.converters.box_coco import read_box_coco
    from mmpluld.datasets.converters.box_rows import Convention

    return read_box_coco(folder / "b.json", Convention())


def _deeplesion(folder: Path) -> object:
    from mmpluld.datasets.converters.deeplesion import convert_deeplesion

    report = convert_deeplesion(folder, require_images=False, overwrite=True)
    return [AnnotationSet.load(path) for path in report.files.values()]


def _luna16(folder: Path) -> object:
    from mmpluld.datasets.converters.luna16 import read_luna16_marks

    return read_luna16_marks(folder / "annotations.csv")


def _nih_ln(folder: Path) -> object:
    from mmpluld.datasets.converters.nih_ln import read_nih_ln_nodes

    return read_nih_ln_nodes(folder / "ABD_LYMPH_001")


def _write_nih_ln(folder: Path) -> None:
    case = folder / "ABD_LYMPH_001"
    case.mkdir()
    for kind, line in (("indices", "1 2 3"), ("physicalPoints", "1.5 2 3"), ("sizes", "8 9")):
        (case / f"ABD_LYMPH_001_lymphnodes_{kind}.txt").write_text(line + "\n")


def _overrides(name: str, folder: Path) -> object:
    from mmpluld.datasets.converters.overrides import read_overrides

    return read_overrides(folder / name, ["a", "b"])


def _tags(folder: Path) -> object:
    from mmpluld.datasets.converters.tags import read_tags

    return read_tags(folder / "tags.json")


def _submission(folder: Path) -> object:
    from mmpluld.evaluation.luna16 import evaluate_luna16

    return evaluate_luna16(folder / "submission.csv", folder)


def _write_submission(folder: Path) -> None:
    place = "seriesuid,coordX,coordY,coordZ"
    (folder / "submission.csv").write_text(f"{place},probability\na,1,2,3,0.5\nb,4,5,6,0.7\n")
    (folder / "annotations.csv").write_text(f"{place},diameter_mm\na,1,2,3,8\n")
    (folder / "annotations_excluded.csv").write_text(f"{place},diameter_mm\nb,4,5,6,-1\n")
    (folder / "seriesuids.csv").write_text("a\nb\n")


def _write_pickle(folder: Path) -> None:
    boxes = {"000001_01_01_004-010": np.array([[1, 2, 4, 3, 4, 5.0]])}
    (folder / "boxes.pkl").write_bytes(pickle.dumps({"val": boxes, "test": {}}, protocol=4))


def _pickle(folder: Path) -> object:
    from mmpluld.datasets.converters.deeplesion_3d import convert_deeplesion_3d

    report = convert_deeplesion_3d(folder, folder / "boxes.pkl", overwrite=True)
    return [AnnotationSet.load(path) for path in report.files.values()]


def _write_checkpoint(folder: Path) -> None:
    import torch

    content = io.BytesIO()
    torch.save({"state_dict": {"layer.weight": torch.arange(6.0)}, "meta": {"epoch": 3}}, content)
    (folder / "a.pth").write_bytes(content.getvalue())


def _checkpoint(folder: Path) -> object:
    from mmpluld.engine.checkpoint import load_checkpoint_safely

    return load_checkpoint_safely(folder / "a.pth")


def _index(folder: Path) -> object:
    from mmpluld.zoo.index import load_index

    return load_index(folder)


def _write_index(folder: Path) -> None:
    (folder / "configs/toy").mkdir(parents=True)
    (folder / "configs/toy/metafile.yml").write_text(_METAFILE)


def _log(folder: Path) -> object:
    from mmpluld.visualization.curves import read_log

    return read_log(folder).summary()


def _write_log(folder: Path) -> None:
    (folder / "vis_data").mkdir()
    (folder / "vis_data/scalars.json").write_text(_LOG)


_BOXES = "volume,x1,y1,z1,x2,y2,z2,patient,split,type,key_slice,ignore\na.nii,1,2,3,8,9,6,p,train,liver,4,0\n"
_MARKS = "seriesuid,coordX,coordY,coordZ,diameter_mm\na,1,2,3,8\nb,4,5,6,3.5\n"
_OVERRIDES = "volume,spacing_mm,flip,flip_mask,match,exclude\na,2 1 1,xz,y,voxels,\nb,,,,,wrong patient\n"

RECORDS: dict[str, tuple[Writer, Reader]] = {
    "annotations": (_write_annotations, _read_annotations),
    "detections": (_write_detections, lambda folder: DetectionSet.load(folder / "d.json")),
    "boxes csv": (_text("b.csv", _BOXES), _boxes_table),
    "boxes coco": (_text("b.json", json.dumps(_COCO)), _coco),
    "deeplesion csv": (_text("DL_info.csv", f"{','.join(_DL_INFO)}\n{','.join(_DL_INFO.values())}\n"), _deeplesion),
    "deeplesion pickle": (_write_pickle, _pickle),
    "luna16 csv": (_text("annotations.csv", _MARKS), _luna16),
    "luna16 submission": (_write_submission, _submission),
    "nih-ln texts": (_write_nih_ln, _nih_ln),
    "overrides csv": (_text("o.csv", _OVERRIDES), partial(_overrides, "o.csv")),
    "overrides json": (_text("o.json", '{"a": {"spacing_mm": [2, 1, 1], "flip": "x"}}'), partial(_overrides, "o.json")),
    "tags": (_text("tags.json", json.dumps(_LABELS)), _tags),
    "checkpoint": (_write_checkpoint, _checkpoint),
    "zoo index": (_write_index, _index),
    "training log": (_write_log, _log),
}
"""What writes a good input into an empty folder, and what reads it as the package does, by name."""
