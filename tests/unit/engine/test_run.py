"""What is refused before a run."""

import pytest

from mmpluld.engine.run import train
from mmpluld.errors import InputError


def test_resume_from_a_missing_checkpoint(tmp_path):
    with pytest.raises(InputError, match="nothing.pth: no such checkpoint"):
        train("a3d_densenet121-fpn_7s_20e_deeplesion", work_dir=tmp_path, resume=str(tmp_path / "nothing.pth"))
    assert not list(tmp_path.iterdir())
