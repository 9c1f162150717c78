"""The stand-in for mmcv's compiled module."""

from __future__ import annotations

import sys

import pytest
import torch

from mmpluld.compat.ops import install_ops, ops_in_use

stand_in = pytest.mark.skipif(ops_in_use() == "compiled", reason="compiled mmcv is installed and in use")


def test_installing_twice_changes_nothing() -> None:
    install_ops()
    first = sys.modules["mmcv._ext"]
    install_ops()
    assert sys.modules["mmcv._ext"] is first
    assert ops_in_use() in ("compiled", "torchvision", "pure torch")


def test_mmdet_detectors_import() -> None:
    import mmdet.models

    assert mmdet.models.FasterRCNN is not None


def test_batched_nms_keeps_classes_apart() -> None:
    from mmcv.ops import batched_nms

    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 10]])
    dets, kept = batched_nms(
        boxes, torch.tensor([0.9, 0.8, 0.7]), torch.tensor([0, 0, 1]), {"type": "nms", "iou_threshold": 0.5}
    )
    assert kept.tolist() == [0, 2]
    torch.testing.assert_close(dets[:, 4], torch.tensor([0.9, 0.7]))


@stand_in
def test_operator_without_stand_in_names_itself() -> None:
    from mmcv.ops import ModulatedDeformConv2d

    layer = ModulatedDeformConv2d(1, 1, 3)
    with pytest.raises(RuntimeError, match="'modulated_deform_conv_forward' needs compiled mmcv"):
        layer(torch.zeros(1, 1, 5, 5), torch.zeros(1, 18, 3, 3), torch.zeros(1, 9, 3, 3))


@stand_in
def test_stand_in_is_not_taken_for_the_compiled_module() -> None:
    import mmcv.utils.ext_loader

    assert not hasattr(sys.modules["mmcv._ext"], "__file__")
    assert not mmcv.utils.ext_loader.check_ops_exist()
