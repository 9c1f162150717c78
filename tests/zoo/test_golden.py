"""Losses and detections of one model of each kind, written down: what a change of any part of them must not move.

Weights, images and lesions follow from names by fixed formulas, so the numbers in ``golden.json`` hold for any version
of PyTorch and any CPU; only the random mask of the partial-label loss draws from PyTorch's generator. After a change
that is meant, write the numbers anew and look at what moved::

    python tests/zoo/test_golden.py

Only numbers that rounding does not move are written: each model also runs without the shortcuts for CPUs and with
weights that differ in the sixth digit, and a box counts if all runs find it.
"""

from __future__ import annotations

import mmpluld.registry  # noqa: F401  makes mmdet importable where mmcv has no compiled operators

# isort: split
import json
import re
import sys
import zlib
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmdet.models.dense_heads import CenterNetHead, FCOSHead
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmpluld.datasets.steps import num_slices
from mmpluld.engine.config import find_config, load_config
from mmpluld.models.cpu import plain_networks
from mmpluld.models.dense_heads import AFPHead
from mmpluld.models.slice_mixers import A3DMixer
from mmpluld.registry import MODELS

pytestmark = pytest.mark.usefixtures("mmpluld_scope")

A3D = "pluld-a3d_densenet121-fpn_7s_phantom"
TABLE = Path(__file__).with_name("golden.json")
NAMES = (
    "25d_densenet121-fpn_7s_phantom",
    "alignshift_densenet121-fpn_7s_phantom",
    "lens-afp_densenet121_4datasets-attention_9s_phantom",
    "lens-afp_densenet121_4datasets-gate_9s_phantom",
    "lens-afp_densenet121_4datasets_9s_phantom",
    "lens-afp_densenet121_9s_phantom",
    "lens-afp_densenet121_separate_9s_phantom",
    "lens-centernet_densenet121_4datasets_9s_phantom",
    "lens-fcos-1stage_densenet121_4datasets_9s_phantom",
    "lens-fcos_densenet121_4datasets_9s_phantom",
    "lens-rpn_densenet121_4datasets_9s_phantom",
    "mulan_densenet121_9s_phantom",
    A3D,
    "pluld-faster-rcnn_r50-fpn_3s_phantom",
    "pluld-fcos-a3d_densenet121-fpn_7s_phantom",
    "pluld-retinanet-a3d_densenet121-fpn_7s_phantom",
    "tsm_densenet121-fpn_7s_phantom",
)
SIZE = 64
LESIONS = ([20.0, 24.0, 44.0, 42.0], [30.0, 10.0, 42.0, 24.0])  # one on each image
UNCERTAIN = [4.0, 40.0, 16.0, 56.0]  # on the second image
LOSS_RTOL, LOSS_ATOL = 1e-3, 1e-5
BOX_ATOL_PX, SCORE_ATOL = 0.05, 1e-3
MAX_BOXES = 8

_LAST_OF_REGRESSION = re.compile(r"(rpn_reg|retina_reg|conv_reg|fc_reg(\.[\w-]+)?|wh_head\.2)\.weight$")
_SIZES = {AFPHead: ("conv_reg", 4.0), FCOSHead: ("conv_reg", 2.5), CenterNetHead: ("wh_head.2", 4.0)}
"""Where heads without anchors say how large a box is to start with, and with which bias that is about a lesion."""


def uniform(name: str, *shape: int) -> np.ndarray:
    """Numbers in [-1, 1) that follow from a name."""
    # NumPy promises that RandomState's streams never change; those of its newer generators may.
    return np.random.RandomState(zlib.crc32(name.encode())).uniform(-1, 1, shape)


