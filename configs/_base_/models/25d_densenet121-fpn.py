# 2.5D detector: the A3D detector on an ordinary 2D DenseNet, whose input channels are the slices.
# Numbers: published A3D code (densenet_25d.py, truncated_densenet.py).
_base_ = "a3d_densenet121-fpn.py"

model = dict(
    backbone=dict(slices_as="channels", slice_mixer=None),
    test_cfg=dict(rcnn=dict(score_thr=5e-3)),
)
