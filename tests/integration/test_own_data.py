"""docs/how_to/own_data.md, followed: scans and a table of boxes to a dataset, a config, a trained detector; then
docs/how_to/new_expert.md with the same data."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mmpluld.cli.main import main
from mmpluld.datasets.converters.box_coco import read_box_coco
from mmpluld.datasets.converters.box_rows import Convention, read_box_csv
from mmpluld.phantom import make_phantom, write_nifti
from mmpluld.structures import AnnotationSet

HOW_TO = Path(__file__).parents[2] / "docs" / "how_to"
PAGE, EXPERT_PAGE = HOW_TO / "own_data.md", HOW_TO / "new_expert.md"
SPLITS = ("train", "train", "val", "test")
ANNOTATIONS = {"val_dataloader": "val", "test_dataloader": "test"}


def blocks(language: str, page: Path = PAGE) -> list[str]:
    """The code of the page."""
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with scans, their boxes as CSV and as COCO, the configs of the page, and the converted dataset."""
    folder = tmp_path_factory.mktemp("own")
    data = folder / "data" / "my_ct"
    rows, images, boxes = ["volume,x1,y1,z1,x2,y2,z2,patient,split,type,key_slice"], [], []
    for number, split in enumerate(SPLITS):
        name = f"p{number}/scan.nii.gz"
        (data / f"p{number}").mkdir(parents=True)
        case = make_phantom(number, size=64, max_slices=12, lesions_per_series=8.0)
        truth = AnnotationSet.load(write_nifti(case, data / name))
        images.append({"id": number, "file_name": name, "patient": f"p{number}", "split": split})
        for lesion in truth.lesions:
            x1, y1, z1, x2, y2, z2 = lesion.box
            shown = ",".join(f"{value:g}" for value in lesion.box)
            rows.append(f"{name},{shown},p{number},{split},{lesion.type},{lesion.key_slice}")
            bbox = [x1, y1, z1, x2 - x1, y2 - y1, z2 - z1]
            boxes.append({"id": len(boxes), "image_id": number, "bbox": bbox, "key_slice": lesion.key_slice})
    (folder / "boxes.csv").write_text("\n".join(rows))
    (folder / "boxes.json").write_text(json.dumps({"images": images, "annotations": boxes}))
    for block in [*blocks("python"), *blocks("python", EXPERT_PAGE)]:
        if name := re.match(r"# (\w+\.py)\n", block):
            (folder / name[1]).write_text(block)
    here = Path.cwd()
    os.chdir(folder)
    try:
        assert main(["convert", "boxes", "data/my_ct", "--boxes", "boxes.csv"]) == 0
    finally:
        os.chdir(here)
    return folder


def test_converted_data_pass_the_check_and_csv_and_coco_agree(home, monkeypatch, capsys):
    monkeypatch.chdir(home)
    assert main(["check-data", "data/my_ct", "--all-slices"]) == 0
    assert "no problems" in capsys.readouterr().out
    first = {path: AnnotationSet.load(path).lesions for path in Path("data/my_ct/annotations").glob("*.json")}
    assert len(first) == 3 and sum(map(len, first.values())) > 4
    assert main(["convert", "boxes", "data/my_ct", "--boxes", "boxes.json", "--overwrite"]) == 0
    for path, lesions in first.items():
        again = AnnotationSet.load(path).lesions
        assert [(x.volume, x.key_slice) for x in again] == [(x.volume, x.key_slice) for x in lesions]
        assert [x.box for x in again] == [pytest.approx(x.box) for x in lesions]


def test_the_config_of_the_page_loads_the_data(home, monkeypatch):
    from mmengine.registry import init_default_scope

    from mmpluld.engine.config import load_config
    from mmpluld.engine.config_check import check_config
    from mmpluld.registry import DATA_SAMPLERS, DATASETS

    monkeypatch.chdir(home)
    config = load_config("my_ct.py")
    check_config(config)
    init_default_scope("mmpluld")
    for loader, split in (("train_dataloader", "train"), *ANNOTATIONS.items()):
        dataset = DATASETS.build(config[loader].dataset)
        lesions = AnnotationSet.load(home / "data/my_ct/annotations" / f"{split}.json").lesions
        assert {item["lesion_id"] for sample in map(dataset.get_data_info, range(len(dataset)))
                for item in sample["instances"]} == {lesion.id for lesion in lesions}  # fmt: skip
        sample = dataset[0]
        assert tuple(sample["inputs"].shape) == (7, 512, 512)
        assert len(sample["data_samples"].gt_instances) >= 1
        if split == "train":
            sampler = DATA_SAMPLERS.build(config[loader].sampler, default_args={"dataset": dataset})
            assert len(list(sampler)) == len(lesions)


