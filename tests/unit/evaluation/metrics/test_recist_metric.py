"""RECISTMetric: what is measured, against what, and what is left out."""

from __future__ import annotations

import math

import pytest
import torch

from mmpluld.errors import InputError
from mmpluld.evaluation.metrics import RECISTMetric

DISC = (torch.cartesian_prod(torch.arange(28), torch.arange(28)) - 13.5).square().sum(1).reshape(28, 28) <= 14**2


def make_sample(boxes=(), scores=(), masks=None, truth=(), recist=(), **changes):
    predicted = {"bboxes": torch.tensor(boxes).reshape(-1, 4), "scores": torch.tensor(scores)}
    if masks is not None:
        predicted["mask_probs"] = torch.stack([*masks]).float() if len(masks) else torch.zeros(0, 28, 28)
    sample = {
        "pred_instances": predicted,
        "gt_instances": {"bboxes": torch.tensor(truth).reshape(-1, 4)},
        "recist_mm": list(recist),
        "spacing_mm": (5.0, 0.5, 0.5),
    }
    return {key: value for key, value in (sample | changes).items() if value is not None}


def evaluate(*samples, **options):
    metric = RECISTMetric(**options)
    for sample in samples:
        metric.process({}, [sample])
    return metric.evaluate(len(samples))


def test_disc_that_fills_its_box():
    box = [10.0, 10.0, 50.0, 50.0]
    found = evaluate(make_sample([box], [0.9], [DISC], [box], [(30.0, 10.0)]))
    assert found["recist/long_mae_mm"] == pytest.approx(10.0, abs=0.6)
    assert found["recist/short_mae_mm"] == pytest.approx(10.0, abs=0.6)
    assert (found["recist/measured"], found["recist/lesions"]) == (1, 1)
    assert found["recist/long_std_mm"] == 0.0


def test_lesions_without_detection_mark_or_mask_are_not_measured():
    near, far = [10.0, 10.0, 50.0, 50.0], [100.0, 100.0, 140.0, 140.0]
    found = evaluate(
        make_sample([near], [0.9], [DISC], [near, far], [(20.0, 20.0), (9.0, 9.0)]),
        make_sample([near], [0.9], [DISC], [near], [(math.nan, math.nan)]),
        make_sample([near], [0.9], [torch.zeros(28, 28)], [near], [(20.0, 20.0)]),
        make_sample([near], [0.9], [DISC], [near], [(20.0, 20.0)], spacing_mm=(5.0, math.nan, math.nan)),
        make_sample([], [], None, [near], [(20.0, 20.0)])
        | {"pred_instances": {"bboxes": torch.zeros(0, 4), "scores": torch.zeros(0), "masks": torch.zeros(0, 8, 8)}},
    )
    assert (found["recist/measured"], found["recist/lesions"]) == (1, 5)


def test_the_best_scored_box_is_measured():
    box, shifted = [10.0, 10.0, 50.0, 50.0], [10.0, 10.0, 52.0, 50.0]
    half = DISC & (torch.arange(28) < 14)[:, None]
    sample = make_sample([box, shifted], [0.4, 0.8], [half, DISC], [box], [(20.0, 20.0)])
    assert evaluate(sample)["recist/short_mae_mm"] < 1
    swapped = make_sample([box, shifted], [0.8, 0.4], [half, DISC], [box], [(20.0, 20.0)])
    assert evaluate(swapped)["recist/short_mae_mm"] > 5


def test_without_lesions_all_is_nan():
    found = evaluate(make_sample([], [], []))
    assert math.isnan(found["recist/long_mae_mm"])
    assert (found["recist/measured"], found["recist/lesions"]) == (0, 0)


def test_detectors_without_masks_return_nothing():
    box = [10.0, 10.0, 50.0, 50.0]
    assert evaluate(make_sample([box], [0.9], None, [box], [(20.0, 20.0)]), make_sample()) == {}


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        ({"recist_mm": None}, "no 'recist_mm'; add it to meta_keys"),
        ({"spacing_mm": None}, "no 'spacing_mm'; add it to meta_keys"),
        ({"recist_mm": [(1.0, 1.0)] * 2}, "2 RECIST marks but 1 true boxes"),
    ],
)
def test_samples_that_do_not_fit(sample, message):
    box = [10.0, 10.0, 50.0, 50.0]
    with pytest.raises(InputError, match=message):
        evaluate(make_sample([box], [0.9], [DISC], [box], [(1.0, 1.0)], **sample))


def test_threshold_out_of_range():
    with pytest.raises(InputError, match="iou_thr is 0; it must be in"):
        RECISTMetric(iou_thr=0)
