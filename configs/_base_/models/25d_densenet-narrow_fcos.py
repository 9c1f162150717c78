# FCOS on the 2.5D row's parts, narrow, so that a scan of 300 slices takes minutes on two CPU cores. One map at stride
# 4; pixels of the input are 1.6 mm wide.
model = dict(
    type="FCOS",
    data_preprocessor=dict(
        type="DetDataPreprocessor", mean=None, std=None, bgr_to_rgb=False, pad_size_divisor=32, pad_value=0
    ),
    backbone=dict(
        type="TruncatedDenseNet",
        num_slices=7,
        slices_as="channels",
        slice_mixer=None,
        growth_rate=16,
        bn_size=4,
        block_config=(4, 8, 12),
        stem_channels=32,
        norm_cfg=dict(type="BN"),
        init_cfg=None,
    ),
    neck=dict(type="TopDownFusion", in_channels=(96, 176, 280), out_channels=96),
    bbox_head=dict(
        type="IgnoreAwareFCOSHead",
        num_classes=1,
        in_channels=96,
        stacked_convs=2,
        feat_channels=96,
        strides=[4],
        regress_ranges=((-1, 1e8),),
        center_sampling=True,
        center_sample_radius=1.5,
        norm_on_bbox=True,
        centerness_on_reg=True,
        loss_cls=dict(type="FocalLoss", use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
        loss_bbox=dict(type="GIoULoss", loss_weight=1.0),
        loss_centerness=dict(type="CrossEntropyLoss", use_sigmoid=True, loss_weight=1.0),
    ),
    train_cfg=None,
    test_cfg=dict(
        nms_pre=300, min_bbox_size=0, score_thr=0.02, nms=dict(type="nms", iou_threshold=0.3), max_per_img=30
    ),
)
