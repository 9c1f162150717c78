"""The partial-label loss in a plain MMDetection project, trained by MMDetection's own tool."""

import json
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "how_to" / "loss_elsewhere.md"

# Everything but the two lines that docs/how_to/loss_elsewhere.md adds: stock MMDetection, no config of this package.
PROJECT = """
default_scope = "mmdet"
norm = dict(type="BN")
anchors = dict(type="AnchorGenerator", scales=[4], ratios=[1.0], strides=[16])
coder = dict(type="DeltaXYWHBBoxCoder", target_means=[0.0] * 4, target_stds=[1.0] * 4)
assigner = dict(type="MaxIoUAssigner", pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0.3)
sampler = dict(type="RandomSampler", num=32, pos_fraction=0.5, add_gt_as_proposals=False)
model = dict(
    type="FasterRCNN",
    data_preprocessor=dict(type="DetDataPreprocessor", pad_size_divisor=16),
    backbone=dict(type="ResNet", depth=18, num_stages=3, strides=(1, 2, 2), dilations=(1, 1, 1), out_indices=(2,), norm_cfg=norm),
    rpn_head=dict(
        type="RPNHead", in_channels=256, feat_channels=32, anchor_generator=anchors, bbox_coder=coder,
        loss_cls=dict(type="CrossEntropyLoss", use_sigmoid=True), loss_bbox=dict(type="L1Loss"),
    ),
    roi_head=dict(
        type="StandardRoIHead",
        bbox_roi_extractor=dict(type="SingleRoIExtractor", roi_layer=dict(type="RoIAlign", output_size=3), out_channels=256, featmap_strides=[16]),
        bbox_head=dict(
            type="Shared2FCBBoxHead", in_channels=256, fc_out_channels=16, roi_feat_size=3, num_classes=1, bbox_coder=coder,
            loss_cls=dict(type="CrossEntropyLoss"), loss_bbox=dict(type="L1Loss"),
        ),
    ),
    train_cfg=dict(
        rpn=dict(assigner=assigner, sampler=sampler, allowed_border=-1, pos_weight=-1),
        rpn_proposal=dict(nms_pre=50, max_per_img=20, nms=dict(type="nms", iou_threshold=0.7), min_bbox_size=0),
        rcnn=dict(assigner=assigner, sampler=dict(sampler, add_gt_as_proposals=True), pos_weight=-1),
    ),
    test_cfg=dict(
        rpn=dict(nms_pre=50, max_per_img=20, nms=dict(type="nms", iou_threshold=0.7), min_bbox_size=0),
        rcnn=dict(score_thr=0.05, nms=dict(type="nms", iou_threshold=0.5), max_per_img=10),
    ),
)
train_dataloader = dict(
    batch_size=2, num_workers=0, sampler=dict(type="DefaultSampler"),
    dataset=dict(
        type="CocoDataset", data_root="data", ann_file="train.json", data_prefix=dict(img=""), metainfo=dict(classes=("lesion",)),
        pipeline=[dict(type="LoadImageFromFile"), dict(type="LoadAnnotations", with_bbox=True), dict(type="PackDetInputs")],
    ),
)
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=1)
optim_wrapper = dict(optimizer=dict(type="SGD", lr=0.01))
default_hooks = dict(logger=dict(type="LoggerHook", interval=1))
randomness = dict(seed=0)
"""  # noqa: E501


def additions():
    """The example of the page, as a user copies it."""
    (block,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    return block


@pytest.fixture
def project(tmp_path):
    """A folder with four tiny images, a COCO file, the stock config and one with the loss."""
    generator = np.random.default_rng(0)
    (tmp_path / "data").mkdir()
    images, annotations = [], []
    for number in range(4):
        name = f"{number}.png"
        cv2.imwrite(str(tmp_path / "data" / name), generator.integers(0, 255, (64, 64, 3), dtype=np.uint8))
        images.append({"id": number, "file_name": name, "width": 64, "height": 64})
        annotations.append({"id": number + 1, "image_id": number, "category_id": 1, "bbox": [8, 8, 40, 40],
                            "area": 1600, "iscrowd": 0})  # fmt: skip
    coco = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "lesion"}]}
    (tmp_path / "data" / "train.json").write_text(json.dumps(coco))
    (tmp_path / "stock.py").write_text(PROJECT)
    (tmp_path / "mine.py").write_text('_base_ = "stock.py"\n' + additions().partition("\n")[2])
    assert additions().startswith("_base_ = ")
    return tmp_path


def losses(folder, *command):
    """Losses of the last iteration, by name."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    (log,) = (folder / "work").glob("*/vis_data/scalars.json")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    return {key: value for key, value in lines[-1].items() if "loss" in key}


def test_through_mim(project):
    pytest.importorskip("mim", reason="openmim is not installed (extra: mim)")
    found = losses(project, sys.executable, "-m", "mim", "train", "mmdet", "mine.py", "--work-dir", "work")
    assert {"loss_rpn_cls", "loss_rpn_bbox", "loss_cls", "loss_bbox"} <= set(found)
    assert 0 < found["loss_rpn_cls"] < 0.5  # of the stock loss about 0.69; its negatives weigh 0.6 * 0.5 here
    assert "mmpluld.PartialLabelLoss" in (project / "work" / "mine.py").read_text()
