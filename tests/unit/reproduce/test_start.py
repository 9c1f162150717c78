"""Starts from ImageNet: which rows they fit, what is refused, and what a run without is told."""

from __future__ import annotations

import pytest
import torch

from mmpluld.engine.config import load_config
from mmpluld.errors import InputError
from mmpluld.inputs import sha256_of
from mmpluld.models.backbones import TruncatedDenseNet
from mmpluld.registry import MODELS
from mmpluld.reproduce.plan import Plan
from mmpluld.reproduce.rows import FPR
from mmpluld.reproduce.start import architecture, backbones, imagenet_starts, random_start, without_weights
from mmpluld.reproduce.steps import step_of
from mmpluld.reproduce.tables import TABLES


@pytest.fixture(scope="module")
def configs():
    """Two rows of the paper's size, one of each kind of backbone."""
    rows = [TABLES["table1"].row(key) for key in ("a3d", "faster-rcnn")]
    return [(row.key, load_config(row.config_name(False))) for row in rows]


@pytest.fixture(scope="module")
def files(tmp_path_factory, configs):
    """Files with the names and shapes of torchvision's weights."""
    folder = tmp_path_factory.mktemp("weights")
    state = TruncatedDenseNet(3, slice_mixer=None).state_dict()
    dense = {f"features.{key}": value for key, value in state.items() if not key.startswith("reductionz")}
    torch.save(dense | {"features.conv0.weight": torch.ones(64, 3, 7, 7)}, folder / "dense.pth")
    residual = MODELS.build(configs[1][1].model.backbone).state_dict()
    residual = {key: value for key, value in residual.items() if not key.endswith("num_batches_tracked")}
    torch.save(residual | {"fc.weight": torch.ones(1000, 2048)}, folder / "res.pth")
    return {"densenet121": folder / "dense.pth", "resnet50": folder / "res.pth"}


def test_each_row_starts_from_the_weights_of_its_backbone(configs, files):
    starts = imagenet_starts([f"{name}={file}" for name, file in files.items()], configs)
    for (_, config), name, kind in zip(configs, files, ("DenseNetImageNet", "Pretrained"), strict=True):
        start = starts(config)
        place = "model.backbone.init_cfg"
        assert start.options == (f"{place}.type={kind}", f"{place}.checkpoint={files[name]}")
        assert start.sha256 == sha256_of(files[name])
    assert without_weights(starts, configs) == ""


def test_options_reach_the_backbone(configs, files):
    starts = imagenet_starts([f"densenet121={files['densenet121']}"], configs)
    row = TABLES["table1"].row("a3d").config_name(False)
    config = load_config(row, list(starts(configs[0][1]).options))
    assert config.model.backbone.init_cfg == {"type": "DenseNetImageNet", "checkpoint": str(files["densenet121"])}
    assert backbones(config) == {}  # it has a start of its own now
    assert starts(config).options == ()


def test_the_false_positive_reduction_starts_from_an_inflated_resnet(tmp_path):
    name = FPR("average", TABLES["lens-table2"].row("lens-mined")).config_name(twin=False)
    config = load_config(name)
    assert without_weights(random_start, [(name, config)]).startswith(f"{name}: no ImageNet weights")
    flat = {
        key: value if value.dim() < 5 else torch.ones(value.shape[0], value.shape[1], *value.shape[3:])
        for key, value in MODELS.build(config.model.backbone).state_dict().items()
    }
    torch.save(flat | {"conv1.weight": torch.ones(64, 3, 7, 7)}, tmp_path / "resnet18.pth")
    starts = imagenet_starts([f"resnet18={tmp_path / 'resnet18.pth'}"], [(name, config)])
    built = load_config(name, list(starts(config).options)).model.backbone
    assert built.init_cfg == {"type": "ResNetImageNet", "checkpoint": str(tmp_path / "resnet18.pth")}
    plan = Plan([], tmp_path, "lens-3d", False, "test", None, (), starts)
    before = step_of("before", 0, tmp_path / "before", [], (), list, tmp_path / "candidates.json")
    step = plan._training("classifier", tmp_path / "run", 0, name, [before], ())
    assert set(starts(config).options) < set(step.arguments())
    assert step.identity["settings"][1:] == [sha256_of(tmp_path / "resnet18.pth")]


def test_rows_without_weights_are_named(configs, files):
    line = without_weights(random_start, configs)
    assert line.startswith("a3d, faster-rcnn: no ImageNet weights")
    assert "--pretrained densenet121=FILE resnet50=FILE" in line
    starts = imagenet_starts([f"densenet121={files['densenet121']}"], configs)
    assert without_weights(starts, configs).startswith("faster-rcnn: no ImageNet weights")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["densenet121"], "write NAME=FILE_OR_URL"),
        (["resnet5={res}"], "none of the rows has this backbone; did you mean 'resnet50'"),
        (["densenet121={nowhere}"], "no such"),
        (["densenet121={res}"], "res.pth: lacks conv0.weight"),
        (["resnet50={dense}"], "dense.pth: not the weights of a resnet50, of 318 tensors 265 missing"),
        (["resnet50={res}", "resnet50={res}"], "is given twice"),
    ],
)
def test_refused(configs, files, tmp_path, given, message):
    places = {"dense": files["densenet121"], "res": files["resnet50"], "nowhere": tmp_path / "no.pth"}
    with pytest.raises(InputError, match=message):
        imagenet_starts([item.format(**places) for item in given], configs)


def test_a_start_belongs_to_the_identity(planned):
    from mmpluld.reproduce.start import Start

    def start_of(config):
        return Start(("model.backbone.init_cfg.type=TrunkWeights",), "a" * 64)

    run = planned(seeds=1, start_of=start_of)[0]
    assert run.identity["start_sha256"] == "a" * 64
    assert "model.backbone.init_cfg.type=TrunkWeights" in run.options
    assert planned(seeds=1)[0].identity | {"start_sha256": "a" * 64} == run.identity


def test_architecture_is_what_the_shapes_depend_on(configs):
    backbone = configs[0][1].model.backbone.to_dict()
    assert architecture(backbone) == architecture({**backbone, "with_cp": True, "init_cfg": {"type": "x"}})
    assert architecture(backbone) == architecture({**backbone, "block_config": [6, 12, 24]})
    assert architecture(backbone) != architecture({**backbone, "growth_rate": 16})
