"""Small LENS detectors for four datasets; mmcv's stand-ins are in place before a test module imports mmdet's parts."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import mmpluld.registry  # noqa: F401
from mmpluld.engine.config import load_config

BASES = Path(__file__).parents[3] / "configs/_base_/models"
SIZE = 64


@pytest.fixture(scope="session")
def lens() -> SimpleNamespace:
    """Functions: ``model`` of a phantom twin made smaller, and ``batch`` of one dataset."""
    return SimpleNamespace(config=_config, model=_model, batch=_batch, size=SIZE)


def _config(name: str, **changes: Any) -> Any:
    # The gate is a leaf's own.
    leaf = "lens-afp_densenet121_4datasets-gate_9s_8e_deeplesion"
    config = load_config(leaf if name.endswith("-gate") else BASES / f"lens_densenet121_{name}.py", twin=True)
    model = config.model.detector if "detector" in config.model else config.model
    model.backbone.update(growth_rate=8, block_config=(1, 1, 1), stem_channels=8)
    model.neck.update(in_channels=(16, 16, 16), out_channels=16)
    dense = model.bbox_head if "bbox_head" in model else model.rpn_head
    (dense.head if "head" in dense else dense).update(in_channels=16, feat_channels=32)
    if "roi_head" in model:
        model.roi_head.bbox_roi_extractor.out_channels = 16
        model.roi_head.bbox_head.update(in_channels=16, fc_out_channels=24)
    config.merge_from_dict(changes)
    return config.model


def _model(name: str, seed: int = 0, **changes: Any) -> Any:
    """The detector with start values of ``seed``; changes as "model.key": value."""
    from mmengine.registry import DefaultScope

    from mmpluld.registry import MODELS

    torch.manual_seed(seed)
    with DefaultScope.overwrite_default_scope("mmpluld"):
        model = MODELS.build(_config(name, **changes))
        model.init_weights()
    return model


def _batch(*datasets: str | None, seed: int = 0, lesions: int = 1) -> dict[str, Any]:
    """One sample of each name, with a bright square as lesion."""
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    generator = torch.Generator().manual_seed(seed)
    data: dict[str, Any] = {"inputs": [], "data_samples": []}
    for name in datasets:
        image = torch.rand(9, SIZE, SIZE, generator=generator) * 40
        x, y = torch.randint(4, 40, (2,), generator=generator).tolist()
        image[:, y : y + 16, x : x + 20] += 120
        meta = {"img_shape": (SIZE, SIZE), "ori_shape": (SIZE, SIZE), "scale_factor": (1.0, 1.0), "dataset": name}
        sample = DetDataSample(metainfo={key: value for key, value in meta.items() if value is not None})
        boxes = torch.tensor([[x, y, x + 20.0, y + 16.0]])[:lesions]
        labels = torch.zeros(len(boxes), dtype=torch.long)
        sample.gt_instances = InstanceData(bboxes=boxes, labels=labels)
        sample.ignored_instances = InstanceData(bboxes=boxes[:0], labels=labels[:0])
        data["inputs"].append(image)
        data["data_samples"].append(sample)
    return data
