"""Weights of a training that failed, or of a damaged file, are refused by whatever command reads them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from mmengine.model import BaseModule
from mmengine.registry import DefaultScope
from safetensors.torch import load
from torch import nn

from mmpluld.cli.main import main
from mmpluld.engine.config import load_config
from mmpluld.errors import InputError
from mmpluld.inference.volume_detector import VolumeDetector
from mmpluld.models.backbones.imagenet import DenseNetImageNet
from mmpluld.zoo.bundle import WEIGHTS, Bundle

ZOO = Path(__file__).parents[2] / "checkpoints"
CONFIG = "pluld-a3d_densenet121-fpn_7s_phantom"


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The shipped weights with one value that is no number, and with one bit of a weight turned."""
    folder = tmp_path_factory.mktemp("failed")
    (shipped,) = ZOO.glob(f"{CONFIG}-*.zip")
    weights = load(Bundle.open(shipped).read(WEIGHTS))
    source = folder / "whole.pth"
    torch.save({"state_dict": weights}, source)
    weights["backbone.conv0.weight"].view(-1)[5] = float("nan")
    torch.save({"state_dict": weights}, folder / "nan.pth")
    data = bytearray(source.read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "flipped.pth").write_bytes(data)
    return {"nan": folder / "nan.pth", "flipped": folder / "flipped.pth"}


class Inner(BaseModule):
    def __init__(self, checkpoint: Path) -> None:
        super().__init__({"type": "Pretrained", "checkpoint": str(checkpoint)})
        self.layer = nn.Linear(1, 1)


def detect(path: Path) -> None:
    VolumeDetector(load_config(CONFIG), path)


def initialise(path: Path) -> None:
    Inner(path).init_weights()


def imagenet(path: Path) -> None:
    DenseNetImageNet(str(path))(nn.Identity())


def command(*arguments: str) -> Callable[[Path], None]:
    def run(path: Path) -> None:
        target = path.with_name("out.pth")
        line = [str({"SOURCE": path, "TARGET": target, "DIR": path.parent}.get(item, item)) for item in arguments]
        assert main(line) == 2
        assert not target.exists()

    return run


READERS = {
    "test": command("test", CONFIG, "SOURCE", "--work-dir", "DIR"),
    "convert-checkpoint": command("convert-checkpoint", "alignshift", "SOURCE", "TARGET"),
    "detect": detect,
    "init_cfg": initialise,
    "ImageNet": imagenet,
}


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (
            "nan",
            r"nan.pth: 1 of its tensors hold NaN or infinity \(state_dict.backbone.conv0.weight\), so the training",
        ),
        ("flipped", r"flipped.pth: not a checkpoint, or damaged \(the check sum of its record \S+/data/\d+ is wrong\)"),
    ],
)
@pytest.mark.parametrize("reader", READERS)
def test_every_reader_refuses(
    failed: dict[str, Path], reader: str, fault: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with DefaultScope.overwrite_default_scope("mmpluld"):
        try:
            READERS[reader](failed[fault])
            said = capsys.readouterr().err.splitlines()[-1]
        except InputError as error:
            said = str(error)
    assert re.search(message, said)
