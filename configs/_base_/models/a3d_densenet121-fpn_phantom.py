# Phantom twin of the A3D detector: the same parts, narrower and shallower, for 128 px images on one CPU core.
_base_ = "a3d_densenet121-fpn.py"

model = dict(
    backbone=dict(growth_rate=12, block_config=(3, 4, 4), stem_channels=16),
    neck=dict(in_channels=(52, 74, 85), out_channels=64),
    rpn_head=dict(
        in_channels=64,
        feat_channels=64,
        anchor_generator=dict(scales=[3, 4, 5, 7]),  # 12 to 28 px: small images, boxes with 5 px of padding
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=64),
        bbox_head=dict(in_channels=64, fc_out_channels=256),
        mask_roi_extractor=dict(out_channels=64),
        mask_head=dict(num_convs=2, in_channels=64, conv_out_channels=16),  # a tenth of the training time
    ),
    train_cfg=dict(rpn_proposal=dict(nms_pre=300, max_per_img=100)),
    test_cfg=dict(rpn=dict(nms_pre=1000, max_per_img=100)),
)
