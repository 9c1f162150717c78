"""What ``torch.load(weights_only=True)`` builds with an allow-list, and without."""

from __future__ import annotations

import datetime
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch

from mmpluld.compat.unpickling import ARRAY_MODULES, allow_globals


@pytest.mark.skipif(not hasattr(torch.serialization, "safe_globals"), reason="this torch has no allow-list")
def test_more_is_read_inside_the_context_only(tmp_path):
    day = datetime.date(2020, 1, 2)
    torch.save({"day": day}, tmp_path / "file.pth")
    with allow_globals([datetime.date]):
        assert torch.load(tmp_path / "file.pth", weights_only=True)["day"] == day
    with pytest.raises(pickle.UnpicklingError, match="datetime.date"):
        torch.load(tmp_path / "file.pth", weights_only=True)


def test_arrays_are_pickled_under_one_of_the_names():
    rebuild = np.zeros(0).__reduce__()[0]
    assert rebuild.__module__ in ARRAY_MODULES


def test_the_names_load_without_torch():
    code = "import sys, mmpluld.compat.unpickling, mmpluld.compat.system; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
