# LENS detector for one dataset: 2.5D DenseNet-121 on 9 slices as 3 images, one fused map at stride 4, anchor-free
# proposals, box head.
# Numbers: LENS paper; where it says nothing, MULAN's code, whose backbone and preparation LENS takes over; "ours" where
# both are silent.
# Geometry is mmdet's modern one (edge boxes, aligned RoIAlign).
model = dict(
    type="FasterRCNN",
    data_preprocessor=dict(
        type="DetDataPreprocessor",
        # The window transform already yields [-50, 205].
        mean=None,
        std=None,
        bgr_to_rgb=False,
        pad_size_divisor=16,
        pad_value=0,
    ),
    backbone=dict(
        type="LensDenseNet",
        num_slices=9,
        num_images=3,
        growth_rate=32,
        bn_size=4,
        block_config=(6, 12, 24),
        stem_channels=64,
        norm_cfg=dict(type="BN"),  # synchronised in multi-GPU runs, see default_runtime.py
        # The paper starts from ImageNet: dict(type="DenseNetImageNet", checkpoint="<file or URL>").
        init_cfg=None,
    ),
    neck=dict(type="ImageTopDownFusion", num_images=3, in_channels=(256, 512, 1024), out_channels=512),
    rpn_head=dict(
        type="AFPHead",
        in_channels=512,
        feat_channels=256,  # ours: fits the paper's growth of the model with the number of heads
        strides=[4],
        pos_scale=0.2,
        ignore_scale=0.5,
        loss_cls=dict(type="FocalLoss", use_sigmoid=True, gamma=2.0, alpha=0.5, loss_weight=1.0),
        loss_bbox=dict(type="L1Loss", loss_weight=0.1),
    ),
    roi_head=dict(
        type="StandardRoIHead",
        bbox_roi_extractor=dict(
            type="SingleRoIExtractor",
            roi_layer=dict(type="RoIAlign", output_size=7, sampling_ratio=2),
            out_channels=512,
            featmap_strides=[4],
        ),
        bbox_head=dict(
            type="Shared2FCBBoxHead",
            in_channels=512,
            fc_out_channels=2048,
            roi_feat_size=7,
            num_classes=1,
            bbox_coder=dict(
                type="DeltaXYWHBBoxCoder", target_means=[0.0, 0.0, 0.0, 0.0], target_stds=[1.0, 1.0, 1.0, 1.0]
            ),
            reg_class_agnostic=False,
            loss_cls=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=1.0),
            loss_bbox=dict(type="SmoothL1Loss", beta=1.0, loss_weight=10.0),
        ),
    ),
    train_cfg=dict(
        rpn=dict(),
        rpn_proposal=dict(nms_pre=12000, max_per_img=2000, nms=dict(type="nms", iou_threshold=0.7), min_bbox_size=8),
        rcnn=dict(
            assigner=dict(
                # Proposals on uncertain lesions take no part; the share that must be covered, half, is ours.
                type="IgnoreAwareMaxIoUAssigner",
                pos_iou_thr=0.5,
                neg_iou_thr=0.5,
                min_pos_iou=0.5,
                match_low_quality=False,
            ),
            sampler=dict(type="RandomSampler", num=64, pos_fraction=0.25, neg_pos_ub=-1, add_gt_as_proposals=True),
            pos_weight=-1,
            debug=False,
        ),
    ),
    test_cfg=dict(
        rpn=dict(nms_pre=6000, max_per_img=300, nms=dict(type="nms", iou_threshold=0.7), min_bbox_size=8),
        # MULAN's threshold is 0.05, which ends the FROC curve early; A3D's code goes on down to this one.
        rcnn=dict(score_thr=5e-5, nms=dict(type="nms", iou_threshold=0.5), max_per_img=50),
    ),
)

find_unused_parameters = True  # without a region, as a batch may be, the box head's classifier has no part in the loss

# The miniature: the same parts, narrower and shallower, for 128 px images on one CPU core.
twin_model = dict(
    model=dict(
        backbone=dict(growth_rate=12, block_config=(3, 4, 4), stem_channels=16),
        neck=dict(in_channels=(52, 74, 85), out_channels=64),
        rpn_head=dict(
            in_channels=64,
            feat_channels=64,
            # A twentieth of the paper's weights: with these the proposal network crowds out the box head (choose-afp).
            loss_cls=dict(loss_weight=0.05),
            loss_bbox=dict(loss_weight=0.005),
        ),
        roi_head=dict(
            bbox_roi_extractor=dict(out_channels=64),
            bbox_head=dict(in_channels=64, fc_out_channels=256),
        ),
        # Pixels are 3.5 times as large as the paper's, and so is the smallest side.
        train_cfg=dict(
            rpn_proposal=dict(nms_pre=200, max_per_img=60, min_bbox_size=2), rcnn=dict(sampler=dict(num=32))
        ),
        test_cfg=dict(rpn=dict(nms_pre=1000, max_per_img=100, min_bbox_size=2)),
    ),
)
