# Faster R-CNN on 3 slices as the three input channels, ResNet-50 and FPN.
# The partial-label paper states 3 slices and nothing else about this baseline. Ours: network and head are mmdet's usual
# Faster R-CNN R50-FPN; anchors of 16 to 256 px, half of mmdet's, as lesions are small; sampling, proposals and test
# settings are those of the A3D detector, so that Table 1's rows differ in the network alone.
model = dict(
    type="FasterRCNN",
    data_preprocessor=dict(
        type="DetDataPreprocessor",
        # The window transform already yields [-50, 205].
        mean=None,
        std=None,
        bgr_to_rgb=False,
        pad_size_divisor=32,
        pad_value=0,
    ),
    backbone=dict(
        type="ResNet",
        depth=50,
        num_stages=4,
        out_indices=(0, 1, 2, 3),
        frozen_stages=-1,  # nothing is frozen, as in the A3D code; freezing asks for pretrained weights
        norm_cfg=dict(type="BN", requires_grad=True),  # synchronised in multi-GPU runs, see default_runtime.py
        norm_eval=False,
        style="pytorch",
        # From ImageNet: dict(type="Pretrained", checkpoint="torchvision://resnet50").
        init_cfg=None,
    ),
    neck=dict(type="FPN", in_channels=[256, 512, 1024, 2048], out_channels=256, num_outs=5),
    rpn_head=dict(
        type="RPNHead",
        in_channels=256,
        feat_channels=256,
        anchor_generator=dict(
            type="AnchorGenerator", scales=[4], ratios=[0.5, 1.0, 2.0], strides=[4, 8, 16, 32, 64]
        ),  # 16, 32, 64, 128, 256 px
        bbox_coder=dict(type="DeltaXYWHBBoxCoder", target_means=[0.0, 0.0, 0.0, 0.0], target_stds=[1.0, 1.0, 1.0, 1.0]),
        loss_cls=dict(type="CrossEntropyLoss", use_sigmoid=True, loss_weight=1.0),
        loss_bbox=dict(type="SmoothL1Loss", beta=1.0 / 9.0, loss_weight=1.0),
    ),
    roi_head=dict(
        type="LesionRoIHead",
        bbox_roi_extractor=dict(
            type="SingleRoIExtractor",
            roi_layer=dict(type="RoIAlign", output_size=7, sampling_ratio=2),
            out_channels=256,
            featmap_strides=[4, 8, 16, 32],
        ),
        bbox_head=dict(
            type="Shared2FCBBoxHead",
            in_channels=256,
            fc_out_channels=1024,
            roi_feat_size=7,
            num_classes=1,
            bbox_coder=dict(
                type="DeltaXYWHBBoxCoder", target_means=[0.0, 0.0, 0.0, 0.0], target_stds=[0.1, 0.1, 0.2, 0.2]
            ),
            reg_class_agnostic=False,
            loss_cls=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=1.0),
            loss_bbox=dict(type="SmoothL1Loss", beta=1.0, loss_weight=1.0),
        ),
    ),
    train_cfg=dict(
        rpn=dict(
            assigner=dict(
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
            pos_weight=-1,
            debug=False,
        ),
    ),
    test_cfg=dict(
        rpn=dict(nms_pre=6000, max_per_img=300, nms=dict(type="nms", iou_threshold=0.7), min_bbox_size=0),
        rcnn=dict(score_thr=5e-5, nms=dict(type="nms", iou_threshold=0.5), max_per_img=50),
    ),
)

# The miniature: a narrow ResNet-18 without its last stage, for 128 px images on one CPU core.
twin_model = dict(
    model=dict(
        backbone=dict(
            depth=18, base_channels=16, num_stages=3, strides=(1, 2, 2), dilations=(1, 1, 1), out_indices=(0, 1, 2)
        ),
        neck=dict(in_channels=[16, 32, 64], out_channels=64, num_outs=3),
        rpn_head=dict(
            in_channels=64,
            feat_channels=64,
            anchor_generator=dict(scales=[2, 3, 4], strides=[4, 8, 16]),  # 8 to 64 px: boxes of 6 to 20 px
        ),
        roi_head=dict(
            bbox_roi_extractor=dict(out_channels=64, featmap_strides=[4, 8, 16]),
            bbox_head=dict(in_channels=64, fc_out_channels=256),
        ),
        train_cfg=dict(rpn_proposal=dict(nms_pre=300, max_per_img=100)),
        test_cfg=dict(rpn=dict(nms_pre=1000, max_per_img=100)),
    ),
)
