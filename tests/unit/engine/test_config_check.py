"""Config mistakes are named by their place; sound configs pass."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
from mmengine.config import Config

from mmpluld.engine.config import load_config
from mmpluld.engine.config_check import check_config
from mmpluld.errors import InputError

ROOT = Path(__file__).parents[3]
OURS = sorted(path for path in (ROOT / "configs").rglob("*.py") if "_base_" not in path.parts)

SOUND = {
    "default_scope": "mmpluld",
    "tiny_train_pipeline": [{"type": "RandomFlip", "prob": 0.5}],
    "model": {
        "type": "FasterRCNN",
        "backbone": {
            "type": "mmdet.ResNet",
            "depth": 50,
            "norm_cfg": {"type": "BN", "requires_grad": True},
            "init_cfg": {"type": "Pretrained", "checkpoint": "torchvision://resnet50"},
        },
        "neck": {"type": "FPN", "in_channels": [256], "out_channels": 256, "num_outs": 5},
        "rpn_head": {
            "type": "RPNHead",
            "in_channels": 8,
            "loss_cls": {"type": "PartialLabelLoss", "loss": {"type": "CrossEntropyLoss", "use_sigmoid": True}},
        },
        "roi_head": {
            "type": "StandardRoIHead",
            "bbox_roi_extractor": {
                "type": "SingleRoIExtractor",
                "roi_layer": {"type": "RoIAlign", "output_size": 7},
                "out_channels": 8,
                "featmap_strides": [4],
            },
            "bbox_head": {"type": "Shared2FCBBoxHead", "in_channels": 8, "fc_out_channels": 4, "num_classes": 1},
        },
        "test_cfg": {"rpn": {"nms": {"type": "nms", "iou_threshold": 0.7}}},
    },
    "optim_wrapper": {
        "type": "AmpOptimWrapper",
        "optimizer": {"type": "SGD", "lr": 0.02, "momentum": 0.9},
        "paramwise_cfg": {"norm_decay_mult": 0.0},
        "clip_grad": {"max_norm": 35},
    },
    "param_scheduler": [
        {"type": "LinearLR", "start_factor": 0.1, "by_epoch": False, "end": 5},
        {"type": "CosineAnnealingLR", "T_max": 3, "convert_to_iter_based": True},
    ],
    "train_cfg": {"type": "EpochBasedTrainLoop", "max_epochs": 3},
    "custom_hooks": [{"type": "EMAHook", "priority": 49}],
}


def changed(place: str, value: object) -> Config:
    config = Config(copy.deepcopy(SOUND))
    config.merge_from_dict({place: value})
    return config


def test_sound_config() -> None:
    check_config(Config(copy.deepcopy(SOUND)))


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.stem)
def test_configs_of_the_zoo(path: Path) -> None:
    check_config(load_config(path))


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("model.neck.type", "FPNN", r"model\.neck\.type: 'FPNN' is unknown; did you mean 'FPN'\?"),
        ("model.neck.type", "Qqqqq", r"model\.neck\.type: 'Qqqqq' is unknown; is the module that registers it"),
        (
            "model.rpn_head.loss_cls.neg_wieght",
            0.5,
            r"model\.rpn_head\.loss_cls\.neg_wieght: PartialLabelLoss has no .*; did you mean 'neg_weight'\?",
        ),
        ("model.backbone.dept", 50, r"mmdet\.ResNet has no such argument; did you mean 'depth'"),
        ("train_cfg.max_epoch", 2, r"train_cfg\.max_epoch: EpochBasedTrainLoop has no .* 'max_epochs'"),
        ("param_scheduler.1.Tmax", 2, r"param_scheduler\[1\]\.Tmax: .* did you mean 'T_max'"),
        ("optim_wraper", {}, r"config key 'optim_wraper' is unknown; did you mean 'optim_wrapper'\?"),
        ("train_dataloaders", {}, r"config key 'train_dataloaders' is unknown; did you mean 'train_dataloader'\?"),
    ],
)
def test_mistakes(place: str, value: object, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        check_config(changed(place, value))
    assert "\n" not in str(error.value)
