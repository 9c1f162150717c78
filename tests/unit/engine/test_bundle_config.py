"""A bundle's config is data: the same model comes back, and nothing that it names can run code."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from mmpluld.engine.bundle_config import bundle_config, config_bytes
from mmpluld.engine.config import load_config
from mmpluld.errors import InputError
from mmpluld.zoo.bundle import Bundle, bundle_bytes

NAMES = ["pluld-a3d_densenet121-fpn_7s_phantom", "lens-afp_densenet121_4datasets_9s_phantom", "fpr_resnet18_phantom"]


def bundled(folder: Path, config: bytes) -> Bundle:
    path = folder / "toy.zip"
    path.write_bytes(bundle_bytes("toy", {}, {"config.json": config, "weights.safetensors": b"", "card.md": b""}))
    return Bundle.open(path)


@pytest.fixture(scope="module")
def plain() -> bytes:
    return config_bytes(load_config(NAMES[0]), NAMES[0])


@pytest.mark.parametrize("name", NAMES)
def test_what_detection_reads_comes_back_with_tuples(name: str, tmp_path: Path) -> None:
    config = load_config(name)
    found = bundle_config(bundled(tmp_path, config_bytes(config, name)))
    assert found.model.to_dict() == config.model.to_dict()
    assert found.test_dataloader.dataset.pipeline == config.test_dataloader.dataset.pipeline
    assert found.filename == "toy.py"
    assert "/" not in json.dumps(json.loads(config_bytes(config, name))), "no path of anybody's machine"


EVIL = "os.system"
PLACES = {
    "model": lambda content: content["model"].update(type=EVIL, command="touch ran"),
    "part": lambda content: content["model"]["backbone"].update(type="builtins.exec"),
    "suppression": lambda content: content["model"]["test_cfg"]["rcnn"]["nms"].update(type="__import__('os').abort()"),
    "evaluated": lambda content: content["model"].update(
        extra={"type": "CameraMotionCompensation", "warp_mode": "1/0"}
    ),
    "scope": lambda content: content["model"].update(_scope_="mmrotate"),
    "default scope": lambda content: content.update(default_scope="mmrotate"),
    "import": lambda content: content.update(custom_imports={"imports": ["this"]}),
    "hooks": lambda content: content.update(custom_hooks=[{"type": "CheckpointHook"}]),
    "number": lambda content: content["model"].update(type=7),
    "no model": lambda content: content.pop("model"),
    "unknown key": lambda content: content["model"].update(backbones={}),
}


REASONS = {
    "model": "model.type is 'os.system'; a bundle may name only",
    "part": "model.backbone.type is 'builtins.exec'; a bundle may name only",
    "suppression": "model.test_cfg.rcnn.nms.type is ",
    "evaluated": "model.extra.type is 'CameraMotionCompensation'; a bundle may name only",
    "scope": "model._scope_ is 'mmrotate'; ",
    "default scope": "default_scope is 'mmrotate'; ",
    "import": "has 'custom_imports'; a bundle's config may have ",
    "hooks": "has 'custom_hooks'; a bundle's config may have ",
    "number": "model.type is '7'; ",
    "no model": "is no config of a model; fetch the bundle again",
    "unknown key": "model.backbones: MaskRCNN has no such argument; did you mean 'backbone'?",
}


@pytest.mark.parametrize("place", PLACES)
def test_what_could_run_code_is_refused(place: str, plain: bytes, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    content = json.loads(plain)
    PLACES[place](content)
    with pytest.raises(InputError, match=re.escape(f"{tmp_path / 'toy.zip'}, config.json: {REASONS[place]}")):
        bundle_config(bundled(tmp_path, json.dumps(content).encode()))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model.type": "mylib.Detector"}, "toy: model.type is 'mylib.Detector'; a bundle may name only"),
        ({"model.backbone.scale": float("inf")}, "toy: cannot be written as JSON"),
        ({"test_dataloader": None}, "toy: has no model or no pipeline of test_dataloader"),
    ],
)
def test_config_that_cannot_be_published(change: dict, message: str) -> None:
    config = load_config(NAMES[0])
    if "test_dataloader" in change:
        config.test_dataloader = {}
    else:
        config.merge_from_dict(change)
    with pytest.raises(InputError, match=message):
        config_bytes(config, "toy")
