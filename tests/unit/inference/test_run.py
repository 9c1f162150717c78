"""What ``detect_scan`` refuses before it reads the scan."""

from __future__ import annotations

import pytest

from mmpluld.errors import InputError
from mmpluld.inference.run import detect_scan


def test_missing_weights_are_said_before_the_missing_config(tmp_path):
    weights, out = tmp_path / "model.pth", tmp_path / "findings"
    with pytest.raises(InputError, match=r"model.pth: cannot be read \(no such file\); give a file of weights"):
        detect_scan(tmp_path / "scan.nii", config=None, checkpoint=weights, out=out)
    weights.write_bytes(b"weights")
    with pytest.raises(InputError, match=r"model.pth: the config of these weights is not known; give it with --config"):
        detect_scan(tmp_path / "scan.nii", config=None, checkpoint=weights, out=out)
    assert not out.exists()
