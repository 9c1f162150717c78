# Phantom twin of FCOS on A3D: the same parts, as narrow and shallow as a3d_densenet121-fpn_phantom.py.
_base_ = "a3d_densenet121-fcos.py"

model = dict(
    backbone=dict(growth_rate=12, block_config=(3, 4, 4), stem_channels=16),
    neck=dict(in_channels=(52, 74, 85), out_channels=64),
    bbox_head=dict(in_channels=64, stacked_convs=2, feat_channels=64),
)
