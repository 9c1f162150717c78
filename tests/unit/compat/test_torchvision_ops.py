"""torchvision's operators give what the plain torch ones give; and they are used exactly where they work."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mmpluld.compat import ops, torch_ops, torchvision_ops
from mmpluld.compat.ops import ops_in_use

real = pytest.mark.skipif(
    not torchvision_ops.usable("cpu"), reason="no torchvision here that has its operators for this torch"
)
absent = pytest.mark.skipif(torchvision_ops.usable("cpu"), reason="a torchvision that works is installed")
DEVICES = [pytest.param("cpu", marks=real), pytest.param("cuda", marks=pytest.mark.gpu)]


def boxes_and_scores(count: int, device: str = "cpu") -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(count)
    corner = torch.randint(0, 40, (count, 2), generator=generator)  # whole numbers: IoUs of exactly 0.3 or 0.5 occur
    size = torch.randint(1, 20, (count, 2), generator=generator)
    scores = torch.rand(count, generator=generator).mul(20).round() / 20  # with ties
    return torch.cat([corner, corner + size], dim=1).float().to(device), scores.to(device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.5, 0.7])
@pytest.mark.parametrize("count", [0, 1, 600])
def test_nms(count: int, threshold: float, dtype: torch.dtype, device: str) -> None:
    boxes, scores = boxes_and_scores(count, device)
    boxes = boxes.to(dtype)
    expected = torch_ops.nms(boxes, scores, threshold, 0)
    assert torch.equal(torchvision_ops.nms(boxes, scores, threshold), expected)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio", [0, 2])
def test_roi_align(ratio: int, aligned: bool, dtype: torch.dtype, device: str) -> None:
    boxes, _ = boxes_and_scores(40)
    image = torch.arange(40)[:, None] % 2
    # Some reach over the border; no sample lies exactly on the border, where rounding decides whether it counts.
    rois = torch.cat([image, boxes * 3 - 20.13], dim=1)
    outside = [[0, 300.0, 300, 340, 350], [1, 8.0, 8, 8, 8], [0, math.nan, 0, 4, 4], [1, 0, 0, 96.0, 80]]
    rois = torch.cat([rois, torch.tensor(outside)]).to(device)
    generator = torch.Generator().manual_seed(0)
    feature = torch.randn(2, 5, 20, 24, generator=generator).to(device, dtype)
    grad = torch.randn(len(rois), 5, 7, 7, generator=generator).to(device, dtype)
    none = feature.new_zeros(0)
    expected, actual = torch.zeros_like(grad), torch.ones_like(grad)
    torch_ops.roi_align_forward(feature, rois, expected, none, none, 7, 7, 0.25, ratio, 1, aligned)
    torchvision_ops.roi_align_forward(feature, rois, actual, 0.25, ratio, aligned)
    loose = {"rtol": 2e-2, "atol": 2e-2} if dtype == torch.bfloat16 else {"rtol": 1e-4, "atol": 2e-5}
    torch.testing.assert_close(actual, expected, **loose)
    expected_grad, actual_grad = torch.zeros_like(feature), torch.zeros_like(feature)
    torch_ops.roi_align_backward(grad, rois, none, none, expected_grad, 7, 7, 0.25, ratio, 1, aligned)
    torchvision_ops.roi_align_backward(grad, rois, actual_grad, 0.25, ratio, aligned)
    loose = {"rtol": 2e-2, "atol": 5e-2} if dtype == torch.bfloat16 else {"rtol": 1e-4, "atol": 1e-4}
    torch.testing.assert_close(actual_grad, expected_grad, **loose)


@real
def test_gradient_through_mmcv() -> None:
    if ops_in_use() == "compiled":
        pytest.skip("compiled mmcv is in use")
    from mmcv.ops import RoIAlign

    feature = torch.randn(2, 2, 20, 24, dtype=torch.double, requires_grad=True)
    rois = torch.tensor([[0, 8.0, 8, 40, 60], [1, -20, -12, 30, 20], [1, 60, 70, 120, 110]], dtype=torch.double)
    layer = RoIAlign(3, spatial_scale=0.25, sampling_ratio=2)
    assert torch.autograd.gradcheck(lambda x: layer(x, rois), feature)


FIRST_OF_ALL = """
import torch
library = torch.library.Library("torchvision", "DEF")
library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
library.impl("nms", lambda boxes, scores, threshold: scores.argmax()[None], "CPU")
"""


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Package file of a torchvision of the test's own making, found before any other."""
    package = tmp_path / "torchvision" / "__init__.py"
    package.parent.mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    torchvision_ops.usable.cache_clear()
    yield package
    if "torchvision" in sys.modules:
        sys.modules.pop("torchvision").library._destroy()
    torchvision_ops.usable.cache_clear()


@absent
class TestSelection:
    boxes = torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 30]])
    scores = torch.tensor([0.5, 0.9])

    def test_plain_torch_without_torchvision(self) -> None:
        assert not torchvision_ops.usable("cpu")
        assert ops._nms(self.boxes, self.scores, 0.5, 0).tolist() == [1, 0]

    def test_plain_torch_beside_a_broken_torchvision(self, installed: Path) -> None:
        installed.write_text("raise RuntimeError('operator torchvision::nms does not exist')")
        assert not torchvision_ops.usable("cpu")
        assert ops._nms(self.boxes, self.scores, 0.5, 0).tolist() == [1, 0]

    def test_torchvision_where_it_works(self, installed: Path) -> None:
        installed.write_text(FIRST_OF_ALL)
        assert torchvision_ops.usable("cpu")
        assert ops_in_use() in ("compiled", "torchvision")
        assert ops._nms(self.boxes, self.scores, 0.5, 0).tolist() == [1]  # that of the package above
        assert ops._nms(self.boxes, self.scores, 0.5, 1).tolist() == [1, 0]  # torchvision knows no inclusive edges
        assert not torchvision_ops.usable("meta")  # a kind of device that it was not built for