def fill(model: nn.Module, noise: int) -> None:
    """Set all parameters by formula; a ``noise`` above 0 numbers a version that differs in the sixth digit."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            value = uniform(name, *parameter.shape)
            if value.ndim > 1:
                value *= (3 / np.prod(value.shape[1:])) ** 0.5 * (0.2 if _LAST_OF_REGRESSION.search(name) else 1.0)
            else:
                value = 0.2 * value + (1.0 if name.endswith("weight") or "scale" in name else 0.0)
            if name.endswith("mixer.weight") and value.ndim == 3:  # A3D: about the identity
                value = 0.3 * uniform(name, *parameter.shape) + np.eye(len(value))[:, :, None]
            if noise:
                value *= 1 + 3e-6 * uniform(f"{name} {noise}", *parameter.shape)
            parameter.copy_(torch.tensor(value))
        for module in model.modules():
            for kind, (layer, bias) in _SIZES.items():
                if isinstance(module, kind):
                    module.get_submodule(layer).bias.fill_(bias)
            if isinstance(module, _BatchNorm):
                module.momentum = 1.0  # what the network learns of its images in one step serves the prediction


def first(node: Any, key: str) -> Any:
    """The value of the first such key anywhere in a config, or None."""
    if isinstance(node, dict):
        if key in node:
            return node[key]
        node = list(node.values())
    found = (first(item, key) for item in node) if isinstance(node, (list, tuple)) else ()
    return next((value for value in found if value is not None), None)


def sample_all(node: Any) -> None:
    """Let samplers take every anchor or region, so that none is chosen at random."""
    if isinstance(node, dict):
        if node.get("type") == "RandomSampler":
            node["num"] = 1_000_000
        node = list(node.values())
    for item in node if isinstance(node, (list, tuple)) else ():
        sample_all(item)


def batch(config: Config, dataset: str) -> dict[str, Any]:
    """Two stacks of a smooth pattern, with a bright lesion each and an uncertain one on the second."""
    depth = num_slices(config)
    z, y, x = np.meshgrid(np.arange(depth), np.arange(SIZE), np.arange(SIZE), indexing="ij")
    data: dict[str, Any] = {"inputs": [], "data_samples": []}
    for i, box in enumerate(LESIONS):
        image = 60 + 30 * np.sin(0.31 * x + 0.17 * y * (i + 1) + 0.9 * z) + 20 * uniform(f"image {i}", *z.shape)
        inside = (x >= box[0]) & (x < box[2]) & (y >= box[1]) & (y < box[3])
        image += 90 * inside / (1 + abs(z - depth // 2))
        meta = {"img_shape": (SIZE, SIZE), "ori_shape": (SIZE, SIZE), "scale_factor": (1.0, 1.0), "dataset": dataset}
        sample = DetDataSample(metainfo={**meta, "slice_interval_mm": (5.0, 2.0)[i], "body_context": (0.4, 1.0, 0.5)})
        masks = BitmapMasks(inside[:1].astype(np.uint8), SIZE, SIZE)
        boxes, labels = torch.tensor([box]), torch.zeros(1, dtype=torch.long)
        sample.gt_instances = InstanceData(bboxes=boxes, labels=labels, masks=masks)
        num_tags = first(config.model, "num_tags")
        if num_tags is not None:
            sample.gt_instances.tags = (torch.arange(num_tags) % 3 == i).float()[None]
        sample.ignored_instances = InstanceData(bboxes=torch.tensor([UNCERTAIN])[:i], labels=labels[:i])
        data["inputs"].append(torch.from_numpy(image.clip(-50, 205)).float())
        data["data_samples"].append(sample)
    return data


def compute(name: str, noise: int = 0, changes: dict[str, Any] | None = None, device: str = "cpu") -> dict[str, Any]:
    """Parts of the loss on each dataset of a model, and what it finds on the first image, best first."""
    config = load_config(find_config(name))
    config.merge_from_dict(changes or {})
    sample_all(config.model)
    model = MODELS.build(config.model)
    fill(model, noise)
    model.to(device).train()
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.train()  # also where a network is set to keep its statistics, which fit no formula
    losses = {}
    for dataset in first(config.model, "datasets") or ["deeplesion"]:
        torch.manual_seed(0)
        data = model.data_preprocessor(batch(config, dataset), training=True)
        _, parts = model.parse_losses(model(**data, mode="loss"))
        losses |= {f"{dataset} {key}": float(value) for key, value in parts.items() if "loss" in key}
    model.eval()
    with torch.no_grad():
        found = model(**model.data_preprocessor(batch(config, "deeplesion"), training=False), mode="predict")
    instances = found[0].pred_instances
    boxes = torch.cat([instances.bboxes, instances.scores[:, None]], 1)
    return {"losses": losses, "boxes": boxes.tolist()}


def distance(found: list[list[float]], box: list[float]) -> float:
    """How far the nearest of the found boxes is from ``box``, in units of what is allowed."""
    allowed = np.array([BOX_ATOL_PX] * 4 + [SCORE_ATOL])
    return float((np.abs(np.reshape(found, (-1, 5)) - box) / allowed).max(1).min(initial=np.inf))


def differences(name: str, found: dict[str, Any]) -> list[Any]:
    """Losses and boxes of the table that a model does not give."""
    wanted = json.loads(TABLE.read_text(encoding="utf-8"))[name]
    assert wanted["boxes"]
    keys = wanted["losses"].keys() | found["losses"].keys()
    nan = float("nan")
    losses = [(wanted["losses"].get(key, nan), found["losses"].get(key, nan), key) for key in sorted(keys)]
    moved = [loss for loss in losses if loss[1] != pytest.approx(loss[0], rel=LOSS_RTOL, abs=LOSS_ATOL)]
    return moved + [box for box in wanted["boxes"] if distance(found["boxes"], box) > 1]


@pytest.mark.parametrize("name", NAMES)
def test_losses_and_detections(name):
    assert differences(name, compute(name)) == []


@pytest.mark.gpu
@pytest.mark.usefixtures("full_precision")
@pytest.mark.parametrize("name", NAMES)
def test_losses_and_detections_on_a_gpu(name):
    config = load_config(name)
    # Its random mask draws other numbers there; without it both devices must agree.
    masked = first(config.model, "keep_prob") is not None
    changes = {"model.rpn_head.loss_cls.keep_prob": 1.0} if masked and "rpn_head" in config.model else {}
    if masked and "bbox_head" in config.model:
        changes = {"model.bbox_head.loss_cls.keep_prob": 1.0}
    on_cpu, on_gpu = compute(name, changes=changes), compute(name, changes=changes, device="cuda")
    drawn = {key: value for key, value in on_cpu["losses"].items() if key.endswith("loss_tag_hard")}  # at random, too
    assert on_gpu["losses"] | drawn == pytest.approx(on_cpu["losses"], rel=LOSS_RTOL, abs=LOSS_ATOL)
    wanted = json.loads(TABLE.read_text(encoding="utf-8"))[name]["boxes"]
    assert [box for box in wanted if distance(on_gpu["boxes"], box) > 1] == []


@pytest.mark.parametrize(
    "changes",
    [{"model.rpn_head.loss_cls.neg_weight": 0.7}, {"model.rpn_head.anchor_generator.scales": [3, 4, 5, 8]}],
    ids=["neg_weight", "anchor scale"],
)
def test_a_changed_setting_is_noticed(changes):
    assert differences(A3D, compute(A3D, changes=changes))


def test_another_axis_of_mixing_is_noticed(monkeypatch):
    monkeypatch.setattr(A3DMixer, "matrices", lambda mixer, thickness_mm=None: mixer.weight.permute(2, 0, 1))
    assert differences(A3D, compute(A3D))


def write() -> None:
    """Write the table anew."""
    table = {}
    with DefaultScope.overwrite_default_scope("mmpluld"):
        for name in NAMES:
            result = compute(name)
            others = []
            for noise in range(4):
                with plain_networks() if noise == 0 else nullcontext():
                    others.append(compute(name, noise))
            for other in others:
                if other["losses"] != pytest.approx(result["losses"], rel=LOSS_RTOL / 5, abs=LOSS_ATOL / 5):
                    sys.exit(f"{name}: rounding moves the losses\n{result['losses']}\n{other['losses']}")
            boxes = [b for b in result["boxes"] if all(distance(o["boxes"], b) < 0.2 for o in others)]
            table[name] = {
                "losses": {key: float(f"{value:.6g}") for key, value in result["losses"].items()},
                "boxes": [[float(f"{value:.6g}") for value in box] for box in boxes[:MAX_BOXES]],
            }
            print(f"{name}: {len(boxes)} of {len(result['boxes'])} boxes", flush=True)
            if not boxes:
                sys.exit(f"{name}: no box is found again")
    lines = [f"{json.dumps(name)}: {json.dumps(numbers)}" for name, numbers in table.items()]
    TABLE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    write()
