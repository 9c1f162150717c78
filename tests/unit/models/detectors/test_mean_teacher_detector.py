"""A teacher's boxes beside the given ones, who is trained by what, and who is tested."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook
from mmengine.logging import MessageHub
from mmengine.optim import OptimWrapper
from mmengine.structures import InstanceData
from torch.testing import assert_close

from mmpluld.engine.config import load_config
from mmpluld.engine.runner import TrainingRunner
from mmpluld.errors import InputError
from mmpluld.inference import DetectionSettings, VolumeDetector
from mmpluld.models.detectors.mean_teacher_detector import sure_and_doubtful
from mmpluld.registry import MODELS
from mmpluld.reproduce.start import backbones, start_options
from mmpluld.structures import CTVolume

pytestmark = pytest.mark.usefixtures("mmpluld_scope")

CONFIG = "lens-afp_densenet121_mean-teacher_9s_phantom"
ALL = {"model.begin": 0, "model.sure_thr": 0.0, "model.doubtful_thr": 0.0}
TIGHT = 0.1  # of the suppression: an untrained detector's boxes are many
MARK = [10.0, 10, 30, 30]


@pytest.fixture
def teacher(lens):
    """Function that builds a small one; changes as "model.key": value."""

    def build(**changes):
        model = lens.model("afp-mean-teacher", **changes)
        for role in (model.teacher, model.student):
            role.roi_head.test_cfg.nms.iou_threshold = TIGHT
        return model

    return build


def instances(*rows):
    table = torch.tensor(rows).view(-1, 5)
    return InstanceData(bboxes=table[:, :4], scores=table[:, 4], labels=torch.zeros(len(table), dtype=torch.long))


def test_sure_doubtful_and_given_boxes_by_hand():
    found = instances(
        [12, 12, 30, 30, 0.99],  # the given lesion
        [5, 40, 5.5, 60, 0.9],  # half a pixel wide
        [30, 10, 40, 20, 0.8],  # touches the given lesion, overlaps nothing of it
        [40, 40, 60, 60, 0.7],
        [58, 40, 78, 60, 0.6],  # doubtful, but overlaps the sure one before
        [70, 10, 90, 30, 0.3],
        [100, 10, 120, 30, 0.29],
    )
    sure, doubtful = sure_and_doubtful(found, torch.tensor([MARK]), 0.7, 0.3)
    assert sure.bboxes.tolist() == [[30, 10, 40, 20], [40, 40, 60, 60]]
    assert doubtful.bboxes.tolist() == [[70, 10, 90, 30]]
    assert sure.labels.tolist() == [0, 0]
    assert sorted(sure.keys()) == sorted(doubtful.keys()) == ["bboxes", "labels"]


@pytest.mark.parametrize(("mode", "threshold", "kept"), [("iou", 0.14, 0), ("iou", 0.15, 1), ("iof", 0.24, 0)])
def test_overlap_that_is_allowed(mode, threshold, kept):
    """The boxes share 5 x 20 pixels of 400 each: IoU 100 / 700 = 0.143, IoF 0.25."""
    sure, _ = sure_and_doubtful(instances([25, 10, 45, 30, 0.9]), torch.tensor([MARK]), 0.7, 0.3, mode, threshold)
    assert len(sure) == kept


def test_nothing_found_and_nothing_given():
    for found, given in ((instances(), torch.tensor([MARK])), (instances([1, 1, 9, 9, 0.5]), torch.zeros(0, 4))):
        sure, doubtful = sure_and_doubtful(found, given, 0.7, 0.3)
        assert (len(sure), len(doubtful)) == (0, len(found))
        assert doubtful.bboxes.shape[1:] == (4,)


def loaded(model, batch):
    data = model.data_preprocessor(batch, True)
    return data["inputs"], data["data_samples"]


@pytest.mark.parametrize("which", ["sure", "doubtful"])
def test_found_boxes_join_the_given_ones(lens, teacher, which):
    model = teacher(**ALL | {"model.sure_thr": 0.0 if which == "sure" else 1.0}).train()
    batch = lens.batch(None, None)
    batch["data_samples"][0].ignored_instances = InstanceData(
        bboxes=torch.tensor([[40.0, 40, 60, 60]]), labels=torch.zeros(1, dtype=torch.long)
    )
    given = [(item.gt_instances.bboxes, item.ignored_instances.bboxes) for item in batch["data_samples"]]
    with torch.no_grad():
        found = [item.pred_instances for item in model.teacher.eval().predict(*loaded(model, batch), rescale=False)]
    samples, counts = model.get_pseudo_instances(*loaded(model.train(), batch))
    assert not model.teacher.training
    assert model.student.training
    total = 0
    for sample, (truth, ignored), predicted in zip(samples, given, found, strict=True):
        more = [item.bboxes for item in sure_and_doubtful(predicted, torch.cat([truth, ignored]), model.sure_thr, 0.0)]
        assert len(more[0] if which == "sure" else more[1]) > 0
        assert torch.equal(sample.gt_instances.bboxes, torch.cat([truth, more[0]]))
        assert torch.equal(sample.ignored_instances.bboxes, torch.cat([ignored, more[1]]))
        total += len(more[0]) + len(more[1])
    assert counts[f"mined_{which}"] == total / 2


def test_before_it_begins_the_student_learns_as_it_would_alone(lens, teacher):
    model = teacher(**ALL | {"model.begin": 0.2}).train()
    alone = lens.model("afp").train()
    alone.load_state_dict(model.student.state_dict())
    losses = []
    for done, trained in zip((1, 1, 2), (model, alone, model), strict=True):
        MessageHub.get_current_instance().update_info_dict({"iter": done, "max_iters": 10})
        torch.manual_seed(0)
        losses.append(trained.loss(*loaded(trained, lens.batch(None, None))))
    first, plain, second = losses
    for name, value in plain.items():
        assert_close(first[name], value, rtol=0, atol=0)
    assert first["mined_sure"] == 0
    assert second["mined_sure"] > 0
    assert second["loss_cls"] != plain["loss_cls"]


def test_the_student_alone_has_gradients(lens, teacher):
    model = teacher(**ALL).train()
    loss, logs = model.parse_losses(model.loss(*loaded(model, lens.batch(None, None))))
    loss.backward()
    assert torch.isfinite(loss)
    assert logs["mined_sure"] > 0
    assert [name for name, value in model.student.named_parameters() if value.grad is None] == []
    assert [name for name, value in model.teacher.named_parameters() if value.grad is not None] == []


class Follow(Hook):
    """Computes the teacher's weights from the student's, beside the run."""

    priority = "VERY_LOW"

    def __init__(self, momentum):
        self.momentum, self.expected = momentum, {}

    def before_train(self, runner):
        assert_close(runner.model.teacher.state_dict(), runner.model.student.state_dict())
        self.expected = {key: value.clone() for key, value in runner.model.student.state_dict().items()}

    def after_train_iter(self, runner, *_, **__):
        for key, value in runner.model.student.state_dict().items():
            if value.is_floating_point():
                self.expected[key] = (1 - self.momentum) * self.expected[key] + self.momentum * value


def run(lens, model, folder, epochs, hooks=(), **changes):
    """Train on two batches an epoch."""
    batch = lens.batch(None, None)
    data = [dict(zip(batch, item, strict=True)) for item in zip(*batch.values(), strict=True)]
    settings = {
        "model": model,
        "work_dir": str(folder),
        "train_dataloader": {
            "batch_size": 1,
            "dataset": data,
            "sampler": {"type": "DefaultSampler", "shuffle": False},
            "collate_fn": {"type": "pseudo_collate"},
        },
        "train_cfg": {"by_epoch": True, "max_epochs": epochs},
        "optim_wrapper": {"optimizer": {"type": "SGD", "lr": 1e-3, "momentum": 0.9}},
        "default_hooks": {"checkpoint": {"type": "SafeCheckpointHook", "interval": 1}},
        "custom_hooks": [{"type": "MeanTeacherHook", "momentum": 0.5, "skip_buffer": False}, *hooks],
        "default_scope": "mmpluld",
        "experiment_name": f"{folder.name}-{epochs}",
        "randomness": {"seed": 1},
        "log_level": "ERROR",
    }
    TrainingRunner(**settings | changes).train()
    return model


def test_trained_stopped_and_resumed(lens, teacher, tmp_path):
    follow = Follow(0.5)
    whole = run(lens, teacher(**ALL | {"model.begin": 0.25}), tmp_path / "whole", 2, [follow]).state_dict()
    moved = [
        key for key in whole if key.startswith("student.") and not torch.equal(whole[key], follow.expected[key[8:]])
    ]
    assert any("running_mean" in key for key in moved)
    for key, value in follow.expected.items():
        if value.is_floating_point():
            assert_close(whole[f"teacher.{key}"], value, rtol=1e-5, atol=1e-6)
    run(lens, teacher(**ALL | {"model.begin": 0.25}), tmp_path / "parts", 1)
    again = run(lens, teacher(**ALL | {"model.begin": 0.25}), tmp_path / "parts", 2, resume=True).state_dict()
    assert [key for key in whole if not torch.equal(whole[key], again[key])] == []


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_the_one_that_answers_examines_volumes(lens, teacher, tmp_path, role):
    model = teacher(**{"model.predict_on": role})  # their start values differ
    config = load_config(CONFIG)
    config.model = lens.config("afp-mean-teacher", **{"model.predict_on": role})
    config.model.detector.test_cfg.rcnn.nms.iou_threshold = TIGHT
    torch.save({"state_dict": model.state_dict()}, tmp_path / "weights.pth")
    array = np.random.default_rng(0).integers(-100, 300, (12, 48, 48)).astype(np.int16)
    volume = CTVolume(array, np.diag([1.0, 1.0, 2.0, 1.0]), (48, 48, 12), (1, 2, 3))
    settings = DetectionSettings(score_thr=0.0, link_score_thr=0.0)
    detector = VolumeDetector(config, str(tmp_path / "weights.pth"), settings)
    assert detector.share  # the images of a stack, as for the detector alone
    found = detector.detect(volume)
    alone = VolumeDetector(config, getattr(model, role), settings, share=False).detect(volume)
    other = VolumeDetector(config, model.student if role == "teacher" else model.teacher, settings).detect(volume)
    assert len(found) > 0
    scores = [[finding.score for finding in findings] for findings in (found, alone, other)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-5)
    assert scores[0] != pytest.approx(scores[2], abs=1e-5)
    with torch.no_grad():
        whole, part = (
            item.eval().test_step(lens.batch(None))[0].pred_instances for item in (model, getattr(model, role))
        )
    assert torch.equal(whole.bboxes, part.bboxes)


def test_both_start_from_the_weights_that_are_given(tmp_path):
    config = load_config(CONFIG)
    assert list(backbones(config)) == ["model.detector.backbone"]
    torch.manual_seed(3)
    source = MODELS.build(config.model.detector.backbone).state_dict()
    torch.save({"state_dict": {f"backbone.{key}": value for key, value in source.items()}}, tmp_path / "trunk.pth")
    config = load_config(CONFIG, [*start_options(backbones(config), "TrunkWeights", tmp_path / "trunk.pth")])
    model = MODELS.build(config.model)
    model.init_weights()
    for role in (model.student, model.teacher):
        state = role.backbone.state_dict()
        assert [key for key in source if not torch.equal(source[key], state[key])] == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"begin": -1}, "begin is -1; allowed is a share of the training, from 0 to below 1"),
        ({"sure_thr": 1.5}, "sure_thr is 1.5; allowed is from 0 to 1"),
        ({"doubtful_thr": 0.8}, r"doubtful_thr is 0.8; allowed is from 0 to sure_thr \(0.7\)"),
        ({"overlap": "giou"}, "overlap is 'giou'; allowed is iou or iof"),
        ({"overlap_thr": 1}, "overlap_thr is 1; allowed is from 0 to below 1"),
        ({"predict_on": "both"}, "predict_on is 'both'; allowed is teacher or student"),
    ],
)
def test_bad_settings(lens, change, message):
    with pytest.raises(InputError, match=message):
        lens.model("afp-mean-teacher", **{f"model.{key}": value for key, value in change.items()})


def test_truth_with_more_than_boxes_is_refused(lens, teacher):
    model = teacher(**ALL).train()
    batch = lens.batch(None)
    batch["data_samples"][0].gt_instances.tags = torch.zeros(1, 3)
    with pytest.raises(InputError, match="the truth of an image has tags, which found boxes lack"):
        model.train_step(batch, OptimWrapper(torch.optim.SGD(model.student.parameters(), lr=0.1)))
