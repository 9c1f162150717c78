"""Reading tensors of any device."""

from __future__ import annotations

import numpy as np
import torch

from mmpluld.structures import to_array


class SingleTensor:
    """A tensor on a device without float64, such as Apple's."""

    def detach(self):
        return self

    def double(self):
        raise TypeError("the device has no float64")

    def cpu(self):
        return torch.tensor([0.5, 2.0], dtype=torch.bfloat16)


def test_of_a_device_without_double_precision():
    found = to_array(SingleTensor())
    assert found.dtype == np.float64
    assert found.tolist() == [0.5, 2.0]
