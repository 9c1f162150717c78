# Phantom twin of mulan_densenet121.py: the same parts, narrower and shallower, for 128 px images on one CPU core, and
# the eight lesion types as tags.
_base_ = "mulan_densenet121.py"

num_tags = 8

model = dict(
    backbone=dict(growth_rate=12, block_config=(3, 4, 4), stem_channels=16),
    neck=dict(in_channels=(52, 74, 85), out_channels=64),
    rpn_head=dict(in_channels=64, feat_channels=64, anchor_generator=dict(scales=[3, 4, 5, 7])),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=64),
        bbox_head=dict(in_channels=64, fc_out_channels=256),
        mask_roi_extractor=dict(out_channels=64),
        mask_head=dict(in_channels=64, conv_out_channels=32),
        tag_roi_extractor=dict(out_channels=64),
        # As many pairs for each tag as in the paper's model.
        tag_head=dict(num_tags=num_tags, in_channels=64, fc_out_channels=128, loss_hard=dict(num_pairs=468)),
        refine_head=dict(num_tags=num_tags),
    ),
    # Pixels are 3.5 times as large as the paper's, and so is the smallest side.
    train_cfg=dict(rpn_proposal=dict(nms_pre=200, max_per_img=60, min_bbox_size=2), rcnn=dict(sampler=dict(num=32))),
    test_cfg=dict(rpn=dict(nms_pre=1000, max_per_img=100, min_bbox_size=2)),
)
