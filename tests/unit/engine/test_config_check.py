"""Config mistakes are named by their place; sound configs pass."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
from mmengine.config import Config

from mmpluld.engine.config import load_config
from mmpluld.engine.config_check import check_complete, check_config
from mmpluld.errors import InputError
from mmpluld.registry import MODELS

ROOT = Path(__file__).parents[3]
TRUNKS = sorted((ROOT / "configs/trunks").glob("*.py"))

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


@pytest.mark.parametrize("path", TRUNKS, ids=lambda path: path.stem)
def test_configs_that_are_no_rows(path: Path) -> None:
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
        (
            "model.backbone.bg_cls_weight",
            0.1,
            r"^model\.backbone\.bg_cls_weight: mmdet\.ResNet has no .*; known are [^;]*$",
        ),
        (
            "optim_wrapper.optimizer.params",
            [],
            r"^optim_wrapper\.optimizer\.params: SGD has no such argument; known are ",
        ),
        (
            "param_scheduler.1.optimizer",
            {},
            r"^param_scheduler\[1\]\.optimizer: CosineAnnealingLR has no such argument",
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


@pytest.mark.parametrize(
    ("place", "own", "known"),
    [
        ("model.backbone", {"bg_cls_weight"}, "norm_eval"),
        ("optim_wrapper.optimizer", {"params"}, "weight_decay"),
        ("param_scheduler.1", {"optimizer"}, "convert_to_iter_based"),
        ("train_dataloader.sampler", {"dataset"}, "shuffle"),
        ("train_cfg", {"runner"}, "max_epochs"),
    ],
)
def test_what_is_said_to_be_known_can_be_given(place: str, own: set[str], known: str) -> None:
    config = changed("train_dataloader", {"sampler": {"type": "DefaultSampler"}})
    config.merge_from_dict({f"{place}.qqqqqq": 1})
    with pytest.raises(InputError, match="known are ") as error:
        check_config(config)
    names = str(error.value).partition("known are ")[2].split(", ")
    assert known in names
    assert not own & set(names)


def test_weight_of_background_that_detr_takes_out_of_its_loss() -> None:
    loss = {"type": "CrossEntropyLoss", "bg_cls_weight": 0.1, "class_weight": 1.0}
    check_config(
        Config({"model": {"type": "DETR", "bbox_head": {"type": "DETRHead", "num_classes": 1, "loss_cls": loss}}})
    )


LOADED = {
    "train_dataloader": {"batch_size": 2, "num_workers": 0, "dataset": {"type": "CTLesionDataset", "ann_file": "a"}},
    "default_hooks": {"checkpoint": {"type": "SafeCheckpointHook", "interval": 1, "save_begin": 1}},
    "env_cfg": {"cudnn_benchmark": False, "mp_cfg": {"opencv_num_threads": 0}, "dist_cfg": {"backend": "nccl"}},
    "randomness": {"seed": 0, "deterministic": True},
    "auto_scale_lr": {"enable": False, "base_batch_size": 8},
    "val_cfg": {"fp16": True},
    "log_processor": {"window_size": 50, "by_epoch": True},
}


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("model.test_cfg.rcn", {}, r"model\.test_cfg\.rcn: nothing reads it; did you mean 'rcnn'"),
        ("model.test_cfg.rpn.nms_pree", 5, "did you mean 'nms_pre'"),
        ("model.test_cfg.rpn.nms.iou_thresold", 0.5, r"rpn\.nms\.iou_thresold: .* did you mean 'iou_threshold'"),
        ("model.train_cfg.rpn.pos_wieght", 1, "did you mean 'pos_weight'"),
        ("model.test_cfg.rcnn.experts", ["a"], r"model\.test_cfg\.rcnn\.experts: nothing reads it"),
        ("train_dataloader.batch_sampler", 5, r"train_dataloader\.batch_sampler is 5; allowed is a dict with a type"),
        ("train_dataloader.sampler", {"shuffle": True}, r"train_dataloader\.sampler is \{'shuffle': True\}; allowed"),
        ("optim_wrapper.optimizer", None, r"optim_wrapper\.optimizer is None; allowed is a dict with a type"),
        ("auto_scale_lr.enabled", True, "did you mean 'enable'"),
        ("default_hooks.checkpoint.intervall", 2, "SafeCheckpointHook has no such argument; did you mean 'interval'"),
        ("default_hooks.chekpoint.interval", 2, "default_hooks.chekpoint: has no type; did you mean 'checkpoint'"),
        ("optim_wrapper.clip_grad.max_nrm", 1, r"optim_wrapper\.clip_grad\.max_nrm: .* did you mean 'max_norm'"),
        ("optim_wrapper.paramwise_cfg.bias_lr", 1, "did you mean 'bias_lr_mult'"),
        (
            "optim_wrapper.paramwise_cfg.custom_keys",
            {"neck": {"lr": 1}},
            "neck.lr: .* known are .*lr_mult",
        ),
        ("train_dataloader.batchsize", 4, "did you mean 'batch_size'"),
        ("train_dataloader.num_worker", 4, "did you mean 'num_workers'"),
        ("env_cfg.cudnn_bench", True, "did you mean 'cudnn_benchmark'"),
        ("env_cfg.mp_cfg.opencv_threads", 1, "did you mean 'opencv_num_threads'"),
        ("env_cfg.dist_cfg.backnd", "gloo", "did you mean 'backend'"),
        ("randomness.sed", 1, "did you mean 'seed'"),
        ("param_scheduler", [{"milestones": [1]}], r"param_scheduler\[0\]: has no type"),
        ("val_cfg.fp61", True, r"val_cfg\.fp61: ValLoop has no such argument; did you mean 'fp16'"),
        ("log_processor.window_siz", 5, "LogProcessor has no such argument; did you mean 'window_size'"),
    ],
)
def test_mistakes_in_parts_without_a_type(place: str, value: object, message: str) -> None:
    config = changed("work_dir", "x")
    config.merge_from_dict(copy.deepcopy(LOADED))
    check_config(config)
    config.merge_from_dict({place: value})
    with pytest.raises(InputError, match=message) as error:
        check_config(config)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("train_cfg.max_epochs", "one", r"train_cfg\.max_epochs is 'one'; EpochBasedTrainLoop takes a number"),
        ("train_cfg.max_epochs", 0, "max_epochs is 0; allowed are whole numbers from 1"),
        ("train_cfg.max_epochs", 1.5, "max_epochs is 1.5"),
        ("train_dataloader.batch_size", 0, "batch_size is 0; allowed are whole numbers from 1"),
        ("train_dataloader.batch_size", -2, "batch_size is -2"),
        ("train_dataloader.batch_size", "x", "batch_size is 'x'"),
        ("train_dataloader.batch_size", True, "batch_size is True"),
        ("train_dataloader.num_workers", -1, "num_workers is -1; allowed are whole numbers from 0"),
        ("optim_wrapper.optimizer.lr", math.nan, r"optim_wrapper\.optimizer\.lr is nan"),
        ("optim_wrapper.optimizer.lr", math.inf, r"optimizer\.lr is inf; allowed are numbers from 0"),
        ("optim_wrapper.optimizer.lr", -1, r"optimizer\.lr is -1"),
        ("optim_wrapper.optimizer.lr", "fast", r"optimizer\.lr is 'fast'"),
        ("optim_wrapper.clip_grad.max_norm", 0, r"max_norm is 0; allowed are above 0"),
        (
            "resume",
            "work/epoch_3.pth",
            r"is 'work/epoch_3.pth'; allowed are True and False; .*--resume CHECKPOINT",
        ),
        ("resume", "no", "resume is 'no'; allowed are True and False"),
        ("randomness.deterministic", "no", "deterministic is 'no'; allowed are True and False"),
        ("auto_scale_lr.enable", "off", "enable is 'off'; allowed are True and False"),
        ("find_unused_parameters", 5, "find_unused_parameters is 5; allowed are True and False"),
        ("train_dataloader.drop_last", "no", "drop_last is 'no'; allowed are True and False"),
        ("randomness.seed", -1, r"randomness\.seed is -1; allowed are whole numbers from 0 to 4294967295"),
        ("param_scheduler.0.start_factor", math.nan, r"param_scheduler\[0\]\.start_factor is nan"),
        ("default_hooks.checkpoint.interval", "often", "interval is 'often'; SafeCheckpointHook takes a number"),
        (
            "param_scheduler",
            [{"type": "MultiStepLR", "milestones": 5}],
            r"param_scheduler\[0\]\.milestones is 5; MultiStepLR takes a list$",
        ),
        ("train_dataloader.dataset.sampling", "key_slices", r"sampling is 'key_slices'; CTLesionDataset takes a dict$"),
        ("train_dataloader.dataset.fold", 0, r"^train_dataloader\.dataset\.fold is 0; CTLesionDataset takes a list$"),
        ("train_dataloader.dataset.ann_file", 5, "ann_file is 5; CTLesionDataset takes a text"),
        ("model.rpn_head.loss_cls.neg_weight", "half", "neg_weight is 'half'; PartialLabelLoss takes a number"),
    ],
)
def test_values_that_no_run_can_use(place: str, value: object, message: str) -> None:
    config = changed("work_dir", "x")
    config.merge_from_dict(copy.deepcopy(LOADED))
    config.merge_from_dict({place: value})
    with pytest.raises(InputError, match=message) as error:
        check_config(config)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("model", 5, "^model is 5; allowed is a dict$"),
        ("model", None, "^model is None; allowed is a dict$"),
        ("env_cfg", None, "^env_cfg is None; allowed is a dict$"),
        ("randomness", 5, "^randomness is 5; allowed is a dict$"),
        ("test_cfg", 5, "^test_cfg is 5; allowed is a dict$"),
        ("optim_wrapper", "SGD", "^optim_wrapper is 'SGD'; allowed is a dict$"),
        ("param_scheduler", 5, "^param_scheduler is 5; allowed is a dict or a list$"),
        ("param_scheduler", {"5": {"end": 3}}, r"^param_scheduler\.5: has no type; name one, such as MultiStepLR"),
        ("param_scheduler", {"one": [{"end": 3}]}, r"^param_scheduler\.one\[0\]: has no type"),
        ("param_scheduler", [5], r"^param_scheduler\[0\]: has no type"),
        ("custom_hooks", {"0": {"type": "EMAHook"}}, "^custom_hooks is {'0': .*; allowed is a list$"),
        ("custom_hooks", [{"momentum": 0.1}], r"^custom_hooks\[0\]: has no type"),
        ("custom_imports", 5, "^custom_imports is 5; allowed is a dict$"),
        ("custom_imports", {"imports": "no_such_module"}, "config: custom_imports: .*no_such_module; put the module"),
        ("work_dir", 5, "^work_dir is 5; allowed is a text$"),
        ("log_level", "LOUD", "^log_level is 'LOUD'; allowed are DEBUG, INFO, WARNING, ERROR and CRITICAL$"),
        ("train_cfg", {"by_epoch": True, "max_iters": 5}, "train_cfg.max_iters: EpochBasedTrainLoop has no such arg"),
        ("train_cfg", {"by_epoch": False, "max_epochs": 5}, "train_cfg.max_epochs: IterBasedTrainLoop has no such arg"),
        ("train_cfg", {"by_epoch": "maybe", "max_epochs": 1}, "by_epoch is 'maybe'; allowed are True and False"),
        ("train_cfg", {"max_epochs": 5}, "^train_cfg: has no by_epoch"),
        ("train_cfg.by_epoch", True, r"train_cfg\.by_epoch: EpochBasedTrainLoop has no such argument"),
        ("train_dataloader.persistent_workers", True, "persistent_workers is True, which needs num_workers from 1"),
        ("train_dataloader.prefetch_factor", 2, "prefetch_factor is 2, which needs num_workers from 1"),
        ("auto_scale_lr", {"enable": True}, "^auto_scale_lr.enable is True, which needs base_batch_size"),
    ],
)
def test_what_the_runner_would_fail_on(place: str, value: object, message: str) -> None:
    config = changed("work_dir", "x")
    config.merge_from_dict(copy.deepcopy(LOADED))
    parent, _, key = place.rpartition(".")
    (config[parent] if parent else config)[key] = value
    with pytest.raises(InputError, match=message) as error:
        check_config(config)
    assert "\n" not in str(error.value)


def test_loader_loop_and_what_belongs_to_them_are_complete() -> None:
    config = Config({"val_dataloader": {}, "val_cfg": {}, "val_evaluator": {}, "test_cfg": None})
    check_complete(config)
    config.val_dataloader = None
    message = "^val_dataloader: None or missing; val_dataloader, val_cfg, val_evaluator belong together, so .* to None$"
    with pytest.raises(InputError, match=message):
        check_complete(config)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("train_cfg", {"by_epoch": False, "max_iters": 5}),
        ("param_scheduler", {"type": "StepLR", "step_size": 1}),
        ("param_scheduler", {"one": {"type": "StepLR", "step_size": 1}, "two": [{"type": "StepLR", "step_size": 1}]}),
        ("param_scheduler", None),
        ("custom_hooks", ({"type": "EMAHook"},)),
        ("log_level", 30),
        ("load_from", None),
        ("default_hooks", None),
        ("visualizer", None),
        ("resume", None),
    ],
)
def test_what_the_runner_takes(place: str, value: object) -> None:
    config = changed("work_dir", "x")
    config[place] = value
    check_config(config)


def test_what_is_not_ours_reads_what_it_likes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's module says by its signature what it takes; settings that only it reads are left alone."""

    class OwnRoIHead:
        __module__ = "somebody"

        def __init__(self, **kwargs: object) -> None: ...

    monkeypatch.setitem(MODELS.module_dict, "OwnRoIHead", OwnRoIHead)
    config = changed("model.test_cfg", {"rcnn": {"own": 1}, "third": {}})
    with pytest.raises(InputError, match="rcnn.own|third"):
        check_config(config)
    config.model.roi_head = {"type": "OwnRoIHead", "anything": 1}
    check_config(config)
    config.optim_wrapper = {"type": "AmpOptimWrapper", "constructor": "OwnConstructor", "paramwise_cfg": {"own": 1}}
    config.optim_wrapper.optimizer = {"type": "SGD", "lr": 0.1}
    check_config(config)


@pytest.mark.parametrize(("place", "value"), [("optim_wrapper.optimizer.lr", 0), ("train_cfg.max_epochs", 1e2)])
def test_odd_values_that_work(place: str, value: object) -> None:
    check_config(changed(place, value))
