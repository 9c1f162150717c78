"""Region features against the published sampling rule, written as plain loops."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mmpluld.errors import InputError
from mmpluld.models.roi_heads import V1RoIExtractor

STRIDE = 4


def extractor(size: int = 2, **changes: object) -> V1RoIExtractor:
    layer = {"type": "RoIAlign", "output_size": size, "sampling_ratio": 2}
    return V1RoIExtractor(**{"roi_layer": layer, "out_channels": 1, "featmap_strides": [STRIDE], **changes})


def test_ramp_by_hand() -> None:
    """On the ramp f(x) = x, a bin's mean is its centre: region 4..11 inclusive is cells 1 to 3, bins 1-2 and 2-3."""
    ramp = torch.arange(10.0).repeat(10, 1)[None, None]
    region = torch.tensor([[0.0, 4.0, 4.0, 12.0, 12.0]])
    pooled = extractor()((ramp,), region)[0, 0]
    torch.testing.assert_close(pooled, torch.tensor([[1.5, 2.5], [1.5, 2.5]]))


@pytest.mark.parametrize("seed", range(4))
def test_published_rule_also_for_regions_of_less_than_a_cell(published: SimpleNamespace, seed: int) -> None:
    random = np.random.default_rng(seed)
    feature = random.normal(size=(1, 12, 14))
    corner = random.uniform(0, 40, (20, 2))
    inclusive = np.hstack([corner, corner + random.uniform(0, 12, (20, 2)) * random.integers(0, 2, (20, 1))])
    rois = np.hstack([np.zeros((20, 1)), inclusive + [0, 0, 1, 1]])
    pooled = extractor(size=3)((torch.tensor(feature)[None],), torch.tensor(rois))
    expected = np.stack([published.roi_align(feature, box, 3) for box in inclusive])
    np.testing.assert_allclose(pooled.numpy(), expected, atol=1e-9)


def test_no_regions() -> None:
    assert extractor()((torch.zeros(1, 1, 5, 5),), torch.zeros(0, 5)).shape == (0, 1, 2, 2)


def test_gradient_reaches_the_map() -> None:
    feature = torch.zeros(1, 1, 10, 10, requires_grad=True)
    extractor()((feature,), torch.tensor([[0.0, 4.0, 4.0, 12.0, 12.0]])).sum().backward()
    assert feature.grad is not None
    assert feature.grad.sum().item() == pytest.approx(4.0)  # the weights of each of the 4 bins sum to 1


def test_settings_that_cannot_be_honoured() -> None:
    with pytest.raises(InputError, match=r"featmap_strides is \[4, 8\]; needed is exactly one stride"):
        extractor(featmap_strides=[4, 8])
    with pytest.raises(InputError, match="roi_layer has aligned=False; leave it out"):
        extractor(roi_layer={"type": "RoIAlign", "output_size": 2, "sampling_ratio": 2, "aligned": False})
