"""Every config of the zoo parses, is accepted, builds and runs."""

from pathlib import Path

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData

from mmpluld.engine.config_check import check_config, load_config
from mmpluld.registry import MODELS

ROOT = Path(__file__).resolve().parents[2] / "configs"
LEAVES = sorted(path for path in ROOT.rglob("*.py") if "_base_" not in path.parts)
IDS = [path.stem for path in LEAVES]


@pytest.fixture(autouse=True)
def _scope():
    with DefaultScope.overwrite_default_scope("mmpluld"):
        yield


def test_names_are_unique_and_follow_the_rule():
    assert LEAVES
    assert len(set(IDS)) == len(IDS)
    for name in IDS:
        assert name == name.lower()
        assert name.split("_")[-1] in {"deeplesion", "phantom"}


@pytest.mark.parametrize("path", LEAVES, ids=IDS)
def test_accepted_and_portable(path):
    config = load_config(path)
    check_config(config)
    assert config.default_scope == "mmpluld"
    assert not Path(config.data_root).is_absolute()
    assert Config.fromstring(config.pretty_text, ".py").model == config.model


def _samples(num_boxes: int, size: int) -> list[DetDataSample]:
    sample = DetDataSample(metainfo={"img_shape": (size, size), "ori_shape": (size, size), "scale_factor": (1.0, 1.0)})
    boxes = torch.tensor([[20.0, 24.0, 44.0, 50.0]])[:num_boxes]
    sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.zeros(num_boxes, dtype=torch.long))
    sample.ignored_instances = InstanceData(bboxes=boxes[:0], labels=torch.zeros(0, dtype=torch.long))
    return [sample]


@pytest.mark.parametrize("path", LEAVES, ids=IDS)
@pytest.mark.parametrize("num_boxes", [0, 1])
def test_one_training_step_and_one_prediction(path, num_boxes):
    torch.manual_seed(0)
    config = load_config(path)
    model = MODELS.build(config.model)
    model.init_weights()
    size = 64
    data = {
        "inputs": [torch.rand(config.num_slices, size, size) * 255 - 50],
        "data_samples": _samples(num_boxes, size),
    }
    batch = model.data_preprocessor(data, training=True)
    losses = model(**batch, mode="loss")
    total, _ = model.parse_losses(losses)
    total.backward()
    assert torch.isfinite(total)
    assert all(parameter.grad is None or torch.isfinite(parameter.grad).all() for parameter in model.parameters())
    if num_boxes == 0:
        assert float(losses["loss_bbox"]) == 0.0
    model.eval()
    with torch.no_grad():
        (result,) = model(**model.data_preprocessor(data, training=False), mode="predict")
    assert result.pred_instances.bboxes.shape[1] == 4


@pytest.mark.parametrize(
    "path", [path for path in LEAVES if path.stem.endswith("_phantom")], ids=lambda path: path.stem
)
def test_twin_keeps_what_its_paper_row_is_about(path):
    """A twin is smaller; loss, mixer, sampling of anchors and the kind of every part stay those of the paper config."""
    twin = load_config(path)
    (row,) = path.parent.glob(path.stem.replace("_phantom", "_*_deeplesion.py"))
    paper = load_config(row)
    assert twin.model.rpn_head.loss_cls == paper.model.rpn_head.loss_cls
    assert twin.model.backbone.slice_mixer == paper.model.backbone.slice_mixer
    assert twin.model.backbone.num_slices == paper.model.backbone.num_slices
    assert twin.model.train_cfg.rpn.assigner == paper.model.train_cfg.rpn.assigner
    for part in ("backbone", "neck", "rpn_head", "roi_head"):
        assert twin.model[part].type == paper.model[part].type
