# Phantom twin of 25d_densenet121-fpn.py, as narrow and shallow as the A3D twin.
_base_ = "a3d_densenet121-fpn_phantom.py"

model = dict(
    backbone=dict(slices_as="channels", slice_mixer=None),
    test_cfg=dict(rcnn=dict(score_thr=5e-3)),
)
