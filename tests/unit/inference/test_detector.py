"""What ``Detector`` refuses before it reads a scan."""

from __future__ import annotations

import numpy as np
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
        ({"score_thrr": 0.5}, "score_thrr: no such rule; did you mean 'score_thr'"),
        ({"score_thr": 2}, "score_thr is 2; allowed is 0 to 1"),
        ({"score_thr": 0.2, "link_score_thr": 0.4, "no_fpr": True}, "link_score_thr is 0.4, above score_thr 0.2"),
        ({"precision": "fp16"}, "precision is 'fp16'; allowed are fp32, bf16"),
        ({"batch_size": 0}, "batch_size is 0; allowed is 1 or more, in whole numbers"),
        ({"batch_size": 1.5}, "batch_size is 1.5; allowed is 1 or more, in whole numbers"),
        ({"device": "mps"}, "device is 'mps'; allowed are auto, cpu, cuda and cuda:N"),
        ({"device": None}, "device is None; allowed are auto"),
        ({"fpr_mode": "mean"}, "mode of false-positive reduction is 'mean'; allowed are average and alone"),
        ({"fpr": "fpr.pth", "no_fpr": True}, "--no-fpr contradicts the other options of false-positive reduction"),
        ({"fpr_mode": "alone", "no_fpr": True}, "--no-fpr contradicts"),
        ({"fp_rate": "1"}, "--fp-rate is '1'; needed is a number of false positives"),
    ],
)
def test_model_that_is_none(arguments, message):
    with pytest.raises(InputError, match=message):
        Detector(**arguments)


@pytest.mark.parametrize("scan", [None, 5, np.zeros((2, 2, 2)), ["scan.nii"], b"scan.nii"])
def test_scan_that_is_no_path(scan, monkeypatch):
    monkeypatch.setattr("mmpluld.compat.allocator.ctypes.CDLL", None)  # a call changes nothing of the whole process
    with pytest.raises(InputError, match=rf"the scan is a {type(scan).__name__}; give a path, or the volume that"):
        Detector()(scan)


def test_call_with_other_types(tmp_path):
    (tmp_path / "scan.nii").touch()
    with pytest.raises(InputError, match="--series 2: is no number from 1 to 1"):
        Detector()(tmp_path / "scan.nii", series=2)
    with pytest.raises(InputError, match=r"formats are 'json'; give a list of names, such as \['json'\]"):
        Detector()(tmp_path / "scan.nii", formats="json")
