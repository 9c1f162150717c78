"""What backbones start from: ImageNet's weights from a file at the papers' size, trunks of the phantom for twins.

A start is given to a run by its options alone (``model.backbone.init_cfg``), so that the configs name no file; its
SHA-256 belongs to the run's identity.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmpluld.errors import InputError, did_you_mean, name_some
from mmpluld.inputs import sha256_of

if TYPE_CHECKING:
    from mmengine.config import Config

__all__ = [
    "NO_START",
    "Start",
    "StartOf",
    "architecture",
    "backbones",
    "imagenet_starts",
    "random_start",
    "start_options",
    "without_weights",
]

_DENSENET_121 = {"growth_rate": 32, "block_config": [6, 12, 24]}
_DENSENETS = ("TruncatedDenseNet", "LensDenseNet")
_RESNET_18 = {"channels": 64, "num_blocks": [2, 2, 2, 2], "stem_stride": 2, "stem_pool": True}
_INFLATED = "InflatedResNet"  # of the false-positive reduction


@dataclass(frozen=True)
class Start:
    """How the backbones of a run start.

    Attributes:
        options: Changes to its config, as ``--cfg-options`` takes them.
        sha256: Digest of the weights; empty for a random start, and for one that the config itself names.
    """

    options: tuple[str, ...] = ()
    sha256: str = ""


NO_START = Start()
StartOf = Callable[["Config"], Start]
"""Tells the start of a config's backbones."""


def random_start(config: Config) -> Start:
    """That of a config as it is."""
    return NO_START


def backbones(config: Config) -> dict[str, dict[str, Any]]:
    """Dotted place and settings of each backbone of a config that names no start of its own."""
    from mmpluld.engine.nodes import nodes

    return {
        place: dict(node)
        for place, node in nodes(config.model.to_dict(), "model")
        if place.endswith(".backbone") and isinstance(node, Mapping) and node.get("init_cfg") is None
    }


def architecture(backbone: Mapping[str, Any]) -> str:
    """What two backbones have in common that can take the same weights, as a text to be compared."""
    kept = {key: value for key, value in backbone.items() if key not in ("init_cfg", "with_cp")}
    return json.dumps(kept, sort_keys=True)


def start_options(places: Iterable[str], kind: str, file: Path) -> Iterator[str]:
    """Changes to a config that let its backbones at these places start from a file."""
    from mmpluld.engine.option_values import written

    for place in places:
        yield f"{place}.init_cfg.type={kind}"
        yield f"{place}.init_cfg.checkpoint={written(str(file))}"


def imagenet_name(backbone: Mapping[str, Any]) -> str | None:
    """Torchvision's name of the network whose ImageNet weights fit a backbone; None if there is none."""
    if backbone["type"] == "ResNet":
        own_width = backbone.get("base_channels", 64) != 64 or backbone.get("num_stages", 4) != 4
        return None if own_width else f"resnet{backbone['depth']}"
    shape = json.loads(architecture(backbone))
    if backbone["type"] == _INFLATED:
        return "resnet18" if all(shape[key] == value for key, value in _RESNET_18.items()) else None
    fits = backbone["type"] in _DENSENETS and all(shape[key] == value for key, value in _DENSENET_121.items())
    return "densenet121" if fits else None


def imagenet_starts(given: Sequence[str], configs: Iterable[tuple[str, Config]]) -> StartOf:
    """Starts from ImageNet's weights.

    Args:
        given: ``NAME=FILE_OR_URL`` each, with torchvision's name of the network.
        configs: Name and config of every row.

    Raises:
        InputError: If a name is not that of a row's backbone or given twice, or the weights cannot be had or do not
            fit.
    """
    from mmpluld.zoo.download import local_checkpoint

    found = [backbone for _, config in configs for backbone in backbones(config).values()]
    fitting = {architecture(backbone): (imagenet_name(backbone), backbone) for backbone in found}
    known = sorted({name for name, _ in fitting.values() if name})
    files: dict[str, tuple[Path, str]] = {}
    for item in given:
        name, equals, source = item.partition("=")
        if not (equals and source):
            raise InputError(f"--pretrained {item}: write NAME=FILE_OR_URL, for example densenet121=FILE")
        if name not in known:
            hint = did_you_mean(name, known, f"they have {', '.join(known) or 'none with ImageNet weights'}")
            raise InputError(f"--pretrained {name}: none of the rows has this backbone{hint}")
        if name in files:
            raise InputError(f"--pretrained {name}: is given twice; leave one out")
        path = local_checkpoint(source).expanduser().absolute()
        for other, backbone in fitting.values():
            if other == name:
                _check_fits(path, backbone)
        files[name] = path, sha256_of(path)

    def start(config: Config) -> Start:
        own = backbones(config)
        options: list[str] = []
        digests: list[str] = []
        for place, backbone in own.items():
            name = imagenet_name(backbone)
            if name in files:
                kinds = {"ResNet": "Pretrained", _INFLATED: "ResNetImageNet"}
                options += start_options([place], kinds.get(backbone["type"], "DenseNetImageNet"), files[name][0])
                digests.append(files[name][1])
        return Start(tuple(options), "+".join(sorted(set(digests))))

    return start


def without_weights(starts: StartOf, configs: Iterable[tuple[str, Config]]) -> str:
    """One line on the rows whose backbones start from random weights; empty if there are none."""
    lacking: dict[str, list[str]] = {}
    for row, config in configs:
        if not starts(config).options:
            for backbone in backbones(config).values():
                lacking.setdefault(imagenet_name(backbone) or backbone["type"], []).append(row)
    if not lacking:
        return ""
    rows = {row: None for found in lacking.values() for row in found}
    example = " ".join(f"{name}=FILE" for name in lacking)
    return (
        f"{name_some(list(rows))}: no ImageNet weights, which the papers start from; training starts from random ones. "
        f"Give them with `--pretrained {example}`, or say `--pretrained none`"
    )


def _check_fits(path: Path, backbone: Mapping[str, Any]) -> None:
    """InputError unless a backbone finds all of its weights in a file."""
    from mmpluld.engine.checkpoint import load_checkpoint_safely, misfits, state_dict_of
    from mmpluld.models.backbones import DenseNetImageNet
    from mmpluld.models.classifiers import ResNetImageNet
    from mmpluld.registry import MODELS

    model = MODELS.build({**backbone, "init_cfg": None})
    if backbone["type"] in _DENSENETS:
        DenseNetImageNet(str(path))(model)
        return
    if backbone["type"] == _INFLATED:
        ResNetImageNet(str(path))(model)
        return
    state, own = state_dict_of(load_checkpoint_safely(path), path), model.state_dict()
    # The file has a classifier too, and one from before PyTorch 0.4.1 no batch counters.
    counters = {key: value for key, value in own.items() if key.endswith("num_batches_tracked")}
    problems = misfits(counters | {key: value for key, value in state.items() if key in own}, model)
    if problems:
        raise InputError(
            f"{path}: not the weights of a {imagenet_name(backbone)}, {problems}; download torchvision's and give that "
            "file"
        )