def test_tables_of_the_page_can_be_read(tmp_path):
    (tmp_path / "boxes.csv").write_text(blocks("text")[0])
    rows = read_box_csv(tmp_path / "boxes.csv", Convention())
    assert [(row.volume, row.empty) for row in rows] == [
        ("p1/scan.nii.gz", False), ("p1/later.nii.gz", False), ("p2/scan.nii.gz", False), ("p3/scan.nii.gz", True),
    ]  # fmt: skip
    (tmp_path / "boxes.json").write_text(blocks("json")[0])
    assert [row.flat for row in read_box_coco(tmp_path / "boxes.json", Convention())] == [True, False]


def test_what_the_page_says_about_sizes_runs(home, monkeypatch, capsys):
    monkeypatch.chdir(home)
    (code,) = (block for block in blocks("python") if "percentile" in block)
    exec(compile(code, str(PAGE), "exec"), {})
    assert len(capsys.readouterr().out.strip().splitlines()) == 3


def test_named_steps_of_the_page_reach_all_loaders(home, monkeypatch):
    from mmpluld.engine.config import load_config
    from mmpluld.engine.config_check import check_config

    monkeypatch.chdir(home)
    (code,) = (block for block in blocks("python") if block.startswith("__resize"))
    (home / "resized.py").write_text(f'_base_ = "my_ct.py"\n{code}')
    config = load_config("resized.py")
    check_config(config)
    for loader in ("train_dataloader", *ANNOTATIONS):
        steps = config[loader].dataset.pipeline
        assert steps["resize"] == {"type": "ResizeToSpacing", "pixel_mm": 0.8, "max_size": 512}


def test_an_expert_for_a_dataset_by_config_alone(home, monkeypatch, capsys):
    from mmengine.registry import init_default_scope

    from mmpluld.datasets.named_concat import dataset_settings
    from mmpluld.engine.config import load_config
    from mmpluld.engine.config_check import check_config
    from mmpluld.registry import DATASETS, MODELS

    monkeypatch.chdir(home)
    convert, check, show, train = re.findall(r"^mmpluld (.*)$", EXPERT_PAGE.read_text(), flags=re.MULTILINE)
    assert main([*convert.split(), "--overwrite"]) == 0
    assert main(check.split()) == 0
    assert AnnotationSet.load("data/my_ct/annotations/train.json").dataset["label_scope"] == "lung-nodules"
    capsys.readouterr()
    assert main(show.split()) == 0
    assert capsys.readouterr().out.count("'my_ct'") == 4  # both heads, the dataset, its folder
    assert train.startswith("train lens_five.py ")
    config = load_config("lens_five.py", ["model.test_cfg.rcnn.experts=[my_ct]"])
    check_config(config)
    assert config.model.test_cfg.rcnn.experts == ["my_ct"]
    init_default_scope("mmpluld")
    parts = dataset_settings(config.train_dataloader.dataset)
    assert len(parts) == 5
    own = DATASETS.build(parts[-1])
    assert own.get_data_info(0)["dataset"] == "my_ct"
    assert own[0]["data_samples"].dataset == "my_ct"
    model = MODELS.build(load_config("lens_five.py", twin=True).model)
    assert "my_ct" in model.rpn_head.datasets and "my_ct" in model.roi_head.bbox_head.datasets


@pytest.mark.slow
def test_train_test_evaluate_and_detect_as_on_the_page(home):
    options = ["--twin", "--cfg-options", "data_root=data/my_ct"]
    options += [f"{loader}.dataset.ann_file=annotations/{split}.json" for loader, split in ANNOTATIONS.items()]
    weights = "work_dirs/my_ct/epoch_1.pth"
    for arguments in (
        ["train", "my_ct.py", "--work-dir", "work_dirs/my_ct", *options, "train_cfg.max_epochs=1"],
        ["test", "my_ct.py", weights, "--out", "found.json", *options],
        ["evaluate", "found.json", "data/my_ct/annotations/test.json", "--protocol", "deeplesion-2d"],
        ["test", "my_ct_volumes.py", weights, "--out", "found_3d.json", *options],
        ["evaluate", "found_3d.json", "data/my_ct/annotations/test.json", "--protocol", "lens-3d", "--strict"],
        ["detect", "data/my_ct/p3/scan.nii.gz", "--config", "my_ct.py", "--checkpoint", weights, "--out", "findings",
         "--twin"],
    ):  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-m", "mmpluld", *arguments],
            cwd=home,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == 0, f"{arguments}: {done.stderr[-2000:]}"
    assert (home / "findings" / "report.html").is_file()
    from mmpluld.engine.checkpoint import load_checkpoint_safely
    from mmpluld.engine.config import load_config
    from mmpluld.engine.config_digest import config_digest

    copy = load_config(home / "work_dirs" / "my_ct" / "my_ct_phantom.py")
    assert load_checkpoint_safely(home / weights)["meta"]["config_sha256"] == config_digest(copy)
