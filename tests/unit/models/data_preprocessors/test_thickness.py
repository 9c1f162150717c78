from __future__ import annotations

import copy

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData

from mmpluld.engine.config import find_config, load_config
from mmpluld.errors import InputError
from mmpluld.models.data_preprocessors import SliceStacks, ThicknessPreprocessor
from mmpluld.registry import MODELS

SIZE = 64


def batch(intervals: list[float | None], slices: int = 7) -> dict:
    """Stacks of noise with one lesion each."""
    generator = torch.Generator().manual_seed(0)
    samples = []
    for interval in intervals:
        meta = {"img_shape": (SIZE, SIZE), "ori_shape": (SIZE, SIZE), "scale_factor": (1.0, 1.0)}
        if interval is not None:
            meta["slice_interval_mm"] = interval
        sample = DetDataSample(metainfo=meta)
        boxes = torch.tensor([[20.0, 24.0, 36.0, 44.0]])
        sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.zeros(1, dtype=torch.long))
        sample.ignored_instances = InstanceData(bboxes=boxes[:0], labels=torch.zeros(0, dtype=torch.long))
        samples.append(sample)
    inputs = [torch.rand(slices, SIZE, SIZE, generator=generator) * 255 - 50 for _ in intervals]
    return {"inputs": inputs, "data_samples": samples}


def detector(kind: str, **changes):
    """The AlignShift twin with another detector around the same backbone, small and without masks."""
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope("mmpluld"):
        if kind != "RetinaNet":
            model = copy.deepcopy(load_config(find_config("alignshift_densenet121-fpn_7s_phantom")).model)
            model.type = "FasterRCNN"
            model.data_preprocessor.pad_mask = False
            for key in [key for key in model.roi_head if key.startswith("mask")]:
                del model.roi_head[key]
        else:
            model = copy.deepcopy(load_config(find_config("retinanet-a3d_densenet121-fpn_7s_phantom")).model)
            model.data_preprocessor = {"type": "ThicknessPreprocessor", "pad_size_divisor": 32}
            model.backbone.slice_mixer = {"type": "AlignShiftMixer"}
        model.backbone.update(changes)
        built = MODELS.build({"type": kind, "detector": model} if kind == "MeanTeacherDetector" else model)
        built.init_weights()
    return built


def test_intervals_ride_beside_the_images():
    data = ThicknessPreprocessor(pad_size_divisor=32)(batch([5.0, 1.25]), training=True)
    assert isinstance(data["inputs"], SliceStacks)
    assert data["inputs"].images.shape == (2, 7, SIZE, SIZE)
    assert data["inputs"].thickness_mm.tolist() == [5.0, 1.25]
    assert data["inputs"].thickness_mm.dtype == torch.float32


def test_without_samples_the_images_stay_alone():
    data = ThicknessPreprocessor()({"inputs": batch([5.0])["inputs"], "data_samples": None})
    assert torch.is_tensor(data["inputs"])


def test_missing_interval_is_named():
    with pytest.raises(InputError, match="no slice_interval_mm; add it to the meta_keys of PackDetInputs"):
        ThicknessPreprocessor()(batch([5.0, None]))


@pytest.mark.parametrize("kind", ["FasterRCNN", "RetinaNet", "MeanTeacherDetector"])
@pytest.mark.parametrize("with_cp", [False, True])
def test_through_a_whole_detector(kind, with_cp):
    model = detector(kind, with_cp=with_cp)
    model.train()
    total, _ = model.parse_losses(model(**model.data_preprocessor(batch([5.0, float("nan")]), True), mode="loss"))
    total.backward()
    trained = [p for p in getattr(model, "student", model).backbone.parameters() if p.requires_grad]
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in trained)
    model.eval()
    with torch.no_grad():
        results = model.test_step(batch([5.0, 1.0]))
    assert all(torch.isfinite(result.pred_instances.scores).all() for result in results)


def test_interval_of_one_sample_changes_its_features_only():
    model = detector("FasterRCNN").eval()
    with torch.no_grad():
        thick, mixed = (
            model.extract_feat(model.data_preprocessor(batch(t))["inputs"])[0] for t in ([5.0, 5.0], [5.0, 1.0])
        )
    assert torch.equal(thick[0], mixed[0])
    assert not torch.allclose(thick[1], mixed[1])


def test_detector_without_the_preprocessor_says_what_to_set():
    model = detector("FasterRCNN")
    model.data_preprocessor = MODELS.build({"type": "DetDataPreprocessor"})
    with pytest.raises(InputError, match="set type='ThicknessPreprocessor' in model.data_preprocessor"):
        model.test_step(batch([5.0]))
