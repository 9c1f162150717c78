"""AUC by hand."""

import math
import subprocess
import sys

import pytest

from mmpluld.evaluation.functional import roc_auc
from mmpluld.evaluation.metrics import CandidateMetric


def test_share_of_pairs_in_the_right_order():
    # Positives 0.9 and 0.4, negatives 0.4 and 0.1: three pairs right, one tied.
    assert roc_auc([0.9, 0.4, 0.4, 0.1], [1, 1, 0, 0]) == 3.5 / 4
    assert roc_auc([0.1, 0.2], [1, 0]) == 0
    assert math.isnan(roc_auc([0.1, 0.2], [1, 1]))


def test_metric():
    metric = CandidateMetric()
    metric.process(None, [{"score": 0.9, "label": 1}, {"score": 0.4, "label": 1}])
    metric.process(None, [{"score": 0.4, "label": 0}, {"score": 0.1, "label": 0}, {"score": 0.6, "label": 0}])
    found = metric.evaluate(5)
    # Of 2 x 3 pairs 3 + 1 are right and one is tied; half of the lesions and two thirds of the others are right.
    assert found["fpr/auc"] == pytest.approx(4.5 / 6)
    assert found["fpr/accuracy"] == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_one_kind_alone_says_nothing():
    metric = CandidateMetric()
    metric.process(None, [{"score": 0.9, "label": 1}])
    assert all(math.isnan(value) for value in metric.evaluate(1).values())


def test_evaluation_starts_without_slow_imports():
    code = (
        "import sys, mmpluld.evaluation.operating_points; print('torch' in sys.modules, 'scipy.stats' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"
