# A3D detector: truncated DenseNet-121 with asymmetric 3D context fusion, one fused map at stride 4, two-stage head
# with a mask branch.
# Numbers: published A3D code (densenet_a3d.py, truncated_densenet3d_a3d.py) unless a line says otherwise.
# Geometry is mmdet's modern one (edge boxes, unrounded anchors, aligned RoIAlign).
model = dict(
    type="MaskRCNN",
    data_preprocessor=dict(
        type="DetDataPreprocessor",
        # Normalisation is mean 0, std 1; the window transform already yields [-50, 205].
        mean=None,
        std=None,
        bgr_to_rgb=False,
        pad_size_divisor=32,
        pad_value=0,
        pad_mask=True,
    ),
    backbone=dict(
        type="TruncatedDenseNet",
        num_slices=7,  # as the papers' tables; the dataset base of the same number of slices goes with it
        slice_mixer=dict(type="A3DMixer"),
        growth_rate=32,
        bn_size=4,
        block_config=(6, 12, 24),
        stem_channels=64,
        norm_cfg=dict(type="BN"),  # synchronised in multi-GPU runs, see default_runtime.py
        # The peers start from ImageNet: dict(type="DenseNetImageNet", checkpoint="<file or URL>").
        init_cfg=None,
    ),
    neck=dict(type="TopDownFusion", in_channels=(256, 512, 1024), out_channels=512),
    rpn_head=dict(
        type="RPNHead",
        in_channels=512,
        feat_channels=512,
        anchor_generator=dict(
            type="AnchorGenerator",
            strides=[4],
            base_sizes=[4],
            scales=[4, 6, 8, 12, 24, 48],  # 16, 24, 32, 48, 96, 192 px
            ratios=[0.5, 1.0, 2.0],
        ),
        bbox_coder=dict(type="DeltaXYWHBBoxCoder", target_means=[0.0, 0.0, 0.0, 0.0], target_stds=[1.0, 1.0, 1.0, 1.0]),
        loss_cls=dict(type="CrossEntropyLoss", use_sigmoid=True, loss_weight=1.0),
        loss_bbox=dict(type="SmoothL1Loss", beta=1.0 / 9.0, loss_weight=1.0),
    ),
    roi_head=dict(
        type="LesionRoIHead",
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
                type="DeltaXYWHBBoxCoder", target_means=[0.0, 0.0, 0.0, 0.0], target_stds=[0.1, 0.1, 0.2, 0.2]
            ),
            reg_class_agnostic=False,
            loss_cls=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=1.0),
            loss_bbox=dict(type="SmoothL1Loss", beta=1.0, loss_weight=1.0),
        ),
        mask_roi_extractor=dict(
            type="SingleRoIExtractor",
            roi_layer=dict(type="RoIAlign", output_size=14, sampling_ratio=2),
            out_channels=512,
            featmap_strides=[4],
        ),
        mask_head=dict(
            type="LesionMaskHead",  # 4 convolutions, transposed convolution, 28 x 28
            num_convs=4,
            in_channels=512,
            conv_out_channels=256,
            num_classes=1,  # the published head has a background channel too, which it never uses
            loss_mask=dict(type="MaskDiceLoss", loss_weight=1.0, eps=0.01),
        ),
    ),
    train_cfg=dict(
        rpn=dict(
            assigner=dict(
                # Differs from MaxIoUAssigner only where lesions are marked as uncertain (ignored).
                type="IgnoreAwareMaxIoUAssigner",
                pos_iou_thr=0.7,
                neg_iou_thr=0.3,
                min_pos_iou=0.3,
                match_low_quality=True,
            ),
            sampler=dict(type="RandomSampler", num=32, pos_fraction=0.5, neg_pos_ub=-1, add_gt_as_proposals=False),
            allowed_border=0,
            pos_weight=-1,
            debug=False,
        ),
        rpn_proposal=dict(nms_pre=12000, max_per_img=2000, nms=dict(type="nms", iou_threshold=0.7), min_bbox_size=0),
        rcnn=dict(
            assigner=dict(
                type="IgnoreAwareMaxIoUAssigner",
                pos_iou_thr=0.5,
                neg_iou_thr=0.5,
                min_pos_iou=0.5,
                match_low_quality=True,
            ),
            sampler=dict(type="RandomSampler", num=64, pos_fraction=0.25, neg_pos_ub=-1, add_gt_as_proposals=True),
            mask_size=28,
            soft_mask_target=True,  # the published targets are resized float masks, not binarised again
            pos_weight=-1,
            debug=False,
        ),
    ),
    test_cfg=dict(
        rpn=dict(nms_pre=6000, max_per_img=300, nms=dict(type="nms", iou_threshold=0.7), min_bbox_size=0),
        rcnn=dict(score_thr=5e-5, nms=dict(type="nms", iou_threshold=0.5), max_per_img=50, mask_thr_binary=0.5),
    ),
)

# The miniature: the same parts, narrower and shallower, for 128 px images on one CPU core.
twin_model = dict(
    model=dict(
        backbone=dict(growth_rate=12, block_config=(3, 4, 4), stem_channels=16),
        neck=dict(in_channels=(52, 74, 85), out_channels=64),
        rpn_head=dict(
            in_channels=64,
            feat_channels=64,
            anchor_generator=dict(scales=[2, 3, 4, 5]),  # 8 to 20 px: boxes of the phantoms are 6 to 20 px wide
        ),
        roi_head=dict(
            bbox_roi_extractor=dict(out_channels=64),
            bbox_head=dict(in_channels=64, fc_out_channels=256),
            mask_roi_extractor=dict(out_channels=64),
            mask_head=dict(num_convs=2, in_channels=64, conv_out_channels=16),  # a tenth of the training time
        ),
        train_cfg=dict(rpn_proposal=dict(nms_pre=300, max_per_img=100)),
        test_cfg=dict(rpn=dict(nms_pre=1000, max_per_img=100)),
    ),
)
