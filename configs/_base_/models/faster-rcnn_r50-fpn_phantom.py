# Phantom twin of faster-rcnn_r50-fpn.py: a narrow ResNet-18 without its last stage, for 128 px images on one CPU core.
_base_ = "faster-rcnn_r50-fpn.py"

model = dict(
    backbone=dict(
        depth=18, base_channels=16, num_stages=3, strides=(1, 2, 2), dilations=(1, 1, 1), out_indices=(0, 1, 2)
    ),
    neck=dict(in_channels=[16, 32, 64], out_channels=64, num_outs=3),
    rpn_head=dict(
        in_channels=64,
        feat_channels=64,
        anchor_generator=dict(scales=[3, 4, 5], strides=[4, 8, 16]),  # 12 to 80 px: small images
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=64, featmap_strides=[4, 8, 16]),
        bbox_head=dict(in_channels=64, fc_out_channels=256),
    ),
    train_cfg=dict(rpn_proposal=dict(nms_pre=300, max_per_img=100)),
    test_cfg=dict(rpn=dict(nms_pre=1000, max_per_img=100)),
)
