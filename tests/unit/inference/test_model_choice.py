"""What a model's files say of operating points that were measured otherwise."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mmpluld.errors import InputError
from mmpluld.evaluation.operating_points import OperatingPoints
from mmpluld.inference.model_choice import choose_model

POINTS = OperatingPoints("lens-3d", "volume", 4, 4, 4, ((0.5, 0.25, 0.5), (0.3, 1.0, 0.75)), ())
OTHER = "0.05 or more, linked at IoU above 0.2"


def test_rules_of_linking_that_are_not_told_are_said_to_be_supposed(capsys):
    files = choose_model(None, None, None).files(None, twin=False)
    assert files.operating_point(1, POINTS, OTHER, None).score_thr == 0.3
    told = "supposed to be measured, as its config has it, with 2D boxes scored"
    err = capsys.readouterr().err
    assert told in err and f"asked for is {OTHER}; the rate holds for the former alone" in err
    measured = replace(POINTS, linking="0.05 or more, linked at IoU above 0.3")
    with pytest.raises(InputError, match="points were measured with 2D boxes scored 0.05 or more, linked at IoU above"):
        files.operating_point(1, measured, OTHER, None)
