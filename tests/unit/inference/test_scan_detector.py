"""What ``Detector`` refuses before it reads a scan."""

from __future__ import annotations

import pytest

from mmpluld.errors import InputError
from mmpluld.inference import Detector

NAME = "a3d_densenet121-fpn_7s_phantom"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"checkpoint": "model.pth"}, r"model.pth: the config of these weights is not known; give it with --config"),
        ({"config": NAME}, rf"{NAME}: is a config without weights; give them with --checkpoint"),
        ({"model": NAME, "config": NAME}, "brings config and weights, which --config contradicts"),
        ({"model": NAME, "checkpoint": "model.pth"}, "which --checkpoint contradicts; leave one out"),
        ({"model": "a3d_densenet121-fpn_7s_fantom"}, f"is no model of the zoo, and no file; did you mean '{NAME}'"),
        ({"model": f"zoo:{NAME.replace('7s', '3s')}"}, "is no model of the zoo"),
        (
            {"config": NAME, "checkpoint": "gone.pth"},
            r"gone.pth: cannot be read \(no such file\); give a file of weights",
        ),
    ],
)
def test_model_that_is_none(arguments, message):
    with pytest.raises(InputError, match=message):
        Detector(**arguments)
