"""Training samples that cannot be read: their names, also from data workers, and what skipping them does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope
from torch.utils.data import DataLoader

from mmpluld.cli.main import main
from mmpluld.engine.config import load_config
from mmpluld.engine.runner import UnreadableReport
from mmpluld.errors import InputError, MMPluldError
from mmpluld.registry import DATASETS
from mmpluld.structures import AnnotationSet, LesionRecord, VolumeRecord

PIPELINE = [{"type": "LoadSliceStack", "num_slices": 3, "num_threads": 0}]


def write(root: Path, size: int = 32) -> Path:
    """Volumes ``a`` and ``b`` of six slices, a lesion on each slice."""
    volumes, lesions = [], []
    for name in "ab":
        (root / "png" / name).mkdir(parents=True)
        for index in range(6):
            cv2.imwrite(str(root / "png" / name / f"{index:03d}.png"), np.full((size, size), 32768 + index, np.uint16))
            box = (4, 5, index, 14, 15, index + 1)
            lesions.append(LesionRecord(len(lesions), name, box, key_slice=index))
        source = {"kind": "png16", "path": f"png/{name}"}
        volumes.append(VolumeRecord(name, f"patient-{name}", "1", "1", source, 0, 6, (size, size), (2.0, 0.8, 0.8)))
    AnnotationSet({"name": "test", "label_scope": "universal-complete"}, volumes, lesions).save(root / "train.json")
    return root


def build(root: Path, **options: Any) -> Any:
    config = {"type": "CTLesionDataset", "ann_file": "train.json", "data_root": str(root), "pipeline": PIPELINE}
    with DefaultScope.overwrite_default_scope("mmpluld"):
        return DATASETS.build(config | options)


def break_png(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(data)


def lose_slice(path: Path) -> None:
    path.unlink()


def shrink(path: Path) -> None:
    cv2.imwrite(str(path), np.zeros((16, 16), np.uint16))


FAULTS = {
    "damaged": (break_png, r"png/b/003.png: damaged PNG"),
    "missing": (lose_slice, r"/png/b: volume b: key slice 3 does not exist in its series; check the annotation file$"),
    "of another size": (shrink, r"/png/b: volume b: slices \[1, 2, 3\] of one series differ in size: "),
}


@pytest.mark.parametrize(("fault", "workers"), [*((fault, 0) for fault in FAULTS), ("missing", 1)])
def test_the_volume_is_named_also_from_a_data_worker(tmp_path: Path, fault: str, workers: int) -> None:
    damage, message = FAULTS[fault]
    damage(write(tmp_path) / "png" / "b" / "003.png")
    loader = DataLoader(build(tmp_path), batch_size=None, num_workers=workers, timeout=60 if workers else 0)
    with pytest.raises(InputError, match=message) as error:
        list(loader)
    assert "\n" not in str(error.value)
    assert "Traceback" not in str(error.value)


def test_messages_of_our_own_stay_as_they_are() -> None:
    for text in ("plain", "Caught in a line", "two\nlines", "Caught A in B.\nOriginal"):
        assert MMPluldError(text).args == (text,)
        assert str(MMPluldError(text)) == " ".join(text.splitlines())
    assert InputError("a", "b").args == ("a", "b")


@pytest.mark.parametrize("workers", [0, 2])
def test_skipped_samples_are_counted_over_all_workers(tmp_path: Path, workers: int) -> None:
    root = write(tmp_path)
    break_png(root / "png" / "a" / "000.png")
    lose_slice(root / "png" / "b" / "003.png")
    dataset = build(root, skip_unreadable=True)
    np.random.seed(0)  # noqa: NPY002
    loader = DataLoader(dataset, batch_size=None, num_workers=workers, timeout=60 if workers else 0)
    samples = list(loader)
    assert len(samples) == 12
    assert all(sample["img"].shape == (32, 32, 3) for sample in samples)
    # A stack next to a lost slice takes its neighbour; one next to a damaged slice cannot be read.
    assert dataset.unreadable == ["a/000", "a/001", "b/003"]
    with pytest.raises(InputError, match="damaged PNG"):
        list(build(root, skip_unreadable=True, test_mode=True))


def test_without_any_readable_sample_it_ends(tmp_path: Path) -> None:
    root = write(tmp_path)
    dataset = build(root, skip_unreadable=True)
    for path in root.glob("png/*/*.png"):
        break_png(path)
    with pytest.raises(InputError, match=r"train.json: none of its 12 samples can be read: .*damaged PNG"):
        dataset[0]


def test_volumes_that_do_not_open_are_skipped_whole(tmp_path: Path) -> None:
    root = write(tmp_path)
    (root / "png" / "a").rename(root / "png" / "gone")
    with pytest.raises(InputError, match="png/a: no folder of slices"):
        build(root, sampling={"policy": "all_slices"})
    dataset = build(root, sampling={"policy": "all_slices"}, skip_unreadable=True)
    assert len(dataset) == 6
    assert dataset.unreadable == ["a (the whole volume)"]


class Log:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def warning(self, text: str) -> None:
        self.lines.append(text)


def test_the_log_counts_them(tmp_path: Path) -> None:
    root = write(tmp_path)
    lose_slice(root / "png" / "b" / "003.png")
    parts = [build(root, skip_unreadable=True), build(root)]
    dataset = torch.utils.data.ConcatDataset(parts)

    class Run:
        train_dataloader = DataLoader(dataset)
        logger = Log()

    UnreadableReport().after_train_epoch(Run)
    assert Run.logger.lines == []
    parts[0].prepare_data(9)
    UnreadableReport().after_train_epoch(Run)
    assert Run.logger.lines == ["1 unreadable, and skipped in training: b/003"]


def test_a_command_ends_with_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write(tmp_path, 64)
    lose_slice(root / "png" / "b" / "003.png")
    config = load_config("pluld-a3d_densenet121-fpn_7s_phantom")
    config.train_dataloader.dataset.update(data_root=str(root), ann_file="train.json")
    config.train_dataloader.update(num_workers=1)
    config.train_dataloader.dataset.pipeline["truth"].update(with_mask=False)
    for key in [key for key in config if key.startswith(("val_", "test_"))]:
        config.pop(key)
    config.dump(tmp_path / "own.py")
    capsys.readouterr()
    assert main(["train", str(tmp_path / "own.py"), "--work-dir", str(tmp_path / "work")]) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("mmpluld")]
    assert len(said) == 1
    assert said[0].startswith(f"mmpluld: error: {root}/png/b: volume b: key slice 3 does not exist")
