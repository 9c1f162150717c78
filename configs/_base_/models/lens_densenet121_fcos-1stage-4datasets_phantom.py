# Phantom twin of lens_densenet121_fcos-1stage-4datasets.py: the same parts, narrower and shallower, for
# 128 px images on one CPU core.
_base_ = "lens_densenet121_fcos-1stage-4datasets.py"

model = dict(
    backbone=dict(growth_rate=12, block_config=(3, 4, 4), stem_channels=16),
    neck=dict(in_channels=(52, 74, 85), out_channels=64),
    bbox_head=dict(head=dict(in_channels=64, feat_channels=64, stacked_convs=2)),
)
