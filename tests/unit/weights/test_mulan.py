"""Weights of the published MULAN code: conversion, and scores against the published detector in plain float64."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData
from torch import Tensor
from torch.nn import functional as F

from mmpluld.cli.main import main
from mmpluld.datasets.steps import pipeline_steps
from mmpluld.engine.checkpoint import load_weights
from mmpluld.engine.config import find_config, load_config
from mmpluld.errors import InputError
from mmpluld.registry import MODELS, TASK_UTILS, TRANSFORMS
from mmpluld.weights.mulan import ZOO_CONFIG, convert_mulan, convert_mulan_state_dict

SIZE, STRIDE = 64, 4


@dataclass(frozen=True)
class Sizes:
    """Widths of a detector; the defaults are the published ones."""

    blocks: tuple[int, ...] = (6, 12, 24)
    growth: int = 32
    bottleneck: int = 128
    stem: int = 64
    fused: int = 512
    anchors: int = 15
    fc: int = 2048
    mask: int = 256
    tag_fc: int = 1024
    tags: int = 171
    features: int = 0


TINY = Sizes(blocks=(2, 1, 2), growth=4, bottleneck=8, stem=8, fused=8, fc=16, mask=4, tag_fc=12, tags=5)


# ------------------------------------------------------------------------------------------------ checkpoints
def layout(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the published state dict."""
    shapes: dict[str, tuple[int, ...]] = {}

    def norm(name: str, channels: int) -> None:
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.{part}"] = (channels,)
        shapes[f"{name}.num_batches_tracked"] = ()

    def affine(name: str, *shape: int, outputs: int | None = None) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = shape, (outputs or shape[0],)

    shapes["backbone.conv0.weight"] = (sizes.stem, 3, 7, 7)
    norm("backbone.norm0", sizes.stem)
    channels, maps = sizes.stem, []
    for block, layers in enumerate(sizes.blocks, 1):
        for layer in range(1, layers + 1):
            name = f"backbone.denseblock{block}.denselayer{layer}"
            norm(f"{name}.norm1", channels)
            shapes[f"{name}.conv1.weight"] = (sizes.bottleneck, channels, 1, 1)
            norm(f"{name}.norm2", sizes.bottleneck)
            shapes[f"{name}.conv2.weight"] = (sizes.growth, sizes.bottleneck, 3, 3)
            channels += sizes.growth
        maps.append(channels)
        if block < len(sizes.blocks):
            norm(f"backbone.transition{block}.norm", channels)
            shapes[f"backbone.transition{block}.conv.weight"] = (channels // 2, channels, 1, 1)
            channels //= 2
            middle = channels
    for index, width in enumerate(maps, 2):
        affine(f"backbone.lateral{index}", sizes.fused, width, 1, 1)
    affine("backbone.conv_ilf2", middle, 3 * middle, 1, 1)
    shapes["rpn.anchor_generator.cell_anchors.0"] = (sizes.anchors, 4)
    affine("rpn.head.conv", sizes.fused, sizes.fused, 3, 3)
    affine("rpn.head.cls_logits", sizes.anchors, sizes.fused, 1, 1)
    affine("rpn.head.bbox_pred", 4 * sizes.anchors, sizes.fused, 1, 1)
    affine("roi_heads.box.feature_extractor.fc6", sizes.fc, sizes.fused * 49)
    affine("roi_heads.box.feature_extractor.fc7", sizes.fc, sizes.fc)
    affine("roi_heads.box.predictor.cls_score", 2, sizes.fc)
    affine("roi_heads.box.predictor.bbox_pred", 8, sizes.fc)
    for index in range(1, 5):
        width = sizes.fused if index == 1 else sizes.mask
        affine(f"roi_heads.mask.feature_extractor.mask_fcn{index}", sizes.mask, width, 3, 3)
    affine("roi_heads.mask.predictor.conv5_mask", sizes.mask, sizes.mask, 2, 2)
    affine("roi_heads.mask.predictor.mask_fcn_logits", 2, sizes.mask, 1, 1)
    affine("roi_heads.tag.feature_extractor.fc8", sizes.tag_fc, sizes.fused * 49)
    affine("roi_heads.tag.feature_extractor.fc9", sizes.tag_fc, sizes.tag_fc)
    affine("roi_heads.tag.predictor.cls_score", sizes.tags, sizes.tag_fc)
    inputs = 2 + sizes.tags + sizes.features
    affine("roi_heads.refine.score_propa_tag", sizes.tags, inputs)
    affine("roi_heads.refine.score_propa_clsf", 2, inputs)
    affine("feature_fuse.conv", sizes.fused, 3 * sizes.fused, 1, 1)
    return shapes


def weights(sizes: Sizes = TINY, seed: int = 0) -> dict[str, Tensor]:
    """Random weights of sane scale, and the published anchors."""
    generator = torch.Generator().manual_seed(seed)
    result = {}
    for name, shape in layout(sizes).items():
        noise = torch.randn(shape, generator=generator)
        if name.endswith("num_batches_tracked"):
            value = torch.tensor(9)
        elif "cell_anchors" in name:
            value = torch.tensor(cell_anchors(), dtype=torch.float32)
        elif name.endswith("running_var"):
            value = 1 + 0.2 * noise.abs()
        elif name.endswith("running_mean"):
            value = 0.2 * noise
        elif name.endswith("bias"):
            value = 0.1 * noise
        elif ".norm" in name:
            value = 1 + 0.2 * noise
        else:
            value = noise * (2 / noise[0].numel()) ** 0.5
        result[name] = value
    return result


def write(folder: Path, state_dict: dict[str, Tensor], **more: object) -> Path:
    path = folder / "MULAN_epoch_08.pth"
    optimizer = {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": [{"lr": 0.004}]}
    content = {"model": state_dict, "optimizer": optimizer, **more}
    torch.save(content, path, _use_new_zipfile_serialization=False)
    return path


@pytest.fixture
def tiny_config(tmp_path: Path) -> Path:
    return write_tiny_config(tmp_path)


def write_tiny_config(folder: Path, features: str = "[]") -> Path:
    path = folder / f"tiny-{ZOO_CONFIG}.py"
    path.write_text(
        f"""
_base_ = {str(find_config(ZOO_CONFIG).path)!r}
model = dict(
    backbone=dict(growth_rate=4, bn_size=2, block_config=(2, 1, 2), stem_channels=8),
    neck=dict(in_channels=(16, 12, 14), out_channels=8),
    rpn_head=dict(in_channels=8, feat_channels=8),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=8),
        bbox_head=dict(in_channels=8, fc_out_channels=16),
        mask_roi_extractor=dict(out_channels=8),
        mask_head=dict(in_channels=8, conv_out_channels=4),
        tag_roi_extractor=dict(out_channels=8),
        tag_head=dict(num_tags=5, in_channels=8, fc_out_channels=12),
        refine_head=dict(num_tags=5, features={features}),
    ),
)
"""
    )
    return path


# --------------------------------------------------------- the published detector; boxes name their last pixel
def cell_anchors() -> np.ndarray:
    """(15, 4): 6 x 3, 4 x 4 and 3 x 6 pixels, times 4 to 24, about pixel position 1.5."""
    shapes = [(w * s, h * s) for w, h in ((6, 3), (4, 4), (3, 6)) for s in (4, 6, 8, 12, 24)]
    return np.array([[1.5 - (w - 1) / 2, 1.5 - (h - 1) / 2, 1.5 + (w - 1) / 2, 1.5 + (h - 1) / 2] for w, h in shapes])


def roi_align(feature: np.ndarray, box: np.ndarray, size: int) -> np.ndarray:
    """(C, size, size) from (C, H, W): 2 x 2 samples per bin from x1 / 4 to x2 / 4, at least one cell."""
    start = box[:2] / STRIDE
    bins = np.maximum(box[2:] / STRIDE - start, 1) / size

    def read(positions: np.ndarray, length: int) -> np.ndarray:
        rows = np.zeros((len(positions), length))
        for row, position in zip(rows, positions, strict=True):
            if -1 <= position <= length:
                position = min(max(position, 0.0), length - 1.0)
                low = math.floor(position)
                row[low] += low + 1 - position
                row[min(low + 1, length - 1)] += position - low
        return rows

    steps = (np.arange(2 * size) + 0.5) / 2
    samples = read(start[1] + steps * bins[1], feature.shape[1]) @ feature
    samples = samples @ read(start[0] + steps * bins[0], feature.shape[2]).T
    return samples.reshape(len(feature), size, 2, size, 2).mean((2, 4))


class PublishedMulan:
    """One stack through the published detector."""

    def __init__(self, published: SimpleNamespace, state_dict: dict[str, Tensor]) -> None:
        self.published = published
        self.weights = {name: value.double() for name, value in state_dict.items()}

    def conv(self, name: str, x: Tensor, **kwargs: int) -> Tensor:
        return F.conv2d(x, self.weights[f"{name}.weight"], self.weights.get(f"{name}.bias"), **kwargs)

    def linear(self, name: str, x: Tensor) -> Tensor:
        return F.linear(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def norm_relu(self, name: str, x: Tensor) -> Tensor:
        mean, var, scale, shift = (
            self.weights[f"{name}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return ((x - mean) / (var + 1e-5).sqrt() * scale + shift).clamp(min=0)

    def features(self, stack: Tensor) -> Tensor:
        """The fused map (1, C, H / 4, W / 4) of a stack (9, H, W) as three images."""
        x = stack.double().reshape(3, 3, *stack.shape[1:])
        x = self.norm_relu("backbone.norm0", self.conv("backbone.conv0", x, stride=2, padding=3))
        x = F.max_pool2d(x, 3, 2, 1)
        maps = []
        for block, layers in enumerate(TINY.blocks, 1):
            for layer in range(1, layers + 1):
                name = f"backbone.denseblock{block}.denselayer{layer}"
                y = self.conv(f"{name}.conv1", self.norm_relu(f"{name}.norm1", x))
                y = self.conv(f"{name}.conv2", self.norm_relu(f"{name}.norm2", y), padding=1)
                x = torch.cat([x, y], dim=1)
            maps.append(x)
            if block < 3:
                name = f"backbone.transition{block}"
                x = F.avg_pool2d(self.conv(f"{name}.conv", self.norm_relu(f"{name}.norm", x)), 2)
            if block == 2:
                side_by_side = torch.cat([x[0], x[1], x[2]])[None]
                x = torch.stack([x[0], self.conv("backbone.conv_ilf2", side_by_side)[0], x[2]])
        y = self.conv("backbone.lateral4", maps[2])
        for level in (3, 2):
            y = F.interpolate(y, scale_factor=2, mode="nearest") + self.conv(
                f"backbone.lateral{level}", maps[level - 2]
            )
        return self.conv("feature_fuse.conv", torch.cat([y[0], y[1], y[2]])[None])

    def rpn(self, fused: Tensor) -> tuple[Tensor, Tensor]:
        x = self.conv("rpn.head.conv", fused, padding=1).clamp(min=0)
        return self.conv("rpn.head.cls_logits", x), self.conv("rpn.head.bbox_pred", x)

    def proposals(self, fused: Tensor) -> np.ndarray:
        logits, deltas = self.rpn(fused)
        height, width = logits.shape[2:]
        scores = logits[0].permute(1, 2, 0).reshape(-1).numpy()
        deltas = deltas[0].reshape(15, 4, height, width).permute(2, 3, 0, 1).reshape(-1, 4).numpy()
        cells = np.array([[x, y, x, y] for y in range(height) for x in range(width)]) * STRIDE
        anchors = (cells[:, None] + cell_anchors()[None]).reshape(-1, 4)
        boxes = self.published.decode(anchors, deltas, SIZE, SIZE)
        large = (boxes[:, 2:] - boxes[:, :2] + 1 >= 8).all(axis=1)
        boxes, scores = boxes[large], scores[large]
        return boxes[self.published.nms(boxes, scores, 0.7)[:300]]

    def pooled(self, fused: Tensor, boxes: np.ndarray, size: int) -> Tensor:
        return torch.tensor(np.stack([roi_align(fused[0].numpy(), box, size) for box in boxes]))

    def detect(self, fused: Tensor, score_thr: float) -> SimpleNamespace:
        """Boxes, scores, tags and masks of the detections, best first before refinement."""
        proposals = self.proposals(fused)
        x = self.pooled(fused, proposals, 7).flatten(1)
        for name in ("fc6", "fc7"):
            x = self.linear(f"roi_heads.box.feature_extractor.{name}", x).clamp(min=0)
        logits = self.linear("roi_heads.box.predictor.cls_score", x)
        deltas = self.linear("roi_heads.box.predictor.bbox_pred", x)[:, 4:]
        scores = logits.softmax(1)[:, 1].numpy()
        boxes = self.published.decode(proposals, deltas.numpy(), SIZE, SIZE)
        above = np.flatnonzero(scores > score_thr)
        kept = above[self.published.nms(boxes[above], scores[above], 0.5)[:50]]
        boxes, logits = boxes[kept], logits[kept]
        y = self.pooled(fused, boxes, 7).flatten(1)
        for name in ("fc8", "fc9"):
            y = self.linear(f"roi_heads.tag.feature_extractor.{name}", y).clamp(min=0)
        both = torch.cat([logits, self.linear("roi_heads.tag.predictor.cls_score", y)], dim=1)
        refined = self.linear("roi_heads.refine.score_propa_clsf", both).softmax(1)[:, 1]
        tags = self.linear("roi_heads.refine.score_propa_tag", both).sigmoid()
        z = self.pooled(fused, boxes, 14)
        for index in range(1, 5):
            z = self.conv(f"roi_heads.mask.feature_extractor.mask_fcn{index}", z, padding=1).clamp(min=0)
        name = "roi_heads.mask.predictor.conv5_mask"
        z = F.conv_transpose2d(z, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], stride=2).clamp(min=0)
        masks = self.conv("roi_heads.mask.predictor.mask_fcn_logits", z)[:, 1].sigmoid()
        return SimpleNamespace(boxes=boxes, scores=refined.numpy(), tags=tags.numpy(), masks=masks.numpy())


def stack() -> Tensor:
    """Nine slices (9, 64, 64) in the range of the window."""
    return torch.rand(9, SIZE, SIZE, generator=torch.Generator().manual_seed(1)) * 255 - 50


def batch() -> dict:
    meta = {"img_shape": (SIZE, SIZE), "ori_shape": (SIZE, SIZE), "scale_factor": (1.0, 1.0)}
    return {"inputs": [stack()], "data_samples": [DetDataSample(metainfo=meta)]}


def predict(model: torch.nn.Module) -> InstanceData:
    with torch.no_grad():
        (result,) = model.test_step(batch())
    return result.pred_instances


@pytest.fixture(scope="module")
def pair(
    published: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory
) -> tuple[PublishedMulan, torch.nn.Module]:
    """The published detector and ours with its weights, for all tests: who changes a part puts it back."""
    folder = tmp_path_factory.mktemp("converted")
    tiny_config = write_tiny_config(folder)
    state_dict = weights(seed=3)
    # Features of order 1, so that scores do not saturate and boxes spread over the image.
    spread = PublishedMulan(published, state_dict).features(stack()).std().float()
    state_dict["feature_fuse.conv.weight"] /= spread
    convert_mulan(write(folder, state_dict), folder / "mulan.pth", config=tiny_config)
    with DefaultScope.overwrite_default_scope("mmpluld"):
        model = MODELS.build(load_config(tiny_config).model).eval()
    load_weights(model, folder / "mulan.pth")
    return PublishedMulan(published, state_dict), model


class TestScores:
    @pytest.mark.parametrize("training_path", [True, False], ids=["plain", "fused"])
    def test_features_and_proposal_logits(
        self, pair: tuple[PublishedMulan, torch.nn.Module], training_path: bool
    ) -> None:
        reference, model = pair
        inputs = model.data_preprocessor(batch())["inputs"]
        with torch.set_grad_enabled(training_path):  # without gradients the backbone takes its fast path
            (fused,) = model.extract_feat(inputs)
            (logits,), (deltas,) = model.rpn_head((fused,))
        expected = reference.features(stack())
        np.testing.assert_allclose(fused.detach().numpy(), expected.numpy(), atol=5e-5)
        for ours, theirs in zip((logits, deltas), reference.rpn(expected), strict=True):
            np.testing.assert_allclose(ours.detach().numpy(), theirs.numpy(), atol=5e-5)

    def test_boxes_scores_tags_and_masks(self, pair: tuple[PublishedMulan, torch.nn.Module]) -> None:
        reference, model = pair
        expected = reference.detect(reference.features(stack()), model.test_cfg.rcnn.score_thr)
        found = predict(model)
        order = np.argsort(-expected.scores)
        assert len(found) == len(order) > 5
        np.testing.assert_allclose(found.scores.numpy(), expected.scores[order], atol=1e-5)
        np.testing.assert_allclose(found.bboxes.numpy(), expected.boxes[order] + [0, 0, 1, 1], atol=2e-3)
        np.testing.assert_allclose(found.tag_scores.numpy(), expected.tags[order], atol=1e-5)
        np.testing.assert_allclose(found.mask_probs.numpy(), expected.masks[order], atol=1e-4)

    @pytest.mark.parametrize("part", ["anchor_generator", "bbox_roi_extractor"])
    def test_every_part_of_the_config_counts(self, pair: tuple[PublishedMulan, torch.nn.Module], part: str) -> None:
        """The comparison above would notice if mmdet's own part were there instead."""
        _, model = pair
        expected = predict(model)
        stock = load_config(find_config("mulan_densenet121_9s_8e_deeplesion")).model
        place, attribute, registry, config = {
            "anchor_generator": (
                model.rpn_head,
                "prior_generator",
                TASK_UTILS,
                {**stock.rpn_head.anchor_generator, "type": "AnchorGenerator"},
            ),
            "bbox_roi_extractor": (
                model.roi_head,
                "bbox_roi_extractor",
                MODELS,
                {**stock.roi_head.bbox_roi_extractor, "out_channels": 8},
            ),
        }[part]
        own = getattr(place, attribute)
        setattr(place, attribute, registry.build(config))
        try:
            found = predict(model)
        finally:
            setattr(place, attribute, own)
        assert len(found) != len(expected) or float((found.scores - expected.scores).abs().max()) > 1e-3


class TestConversion:
    def test_full_size_fits_the_config_of_the_zoo(self) -> None:
        state_dict = {name: torch.empty(shape, device="meta") for name, shape in layout(Sizes()).items()}
        converted, renamed, reduced, dropped = convert_mulan_state_dict(state_dict)
        with torch.device("meta"):
            model = MODELS.build(load_config(find_config(ZOO_CONFIG)).model)
        assert {name: value.shape for name, value in converted.items()} == {
            name: value.shape for name, value in model.state_dict().items()
        }
        assert dropped == ("rpn.anchor_generator.cell_anchors.0",)
        # Two parts of class, box and mask outputs and of the refined class, and the weight of the refined tags.
        assert len(reduced) == 9
        assert len(renamed) == 2 * 23

    def test_report_and_content(self, tiny_config: Path, tmp_path: Path) -> None:
        state_dict = weights()
        wrapped = {f"module.{name}": value for name, value in state_dict.items()}
        report = convert_mulan(write(tmp_path, wrapped), tmp_path / "new.pth", config=tiny_config)
        assert (report.variant, report.num_slices, report.config) == ("mulan", 9, tiny_config.stem)
        content = torch.load(tmp_path / "new.pth", weights_only=True)
        assert set(content) == {"state_dict", "meta"}
        own = content["state_dict"]
        assert len(own) == report.num_tensors == len(state_dict) - 1
        refine = state_dict["roi_heads.refine.score_propa_clsf.weight"]
        expected = refine[[1, 0]][:, [1, 0, 2, 3, 4, 5, 6]]
        assert torch.equal(own["roi_head.refine_head.fc_cls.weight"], expected)
        assert all(value.untyped_storage().nbytes() == value.nbytes for value in own.values())

    def test_bare_state_dict(self, tiny_config: Path, tmp_path: Path) -> None:
        torch.save(weights(), tmp_path / "bare.pth")
        assert convert_mulan(tmp_path / "bare.pth", tmp_path / "new.pth", config=tiny_config).num_slices == 9

    def test_further_inputs_of_the_refining_layer(self, tiny_config: Path, tmp_path: Path) -> None:
        state_dict = weights(Sizes(**(vars(TINY) | {"features": 7})))
        source = write(tmp_path, state_dict)
        with pytest.raises(InputError, match=r"further inputs \[box, z, demographics\], the config has \[\]"):
            convert_mulan(source, tmp_path / "new.pth", config=tiny_config)
        config = write_tiny_config(tmp_path, '["demographics", "z", "box"]')
        convert_mulan(source, tmp_path / "new.pth", config=config)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda w: w.pop("rpn.head.conv.weight"), "has no rpn.head.conv.weight"),
            (lambda w: w.pop("roi_heads.tag.predictor.cls_score.bias"), "1 missing .*fc_tag.bias"),
            (lambda w: w.update({"backbone.conv_ilf0.bias": torch.ones(2)}), r"1 unexpected \(backbone.conv_ilf0.bias"),
            (lambda w: w.update({"backbone.conv0.weight": torch.ones(8, 1, 7, 7)}), "1 of another shape"),
            (lambda w: w["rpn.anchor_generator.cell_anchors.0"].add_(1), "holds other anchors"),
            (
                lambda w: w.update({"roi_heads.box.predictor.cls_score.weight": torch.ones(3, 16)}),
                "expected are 2 rows",
            ),
        ],
    )
    def test_other_weights_are_refused_and_nothing_is_written(
        self, tiny_config: Path, tmp_path: Path, change: object, message: str
    ) -> None:
        state_dict = weights()
        change(state_dict)  # type: ignore[operator]
        with pytest.raises(InputError, match=message) as error:
            convert_mulan(write(tmp_path, state_dict), tmp_path / "new.pth", config=tiny_config)
        assert "\n" not in str(error.value)
        assert not (tmp_path / "new.pth").exists()

    def test_code_is_refused_and_not_run(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        source = write(tmp_path, weights(), hook=Intruder())
        with pytest.raises(InputError, match=r"refused, because reading it would run '\w+\.system'"):
            convert_mulan(source, tmp_path / "new.pth")
        assert not (tmp_path / "intruded").exists()


class Intruder:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> tuple:
        import os

        return os.system, ("touch intruded",)


@pytest.mark.parametrize(
    ("body", "size"), [((512, 512), (512, 512)), ((320, 400), (360, 450)), ((320, 480), (341, 512))]
)
def test_zoo_config_shows_the_pixels_that_the_weights_know(body: tuple[int, int], size: tuple[int, int]) -> None:
    """Pixels of 0.9 mm become 0.8 mm, or as many as make the body 512 wide; the air around it does not count."""
    config = load_config(find_config(ZOO_CONFIG))
    for loader in (config.val_dataloader, config.test_dataloader):
        steps = {step.type: step for step in pipeline_steps(loader.dataset.pipeline)}
        assert steps["LoadSliceStack"].interp == "peer"
        image = np.full((512, 512, 9), -1000, np.float32)
        image[: body[0], : body[1]] = 0
        sample = {"img": image, "spacing_mm": (5.0, 0.9, 0.9)}
        with DefaultScope.overwrite_default_scope("mmpluld"):
            for name in ("CropBody", "ResizeToSpacing"):
                sample = TRANSFORMS.build(steps[name])(sample)
        assert sample["img"].shape == (*size, 9)


class TestCommand:
    def test_says_what_it_did(self, tiny_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        source, target = write(tmp_path, weights()), tmp_path / "new.pth"
        assert main(["convert-checkpoint", "mulan", str(source), str(target), "--config", str(tiny_config)]) == 0
        out = capsys.readouterr().out
        assert "mulan weights for 9 slices" in out
        assert "left out: rpn.anchor_generator.cell_anchors.0" in out
        assert main(["convert-checkpoint", "mulan", str(source), str(target), "--config", str(tiny_config)]) == 2
        assert "exists already" in capsys.readouterr().err

    def test_operator_is_of_the_other_code(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        command = ["convert-checkpoint", "mulan", str(tmp_path / "a.pth"), str(tmp_path / "b.pth"), "--operator", "tsm"]
        assert main(command) == 2
        assert "--operator: is no option of mulan" in capsys.readouterr().err
