# The LENS detector with MULAN's region proposal network.
_base_ = "lens_densenet121_afp.py"

model = dict(
    rpn_head=dict(
        _delete_=True,
        type="SharedCountRPNHead",
        in_channels=512,
        feat_channels=512,
        anchor_generator=dict(
            type="RoundedRatioAnchorGenerator",  # as published: not of equal area, centred on their cell
            strides=[4],
            base_sizes=[4],
            scales=[4, 6, 8, 12, 24],  # 16, 24, 32, 48, 96 px
            ratios=[0.5, 1.0, 2.0],
        ),
        bbox_coder=dict(type="DeltaXYWHBBoxCoder", target_means=[0.0, 0.0, 0.0, 0.0], target_stds=[1.0, 1.0, 1.0, 1.0]),
        loss_cls=dict(type="CrossEntropyLoss", use_sigmoid=True, loss_weight=1.0),
        loss_bbox=dict(type="SmoothL1Loss", beta=1.0 / 9.0, loss_weight=1.0),
    ),
    train_cfg=dict(
        rpn=dict(
            assigner=dict(
                type="IgnoreAwareMaxIoUAssigner",
                pos_iou_thr=0.7,
                neg_iou_thr=0.3,
                min_pos_iou=0.0,
                match_low_quality=True,
            ),
            sampler=dict(type="RandomSampler", num=32, pos_fraction=0.5, neg_pos_ub=-1, add_gt_as_proposals=False),
            allowed_border=0.5,  # corners are whole numbers: admits anchors that end with the last pixel, no others
            pos_weight=-1,
            debug=False,
        ),
    ),
)
# 8 to 20 px: boxes of the phantoms are 6 to 20 px wide. From 12 px on a quarter of the lesions would have no anchor
# that fits by half.
twin_model = dict(
    model=dict(
        rpn_head=dict(_delete_=True, in_channels=64, feat_channels=64, anchor_generator=dict(scales=[2, 3, 4, 5]))
    )
)
