from __future__ import annotations

import re

import pytest
import torch

from mmpluld.errors import InputError
from mmpluld.models.backbones import TruncatedDenseNet, map_imagenet_keys
from mmpluld.registry import MODELS


@pytest.fixture(scope="module")
def torchvision_state() -> dict[str, torch.Tensor]:
    """Tensors of torchvision's densenet121 under their new names, with the parts that we do not use."""
    torch.manual_seed(0)
    state = {}
    for key, value in TruncatedDenseNet(3, slice_mixer=None).state_dict().items():
        if not key.startswith("reductionz"):
            shape = (64, 3, 7, 7) if key == "conv0.weight" else value.shape
            state[f"features.{key}"] = torch.randint(0, 9, shape).to(value.dtype)
    unused = ("features.norm5.weight", "features.denseblock4.denselayer1.norm1.weight", "classifier.weight")
    return state | {name: torch.ones(4) for name in unused}


def old_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The names that the published file has."""
    return {
        re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", key): value
        for key, value in state.items()
        if not key.endswith("num_batches_tracked")
    }


def build(checkpoint, **kwargs) -> TruncatedDenseNet:
    """A backbone with its weights initialised from ``checkpoint``."""
    init_cfg = {"type": "DenseNetImageNet", "checkpoint": str(checkpoint), **kwargs}
    model = MODELS.build({"type": "TruncatedDenseNet", "num_slices": 3, "init_cfg": init_cfg})
    model.init_weights()
    return model


@pytest.mark.parametrize("rename", [dict, old_names], ids=["new names", "old names"])
def test_loads_the_trunk_and_nothing_else(tmp_path, torchvision_state, rename):
    torch.save(rename(torchvision_state), tmp_path / "weights.pth")
    state = build(tmp_path / "weights.pth").state_dict()
    left = {k for k in state if f"features.{k}" not in torchvision_state}
    assert left == {k for k in state if ".mixer." in k or k.startswith("reductionz")}
    for key in state.keys() - left - {"conv0.weight"}:
        if not key.endswith("num_batches_tracked"):
            assert torch.equal(state[key], torchvision_state[f"features.{key}"]), key


def test_stem_rules():
    kernel = torch.tensor([1.0, 2.0, 6.0]).view(1, 3, 1, 1)
    values = {rule: map_imagenet_keys({"features.conv0.weight": kernel}, rule)["conv0.weight"].item() for rule in
              ("green", "sum", "mean")}  # fmt: skip
    assert values == {"green": 2.0, "sum": 9.0, "mean": 3.0}


@pytest.mark.parametrize(
    ("slices", "colours"), [(2, "gb"), (3, "rgb"), (4, "rgbr"), (5, "brgbr"), (7, "gbrgbrg"), (9, "rgbrgbrgb")]
)
def test_slices_as_channels_repeat_the_colours_around_green(slices, colours):
    kernel = torch.tensor([1.0, 2.0, 6.0]).view(1, 3, 1, 1)
    mapped = map_imagenet_keys({"features.conv0.weight": kernel}, stem_channels=slices)["conv0.weight"]
    assert mapped.flatten().tolist() == [{"r": 1.0, "g": 2.0, "b": 6.0}[colour] for colour in colours]


def test_loads_all_of_the_network_with_slices_as_channels(tmp_path, torchvision_state):
    torch.save(torchvision_state, tmp_path / "weights.pth")
    init_cfg = {"type": "DenseNetImageNet", "checkpoint": str(tmp_path / "weights.pth")}
    model = MODELS.build(
        {
            "type": "TruncatedDenseNet",
            "num_slices": 7,
            "slices_as": "channels",
            "slice_mixer": None,
            "init_cfg": init_cfg,
        }
    )
    model.init_weights()
    state = model.state_dict()
    assert {f"features.{key}" for key in state} <= set(torchvision_state)
    colour = torchvision_state["features.conv0.weight"]
    assert torch.equal(state.pop("conv0.weight")[:, 2:5], colour)
    for key, value in state.items():
        assert torch.equal(value, torchvision_state[f"features.{key}"]), key


def test_unknown_stem_rule_gets_a_suggestion():
    with pytest.raises(InputError, match=r"'gren' is not one of green, sum, mean; did you mean 'green'\?"):
        map_imagenet_keys({}, "gren")


def test_no_tensors_map_to_none():
    assert map_imagenet_keys({}) == {}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file; download torchvision's densenet121"),
        (b"not a checkpoint", "not a checkpoint, or damaged"),
        ({"epoch": 3}, "holds no state dict"),
        ({"features.conv0.weight": torch.zeros(64, 3, 7, 7)}, "lacks norm0.weight and"),
    ],
    ids=["missing", "broken", "no tensors", "incomplete"],
)
def test_bad_file_is_named(tmp_path, content, message):
    path = tmp_path / "weights.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(InputError, match=f"weights.pth: {message}"):
        build(path)


def test_other_widths_are_refused(tmp_path, torchvision_state):
    torch.save({**torchvision_state, "features.norm0.weight": torch.ones(32)}, tmp_path / "weights.pth")
    with pytest.raises(InputError, match=r"norm0.weight has shape \(32,\), the model \(64,\)"):
        build(tmp_path / "weights.pth")
