"""What ``Detector`` refuses before it reads a scan."""

from __future__ import annotations

import pytest

from mmpluld.errors import InputError
from mmpluld.inference import Detector


def test_missing_weights_are_said_before_the_missing_config(tmp_path):
    weights = tmp_path / "model.pth"
    with pytest.raises(InputError, match=r"model.pth: cannot be read \(no such file\); give a file of weights"):
        Detector(None, weights)
    weights.write_bytes(b"weights")
    with pytest.raises(InputError, match=r"model.pth: the config of these weights is not known; give it with --config"):
        Detector(None, weights)
