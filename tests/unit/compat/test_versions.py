"""Version floors and ceilings."""

from __future__ import annotations

import warnings

import pytest
import torch

from mmpluld.compat import versions
from mmpluld.compat.versions import check_versions, describe_environment, silence_hosts
from mmpluld.errors import InputError


def test_this_environment_fits() -> None:
    check_versions()
    facts = describe_environment()
    assert facts["versions"] == "fit"
    assert facts["mmcv operators"] in ("compiled", "torchvision", "pure torch")
    assert facts["mmdet"] == "3.3.0"
    assert all(isinstance(value, str) and value for value in facts.values())


def test_slow_operators_on_a_gpu_come_with_a_next_step() -> None:
    assert "install the torchvision" in versions.operators_text("pure torch")
    assert versions.operators_text("torchvision") == "torchvision"


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"torch": ("99.0", None)}, r"torch \S+ does not fit; run: pip install 'torch>=99.0'"),
        ({"torch": ("1.0", "1.5")}, r"torch \S+ does not fit; run: pip install 'torch>=1.0,<1.5'"),
        ({"no-such-package": ("1", None)}, "no-such-package is not installed; run: pip install 'no-such-package>=1'"),
    ],
)
def test_what_does_not_fit_is_named(
    limits: dict[str, tuple[str, str | None]], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(versions, "HOST_PACKAGES", limits)
    with pytest.raises(InputError, match=message):
        check_versions()
    assert "pip install" in describe_environment()["versions"]


def test_hosts_do_not_warn_of_each_other():
    from mmpluld.registry import TASK_UTILS

    points = TASK_UTILS.build({"type": "mmdet.MlvlPointGenerator", "strides": [4]})
    torch.set_warn_always(True)  # else once in a process, which may have been before
    try:
        with pytest.warns(UserWarning, match="torch.meshgrid"):
            points.grid_priors([(4, 4)], device="cpu")
        with warnings.catch_warnings(record=True) as caught:
            silence_hosts()
            warnings.warn("pkg_resources is deprecated as an API", UserWarning, stacklevel=1)  # mmengine imports it
            points.grid_priors([(4, 4)], device="cpu")
    finally:
        torch.set_warn_always(False)
    assert not caught
